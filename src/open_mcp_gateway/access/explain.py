"""Why a decision came out as it did, and the least that would have to change. Pure.

The trail is the one of the decision itself and every fix is tried on it, so an explanation cannot
say anything else than what is enforced.
"""

from __future__ import annotations

from typing import Any, Final

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from open_mcp_gateway.access.authorize import (
    Check,
    Decision,
    Item,
    Rule,
    decide,
    decide_gateway,
)
from open_mcp_gateway.access.policy import OF_PLATFORM, Roles, bounded
from open_mcp_gateway.access.tenancy import decide_tenant
from open_mcp_gateway.auth.identify import Reason
from open_mcp_gateway.auth.principal import Permission, Platform, Principal
from open_mcp_gateway.auth.records import TenantRecord
from open_mcp_gateway.auth.scope import Everything, ScopeText, matching, written
from open_mcp_gateway.catalog.model import Snapshot
from open_mcp_gateway.names import Namespace, ServerId

KEY_LIVE: Final = "key_live"
NOT_LIVE: Final = "key_not_live"


class Question(Struct, frozen=True, kw_only=True):
    """What somebody might do."""

    permission: Permission
    server: ServerId | None = None
    """None: the gateway as a whole is meant."""

    item: Item | None = None
    tenant: TenantRecord | None = None
    """Where a tenant as a whole is meant."""


class Subject(Struct, frozen=True):
    """Who it is about. ``scope`` is the text that the scope of ``written`` was compiled from."""

    written: Principal
    """What the key could do by itself."""

    scope: ScopeText
    not_live: Reason | None = None
    """Why the key opens nothing at all at this moment; None: it does, or none is asked about."""

    bound: Principal | None = None
    """What the key that it was made with may do; None: it was made with none."""

    @property
    def principal(self) -> Principal:
        """What the key may do."""
        return self.written if self.bound is None else bounded(self.written, self.bound)


class Step(Struct, frozen=True, omit_defaults=True):
    """One rule as applied; ``have`` says what there is where it failed."""

    check: str
    subject: str
    ok: bool
    have: list[str] | UnsetType = UNSET


class Change(Struct, frozen=True, omit_defaults=True):
    """One operation on the key's record, or on ``/tenants/{id}`` (RFC 6902 section 4)."""

    op: str
    path: str
    value: Any = UNSET


class Explanation(Struct, frozen=True, omit_defaults=True):
    """The answer. Without trail and fix where the asker may not know of the server."""

    allowed: bool
    code: str
    trail: list[Step] | UnsetType = UNSET
    smallest_fix: list[Change] | UnsetType = UNSET
    """Empty where nothing is to be mended, or where no change of the key or tenant would do."""


HIDDEN: Final = Explanation(False, "not_found")
"""Of servers that are missing or that the asker may not read, the same to the byte."""


def judge(principal: Principal, question: Question, snapshot: Snapshot) -> Decision:
    """The decision that the question is about."""
    if question.tenant is not None:
        return decide_tenant(principal, question.permission, question.tenant)
    if question.server is None:
        return decide_gateway(principal, question.permission)
    entry = snapshot.entries.get(question.server)
    return decide(principal, question.permission, entry, question.item)


def explain(
    asker: Principal,
    subject: Subject,
    question: Question,
    snapshot: Snapshot,
    *,
    roles: Roles,
    shows_life: bool = False,
) -> Explanation:
    """What ``asker`` may hear of the decision about ``subject``.

    With ``shows_life`` the trail begins with whether the key of ``subject`` opens at all.
    """
    who = subject.principal
    if question.server is not None:
        # Before anything is decided about somebody else, for whom the server may be there.
        entry = snapshot.entries.get(question.server)
        readable = decide(asker, Permission.SERVERS_READ, entry).allowed
        if not readable and not (asker == who and judge(who, question, snapshot).allowed):
            return HIDDEN
    decision = judge(who, question, snapshot)
    trail = [_step(check, who) for check in decision.trail]
    if shows_life:
        trail.insert(0, _life(subject))
    if subject.not_live is not None:
        # No change of what the key may do brings it to life.
        return Explanation(False, NOT_LIVE, trail, [])
    fix = smallest_fix(subject, question, snapshot, roles)
    return Explanation(decision.allowed, decision.code, trail, fix)


def smallest_fix(
    subject: Subject, question: Question, snapshot: Snapshot, roles: Roles
) -> list[Change]:
    """The fewest changes after which the decision is to allow; empty if it is, or cannot be."""
    changes: list[Change] = []
    seen: set[Check] = set()
    while not (decision := judge(subject.principal, question, snapshot)).allowed:
        # Whether the server may be read only tells the two refusals apart.
        failed = [one for one in decision.trail if not one.ok and one.rule is not Rule.READABLE]
        for check in failed:
            # One that fails again cannot be satisfied: nothing names a template in full.
            mended = None if check in seen else _mended(subject, check, roles)
            if mended is None:
                return []
            seen.add(check)
            subject, made = mended
            changes += made
    return changes


def _mended(subject: Subject, check: Check, roles: Roles) -> tuple[Subject, list[Change]] | None:
    """The subject with one rule satisfied, and how; None: that cannot be written."""
    match check.rule:
        case Rule.NAMESPACE:
            return _in_namespace(subject, Namespace(check.subject))
        case Rule.PERMISSION:
            return _promoted(subject, Permission(check.subject), roles)
        case Rule.WHOLE:
            return _unnarrowed(subject)
        case Rule.NOT_DENIED:
            return _undenied(subject, check.subject)
        case _:
            member = _MEMBERS.get(check.rule)
            return None if member is None else _widened(subject, member, check.subject)


_MEMBERS: Final = {
    Rule.OWN_NAMESPACE: "namespaces",
    Rule.OF_TENANT: "namespaces",
    Rule.SERVER: "servers",
    Rule.OWN_PERMISSION: "permissions",
    Rule.TOOL: "tools",
    Rule.RESOURCE: "resources",
    Rule.STRAIGHT: "resources",
    Rule.PROMPT: "prompts",
    Rule.NOT_DENIED: "deny_tools",
}
"""The member of a scope that each rule looks at."""


_CALLS: Final = ("servers", "tools", "deny_tools", "resources", "prompts")
"""The members of a scope that limit calls within a namespace."""


def _in_namespace(subject: Subject, namespace: Namespace) -> tuple[Subject, list[Change]] | None:
    who = subject.written
    if isinstance(who.holder, Platform) or isinstance(who.namespaces, Everything):
        return None
    wider = replace(who, namespaces=who.namespaces | {namespace})
    change = Change("add", f"/tenants/{who.holder}/namespaces/-", namespace)
    return replace(subject, written=wider, bound=_in_namespaces_of(subject.bound, wider)), [change]


def _promoted(
    subject: Subject, permission: Permission, roles: Roles
) -> tuple[Subject, list[Change]] | None:
    """With the smallest role that takes nothing away and grants the permission."""
    who = subject.written
    out_of_reach = frozenset[Permission]() if isinstance(who.holder, Platform) else OF_PLATFORM
    wanted = who.permissions | {permission}
    fitting = [
        (len(granted), name, granted - out_of_reach)
        for name, granted in roles.items()
        if wanted <= granted - out_of_reach
    ]
    if not fitting:
        return None
    _, name, granted = min(fitting, key=lambda one: one[:2])
    promoted = replace(who, role=name, permissions=granted)
    return replace(subject, written=promoted), [Change("replace", "/role", name)]


def _unnarrowed(subject: Subject) -> tuple[Subject, list[Change]] | None:
    """Without what keeps calls within a namespace from it."""
    named = [one for one in _CALLS if getattr(subject.scope, one) is not None]
    scope = replace(subject.scope, **dict.fromkeys(named))
    return _rescoped(subject, scope), [Change("remove", f"/scope/{one}") for one in named]


def _undenied(subject: Subject, name: str) -> tuple[Subject, list[Change]]:
    """Without the patterns that name it, from the last on so that the places before them stay."""
    denied = subject.scope.deny_tools or ()
    places = [place for place, pattern in enumerate(denied) if matching(pattern, name)]
    left = tuple(one for one in denied if not matching(one, name))
    changes = [Change("remove", f"/scope/deny_tools/{place}") for place in reversed(places)]
    return _rescoped(subject, replace(subject.scope, deny_tools=left)), changes


def _widened(subject: Subject, member: str, text: str) -> tuple[Subject, list[Change]] | None:
    if "*" in text:
        return None  # as a pattern it would mean other names, or none
    listed: tuple[str, ...] | None = getattr(subject.scope, member)
    path = f"/scope/{member}"
    change = Change("add", path, [text]) if listed is None else Change("add", f"{path}/-", text)
    scope = replace(subject.scope, **{member: (*(listed or ()), text)})
    return _rescoped(subject, scope), [change]


def _rescoped(subject: Subject, scope: ScopeText) -> Subject:
    return replace(subject, written=replace(subject.written, scope=scope.compiled()), scope=scope)


def _in_namespaces_of(bound: Principal | None, wider: Principal) -> Principal | None:
    """A key of the same tenant is given the namespace too."""
    if bound is None or bound.holder != wider.holder:
        return bound
    return replace(bound, namespaces=wider.namespaces)


def _step(check: Check, who: Principal) -> Step:
    return Step(check.rule, check.subject, check.ok, UNSET if check.ok else _have(check.rule, who))


def _have(rule: Rule, who: Principal) -> list[str] | UnsetType:
    """What the rule was applied to."""
    if rule is Rule.NAMESPACE and not isinstance(who.namespaces, Everything):
        return sorted(who.namespaces)
    if rule is Rule.PERMISSION:
        return sorted(who.permissions)
    member = _MEMBERS.get(rule)
    return UNSET if member is None else written(getattr(who.scope, member))


def _life(subject: Subject) -> Step:
    reason = subject.not_live
    have = UNSET if reason is None else [str(reason)]
    return Step(KEY_LIVE, subject.principal.key_id, reason is None, have)
