"""The forms of the JSON answers, for the description of the API.

Handlers write theirs as they find it best; a test that asks everything the description allows holds
the two together.
"""

from __future__ import annotations

from typing import Any, Final, Literal, TypeAlias

from msgspec import UNSET, Struct, UnsetType

from open_mcp_gateway.access.explain import Explanation
from open_mcp_gateway.operations.views import KeyView, TenantView
from open_mcp_gateway.supervisor.states import ServerState

Chosen: TypeAlias = Literal["*"] | list[str]
"""All, or these patterns."""


class Form(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An object with these members and no others."""


class Health(Form, frozen=True, kw_only=True):
    status: Literal["ok"]


class Ready(Form, frozen=True, kw_only=True):
    status: Literal["ready"]


class NotReady(Form, frozen=True, kw_only=True):
    status: Literal["draining", "store_lost"]


class Server(Form, frozen=True, kw_only=True):
    """What is not known yet is absent."""

    id: str
    display_name: str
    description: str | UnsetType = UNSET
    status: ServerState
    tags: list[str]
    namespace: str
    runtime_type: str
    started_at: str | UnsetType = UNSET
    last_activity: str | UnsetType = UNSET
    request_count: int
    uptime_seconds: int | UnsetType = UNSET


class ServerDetails(Server, frozen=True, kw_only=True):
    """Every secret is shown as ``***``."""

    runtime: dict[str, Any]
    env: dict[str, str]
    connection_count: int
    last_error: str | UnsetType = UNSET


class Moved(Form, frozen=True, kw_only=True):
    id: str
    status: Literal["running", "stopped"]
    message: str


class Figures(Form, frozen=True, kw_only=True):
    status: ServerState
    request_count: int
    error_count: int
    uptime_seconds: int | UnsetType = UNSET
    last_activity: str | UnsetType = UNSET


class Stats(Form, frozen=True, kw_only=True):
    uptime_seconds: int
    total_requests: int
    active_servers: int
    total_servers: int
    last_reload: str
    servers: dict[str, Figures]


class Reloaded(Form, frozen=True, kw_only=True):
    status: Literal["ok"]
    message: str
    servers_loaded: int
    servers_added: int
    servers_removed: int
    servers_modified: int


class Caller(Form, frozen=True, kw_only=True):
    key_id: str
    name: str
    tenant: str | None
    role: str
    permissions: list[str]
    namespaces: Chosen
    servers: Chosen
    tools: Chosen
    resources: Chosen
    prompts: Chosen
    deny_tools: Chosen | UnsetType = UNSET
    expires_at: str | None
    auth: Literal["api_key", "none"]
    warnings: list[str]


class Roles(Form, frozen=True, kw_only=True):
    roles: dict[str, list[str]]


class Explanations(Form, frozen=True, kw_only=True):
    """In the order of ``checks``."""

    results: list[Explanation]


class KeyPage(Form, frozen=True, kw_only=True):
    data: list[KeyView]
    next_cursor: str | None


class CreatedKey(KeyView, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """``secret`` is null where the hash was given, or the request came for the second time;
    ``warning`` then says how to go on."""

    secret: str | None
    warning: str | UnsetType = UNSET
    replayed: bool | UnsetType = UNSET


class RevokedKey(Form, frozen=True, kw_only=True):
    id: str
    revoked_at: str
    reason: str | None
    children: list[str]


class KeyVerdict(Form, frozen=True, kw_only=True):
    """Whose it is is said of keys alone that the caller may know of."""

    valid: bool
    code: str
    key_id: str | UnsetType = UNSET
    name: str | UnsetType = UNSET
    tenant: str | UnsetType | None = UNSET
    role: str | UnsetType = UNSET
    expires_at: str | UnsetType | None = UNSET


class ImportedItem(Form, frozen=True, kw_only=True):
    index: int
    status: int
    key: KeyView | UnsetType = UNSET
    error: str | UnsetType = UNSET
    message: str | UnsetType = UNSET
    code: str | UnsetType = UNSET
    excess: list[str] | UnsetType = UNSET


class ImportedKeys(Form, frozen=True, kw_only=True):
    data: list[ImportedItem]


class TenantPage(Form, frozen=True, kw_only=True):
    data: list[TenantView]
    next_cursor: None


class DeletedTenant(Form, frozen=True, kw_only=True):
    id: str
    deleted: Literal[True]


ANSWERS: Final[dict[tuple[str, str], Any]] = {
    ("GET", "/health"): Health,
    ("GET", "/ready"): Ready,
    ("GET", "/servers"): list[Server],
    ("GET", "/servers/{id}"): ServerDetails,
    ("POST", "/servers/{id}/start"): Moved,
    ("POST", "/servers/{id}/stop"): Moved,
    ("POST", "/servers/{id}/restart"): Moved,
    ("GET", "/stats"): Stats,
    ("POST", "/admin/reload"): Reloaded,
    ("GET", "/whoami"): Caller,
    ("GET", "/openapi.json"): dict[str, Any],
    ("POST", "/auth/explain"): (Explanation, Explanations),
    ("GET", "/admin/roles"): Roles,
    ("POST", "/admin/keys"): CreatedKey,
    ("GET", "/admin/keys"): KeyPage,
    ("POST", "/admin/keys/verify"): KeyVerdict,
    ("POST", "/admin/keys/import"): ImportedKeys,
    ("GET", "/admin/keys/{key}"): KeyView,
    ("PATCH", "/admin/keys/{key}"): KeyView,
    ("DELETE", "/admin/keys/{key}"): RevokedKey,
    ("POST", "/admin/tenants"): TenantView,
    ("GET", "/admin/tenants"): TenantPage,
    ("GET", "/admin/tenants/{tenant}"): TenantView,
    ("PATCH", "/admin/tenants/{tenant}"): TenantView,
    ("DELETE", "/admin/tenants/{tenant}"): DeletedTenant,
}
"""Of every route whose answers are JSON of the gateway's own; several where it can be either."""
