"""``POST /auth/explain``: why a caller, or a key it governs, may or may not do something."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Final

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field
from msgspec.structs import replace

from open_mcp_gateway.access.authorize import Item, Kind, require
from open_mcp_gateway.access.explain import Explanation, Question, Subject, explain
from open_mcp_gateway.access.keyring import Keyring
from open_mcp_gateway.auth.identify import ANONYMOUS_ROLE
from open_mcp_gateway.auth.principal import Holder, Permission, Principal
from open_mcp_gateway.auth.records import KeyRecord, TenantRecord
from open_mcp_gateway.auth.scope import ScopeText
from open_mcp_gateway.catalog.model import Snapshot
from open_mcp_gateway.errors import InvalidRequest, NotFound, UnsupportedMedia, WrongKey
from open_mcp_gateway.inbound.handlers import Handler, OnCaller, Request
from open_mcp_gateway.inbound.routes import ANY_KEY, Route
from open_mcp_gateway.names import KeyId, ServerId, TenantId
from open_mcp_gateway.pipeline.reply import Reply
from open_mcp_gateway.protocol.unique import check_members

MAX_CHECKS: Final = 100
_SHOWN_CHARS: Final = 64
"""Longer than any action or role: whoever asks with a megabyte does not get it back."""

_OF_GATEWAY: Final = frozenset(
    {
        Permission.CATALOG_RELOAD,
        Permission.KEYS_READ,
        Permission.KEYS_WRITE,
        Permission.TENANTS_READ,
        Permission.TENANTS_WRITE,
        Permission.EXPLAIN_ANY,
    }
)
"""No server is ever meant by these."""


class As(Struct, frozen=True, forbid_unknown_fields=True):
    """About whom: a key, or a key that might be made."""

    key_id: str | UnsetType = UNSET
    role: str | UnsetType = UNSET
    tenant: str | UnsetType = UNSET


class Asked(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One question as received."""

    action: Annotated[str, Meta(extra_json_schema={"enum": [*Permission]})] | UnsetType = UNSET
    server: str | UnsetType = UNSET
    tenant: str | UnsetType = UNSET
    tool: str | UnsetType = UNSET
    resource: str | UnsetType = UNSET
    prompt: str | UnsetType = UNSET
    about: As | UnsetType = field(default=UNSET, name="as")


class Questions(Asked, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One question, or several in ``checks``."""

    checks: Annotated[list[Asked], Meta(min_length=1, max_length=MAX_CHECKS)] | UnsetType = UNSET


_BODY: Final = msgspec.json.Decoder(Questions)


class Explaining:
    """The handler; the callables give what is in force, ``now`` wall time in seconds."""

    def __init__(
        self,
        *,
        keyring: Callable[[], Keyring],
        catalog: Callable[[], Snapshot],
        now: Callable[[], float],
    ) -> None:
        self.keyring = keyring
        self.catalog = catalog
        self.now = now

    def routes(self) -> list[Route[Handler]]:
        """The part of the table."""
        handler = OnCaller(self.answer)
        return [Route(methods=("POST",), path="/auth/explain", permission=ANY_KEY, handler=handler)]

    async def answer(self, asker: Principal, request: Request) -> Reply:
        """One explanation, or ``results`` in the order of ``checks``."""
        media = request.arrival.header(b"content-type")
        if media is not None and media.partition(b";")[0].strip().lower() != b"application/json":
            raise UnsupportedMedia("send the body as 'Content-Type: application/json'")
        asked = read_body(request.body)
        if isinstance(asked, Asked):
            return Reply(200, msgspec.json.encode(self._explain(asker, asked)))
        results = [self._explain(asker, one) for one in asked]
        return Reply(200, msgspec.json.encode({"results": results}))

    def _explain(self, asker: Principal, asked: Asked) -> Explanation:
        keyring, catalog = self.keyring(), self.catalog()
        question = question_of(asked)
        if not isinstance(asked.tenant, UnsetType):
            question = replace(question, tenant=_tenant(asker, asked.tenant, keyring))
        about = asked.about
        if isinstance(about, UnsetType) or about == As(key_id=asker.key_id):
            subject = _self(asker, keyring)
            return explain(asker, subject, question, catalog, roles=keyring.roles)
        require(asker, Permission.EXPLAIN_ANY)
        if isinstance(about.key_id, UnsetType):
            subject = _might_be(asker, about, keyring)
            return explain(asker, subject, question, catalog, roles=keyring.roles)
        subject = self._other(asker, about, about.key_id, keyring)
        return explain(asker, subject, question, catalog, roles=keyring.roles, shows_life=True)

    def _other(self, asker: Principal, about: As, key_id: str, keyring: Keyring) -> Subject:
        if about != As(key_id=key_id):
            raise InvalidRequest("'as' takes 'key_id' alone, or 'role' and 'tenant'")
        record = keyring.keys.get(KeyId(key_id))
        if record is None or not asker.governs(record.holder):
            raise NotFound(f"Key '{key_id[:_SHOWN_CHARS]}' not found")
        not_live = keyring.not_live(record, self.now())
        return Subject(keyring.written(record), record.scope, not_live, keyring.bound(record))


def _self(asker: Principal, keyring: Keyring) -> Subject:
    if asker.role == ANONYMOUS_ROLE:
        return Subject(asker, ScopeText())
    record = keyring.keys.get(asker.key_id)
    if record is None or keyring.principal(record) != asker:
        raise WrongKey("Invalid API key")  # changed since this request was let in
    return Subject(keyring.written(record), record.scope, bound=keyring.bound(record))


def _might_be(asker: Principal, about: As, keyring: Keyring) -> Subject:
    """A key that is not narrowed, of the asker's own holder if no tenant is named."""
    role = about.role
    if isinstance(role, UnsetType):
        raise InvalidRequest("'as' takes 'key_id', or 'role' with or without 'tenant'")
    holder: Holder = asker.holder
    if not isinstance(about.tenant, UnsetType):
        holder = _tenant(asker, about.tenant, keyring).id
    if role not in keyring.roles:
        known = ", ".join(sorted(keyring.roles))
        raise InvalidRequest(f"'{role[:_SHOWN_CHARS]}' is no role; the roles are {known}")
    record = KeyRecord(id=KeyId("as"), holder=holder, name="", role=role, digests=())
    return Subject(keyring.principal(record), record.scope)


def _tenant(asker: Principal, tenant_id: str, keyring: Keyring) -> TenantRecord:
    """Raises NotFound also for one that is none of the asker's business."""
    tenant = keyring.tenants.get(TenantId(tenant_id))
    if tenant is None or tenant.deleted_at is not None or not asker.governs(tenant.id):
        raise NotFound(f"Tenant '{tenant_id[:_SHOWN_CHARS]}' not found")
    return tenant


def read_body(body: bytes) -> Asked | list[Asked]:
    """The question, or the questions, in a body.

    Raises:
        InvalidRequest: it is neither, or has a member twice; says what is wrong.
    """
    try:
        asked = _BODY.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRequest(f"the body is not a question: {error}") from error
    check_members(body)
    checks = asked.checks
    if isinstance(checks, UnsetType):
        return asked
    if asked != Questions(checks=checks):
        raise InvalidRequest("send one question, or 'checks' and nothing beside it")
    return checks


def question_of(asked: Asked) -> Question:
    """The question, made of what was received. Raises InvalidRequest, which says what is wrong."""
    if isinstance(asked.action, UnsetType):
        raise InvalidRequest('name the \'action\', as in {"action": "mcp:call"}')
    if asked.action not in Permission.__members__.values():
        known = ", ".join(Permission)
        text = f"'{asked.action[:_SHOWN_CHARS]}' is no action; the actions are {known}"
        raise InvalidRequest(text)
    permission = Permission(asked.action)
    named = ((Kind.TOOL, asked.tool), (Kind.RESOURCE, asked.resource), (Kind.PROMPT, asked.prompt))
    items = [Item(kind, name) for kind, name in named if not isinstance(name, UnsetType)]
    if len(items) > 1:
        raise InvalidRequest("name one of 'tool', 'resource' and 'prompt'")
    if not isinstance(asked.tenant, UnsetType) and permission is not Permission.TENANTS_WRITE:
        raise InvalidRequest(f"'{permission}' is not about a tenant; ask for 'tenants:write'")
    if isinstance(asked.server, UnsetType):
        if items:
            raise InvalidRequest(f"name the 'server' of the {items[0].kind}")
        return Question(permission=permission)
    if permission in _OF_GATEWAY:
        raise InvalidRequest(f"'{permission}' is not about a server; leave out 'server'")
    if items and permission is not Permission.MCP_CALL:
        raise InvalidRequest(f"'{permission}' is not about a {items[0].kind}; ask for 'mcp:call'")
    item = items[0] if items else None
    return Question(permission=permission, server=ServerId(asked.server), item=item)
