"""The one access decision: enforcement, lists and explanations all come from ``decide``.

Only intersections: each rule can take away and none can give. A server that a caller may not read
does not exist for it: same error, same text, same way through the code.
"""

from __future__ import annotations

import enum
from typing import Final

from msgspec import Struct

from open_mcp_gateway.access.permit import Clearance, Permit
from open_mcp_gateway.auth.identify import ANONYMOUS_ROLE
from open_mcp_gateway.auth.principal import Permission, Principal
from open_mcp_gateway.auth.scope import Everything, Scope
from open_mcp_gateway.auth.stepping import may_step_back, template_may_step_back
from open_mcp_gateway.catalog.model import CatalogEntry, LocalProcess, ServerSpec, Snapshot
from open_mcp_gateway.errors import Conflict, Denied, NotFound
from open_mcp_gateway.names import Namespace, ServerId

_LONGEST_ID_CHARS: Final = 64


_MAX_KEPT: Final = 100_000
"""Permits; more pairs of caller and server than that are decided anew now and then."""


_OF_KEYS: Final = frozenset(
    {
        Permission.KEYS_READ,
        Permission.KEYS_WRITE,
        Permission.TENANTS_READ,
        Permission.TENANTS_WRITE,
    }
)
"""What is about keys and their holders."""

_NO_SPEC: Final = ServerSpec(
    id=ServerId("?"), namespace=Namespace("?"), runtime=LocalProcess(command="")
)
_MISSING: Final = CatalogEntry(spec=_NO_SPEC, shown=_NO_SPEC, runtime_type="")
"""Goes through the checks in place of a server that is not there. Neither name can be given."""


class Code(enum.StrEnum):
    """What a decision comes to; refusals are the ``code`` of their error bodies."""

    ALLOWED = "allowed"
    NOT_FOUND = "not_found"
    PERMISSION_DENIED = "permission_denied"
    NOT_IN_SCOPE = "not_in_scope"
    """A tool, resource or prompt of a server that the caller may use."""


class Rule(enum.StrEnum):
    """The rules in the order they are applied."""

    EXISTS = "the server is in the catalog"
    NAMESPACE = "the server's namespace is one of the tenant's"
    OWN_NAMESPACE = "the server's namespace is one of the key's"
    SERVER = "the server is one of the key's"
    PERMISSION = "the role grants the permission"
    OWN_PERMISSION = "the key keeps the permission"
    READABLE = "the caller may read the server"
    TOOL = "the tool is one of the key's"
    NOT_DENIED = "the tool is not one that the key denies"
    RESOURCE = "the resource is one of the key's"
    STRAIGHT = "the resource is named in full, or cannot step back out of what is named"
    PROMPT = "the prompt is one of the key's"
    OF_TENANT = "each namespace of the tenant is one of the key's"
    WHOLE = "the key may call everything in a namespace"


class Kind(enum.StrEnum):
    """What of a server can be in scope or not."""

    TOOL = "tool"
    RESOURCE = "resource"
    TEMPLATE = "template"
    PROMPT = "prompt"


class Item(Struct, frozen=True):
    """A tool or prompt by its name, a resource by its URI, or all resources that a URI template
    (RFC 6570) expands to, as the server calls it."""

    kind: Kind
    name: str


class Check(Struct, frozen=True):
    """One rule as applied: ``subject`` is the server id, namespace, permission or name it was
    applied to."""

    rule: Rule
    subject: str
    ok: bool


class Decision(Struct, frozen=True):
    """The outcome, and every rule on the way to it in order.

    ``trail`` tells of servers the caller may not know of: only for those who may read them.
    """

    allowed: bool
    code: Code
    trail: tuple[Check, ...]


# Looked up once: on the path of every request, and Python 3.11 takes longer for that than to check.
_ALLOWED: Final = Code.ALLOWED
_EXISTS: Final = Rule.EXISTS
_NAMESPACE: Final = Rule.NAMESPACE
_OWN_NAMESPACE: Final = Rule.OWN_NAMESPACE
_SERVER: Final = Rule.SERVER
_PERMISSION: Final = Rule.PERMISSION
_OWN_PERMISSION: Final = Rule.OWN_PERMISSION
_TOOL: Final = Rule.TOOL
_NOT_DENIED: Final = Rule.NOT_DENIED


def decide(
    principal: Principal,
    permission: Permission,
    entry: CatalogEntry | None,
    item: Item | None = None,
) -> Decision:
    """Whether ``principal`` may exercise ``permission`` on ``entry``, or on ``item`` of it.

    An entry of None is a missing server. Why a server does not exist for somebody does not show
    in the time this takes: every such refusal makes the same checks.
    """
    spec, scope = _NO_SPEC if entry is None else entry.spec, principal.scope
    is_there = entry is not None
    of_tenant = spec.namespace in principal.namespaces
    of_key = spec.namespace in scope.namespaces
    chosen = spec.id in scope.servers
    own = granted(principal, permission)
    found = (
        Check(_EXISTS, spec.id, is_there),
        Check(_NAMESPACE, spec.namespace, of_tenant),
        Check(_OWN_NAMESPACE, spec.namespace, of_key),
        Check(_SERVER, spec.id, chosen),
    )
    trail: tuple[Check, ...] = found + own
    # Not ``and``, which would be done sooner the earlier a rule fails.
    exists = is_there & of_tenant & of_key & chosen
    if not (exists & all_ok(own)):
        may_read = principal.may(Permission.SERVERS_READ)
        trail += (Check(Rule.READABLE, Permission.SERVERS_READ, may_read),)
        code = Code.PERMISSION_DENIED if exists and may_read else Code.NOT_FOUND
        return Decision(False, code, trail if exists else found)
    if item is not None:
        in_scope = _in_scope(scope, f"{spec.id}/{item.name}", item.kind)
        trail += in_scope
        if not all_ok(in_scope):
            return Decision(False, Code.NOT_IN_SCOPE, trail)
    return Decision(True, _ALLOWED, trail)


def granted(principal: Principal, permission: Permission) -> tuple[Check, ...]:
    """Whether role and key grant it, wherever."""
    return (
        Check(_PERMISSION, permission, permission in principal.permissions),
        Check(_OWN_PERMISSION, permission, permission in principal.scope.permissions),
    )


def _in_scope(scope: Scope, name: str, kind: Kind) -> tuple[Check, ...]:
    if kind is Kind.TOOL:
        return (
            Check(_TOOL, name, name in scope.tools),
            Check(_NOT_DENIED, name, name not in scope.deny_tools),
        )
    if kind is Kind.PROMPT:
        return (Check(Rule.PROMPT, name, name in scope.prompts),)
    chosen = scope.resources
    if isinstance(chosen, Everything):
        return (Check(Rule.RESOURCE, name, True),)
    if kind is Kind.TEMPLATE and "{" in name:
        # In scope with all it can expand to, so no single one of the key's resources is meant.
        among = Check(Rule.RESOURCE, name, name.partition("{")[0].startswith(chosen.prefixes))
        in_full, straight = False, not template_may_step_back(name)
    else:
        among = Check(Rule.RESOURCE, name, name in chosen)
        in_full = name in chosen.exact
        straight = in_full or not may_step_back(name)
    if in_full or not among.ok:
        return (among,)
    return (among, Check(Rule.STRAIGHT, name, straight))


def all_ok(checks: tuple[Check, ...]) -> bool:
    """Whether no rule failed."""
    # Not ``all(...)``: on the path of every request a generator costs more than the checks.
    for check in checks:  # noqa: SIM110
        if not check.ok:
            return False
    return True


def decide_gateway(principal: Principal, permission: Permission) -> Decision:
    """Whether ``principal`` may exercise ``permission`` where no single server is meant."""
    trail = granted(principal, permission)
    allowed = all_ok(trail)
    return Decision(allowed, Code.ALLOWED if allowed else Code.PERMISSION_DENIED, trail)


def may_use(permit: Permit, item: Item) -> bool:
    """Whether what ``permit`` allows on a server includes this part of it."""
    if not permit.principal.scope.narrows_calls:
        return True
    return decide(permit.principal, permit.permission, permit.entry, item).allowed


def authorize(principal: Principal, permission: Permission, entry: CatalogEntry) -> Permit:
    """Proof that ``principal`` may exercise ``permission`` on ``entry``.

    Raises:
        NotFound: the caller may not know of the server.
        Denied: the caller may read the server, but not do this.
    """
    return _permit(principal, permission, entry, entry.spec.id)


def authorize_by_id(
    principal: Principal, permission: Permission, snapshot: Snapshot, server_id: str
) -> Permit:
    """Like ``authorize`` for a server named by the caller, which need not exist."""
    entry = snapshot.entries.get(ServerId(server_id))
    return _permit(principal, permission, entry, server_id)


class Permits:
    """Permits for the servers of one snapshot, kept: a decision on equal values is the same again.

    ``snapshot`` is immutable, and a principal whose rights change is another principal.
    """

    __slots__ = ("_kept", "_permission", "_snapshot")

    def __init__(self, snapshot: Snapshot, permission: Permission) -> None:
        self._snapshot = snapshot
        self._permission = permission
        self._kept: dict[tuple[Principal, str], Permit] = {}

    def get(self, principal: Principal, server_id: str) -> Permit:
        """Like ``authorize_by_id``; refusals are not kept, so they cannot fill the memory."""
        permit = self._kept.get((principal, server_id))
        if permit is None:
            permit = authorize_by_id(principal, self._permission, self._snapshot, server_id)
            if len(self._kept) >= _MAX_KEPT:
                self._kept.clear()
            self._kept[principal, server_id] = permit
        return permit


def require(principal: Principal, permission: Permission) -> Clearance:
    """Proof that ``principal`` may exercise ``permission`` on the gateway itself.

    Raises:
        Denied: it may not.
        Conflict: it may not, and nobody may while authentication is off.
    """
    if not decide_gateway(principal, permission).allowed:
        if principal.role == ANONYMOUS_ROLE and permission in _OF_KEYS:
            # Not 403: no key would help, since without authentication there are none.
            raise Conflict("authentication is off: there are no keys", code="auth_disabled")
        raise denied(principal, permission, "gateway")
    return Clearance(principal, permission)


def visible(
    principal: Principal, snapshot: Snapshot, permission: Permission = Permission.SERVERS_LIST
) -> list[CatalogEntry]:
    """The servers on which ``principal`` may exercise ``permission``, in catalog order."""
    entries = snapshot.entries.values()
    return [entry for entry in entries if decide(principal, permission, entry).allowed]


def _permit(
    principal: Principal, permission: Permission, entry: CatalogEntry | None, server_id: str
) -> Permit:
    decision = decide(principal, permission, entry)
    if decision.allowed and entry is not None:
        return Permit(principal, permission, entry)
    if decision.code is Code.PERMISSION_DENIED:
        raise denied(principal, permission, f"server/{server_id}")
    # Longer than any id: whoever asks for a megabyte of id does not get it back.
    raise NotFound(f"Server '{server_id[:_LONGEST_ID_CHARS]}' not found")


def denied(principal: Principal, permission: Permission, resource: str) -> Denied:
    """The refusal to who may know of the resource."""
    text = f"Permission '{permission}' on '{resource}' is required"
    return Denied(text, permission=permission, resource=resource, key_id=principal.key_id)
