"""Small worlds of tenants, keys and servers, and the rules once more, from records alone."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from typing import Final

from hypothesis import strategies as st
from msgspec import Struct
from msgspec.structs import replace

from open_mcp_gateway.access.authorize import Item, Kind
from open_mcp_gateway.auth.principal import PLATFORM, Holder, Permission, Platform
from open_mcp_gateway.auth.records import KeyRecord, TenantRecord
from open_mcp_gateway.auth.scope import ScopeText
from open_mcp_gateway.catalog.model import CatalogEntry, LocalProcess, ServerSpec
from open_mcp_gateway.names import KeyId, Namespace, ServerId, TenantId

ALPHA: Final = TenantId("alpha")
TENANT: Final = TenantRecord(id=ALPHA, namespaces=(Namespace("prod"), Namespace("dev")))

VIEWING: Final = "servers:list servers:read stats:read"
CALLING: Final = f"{VIEWING} mcp:call"
OPERATING: Final = f"{CALLING} servers:start servers:stop servers:restart"
RULING: Final = f"{OPERATING} keys:read keys:write explain:any"
TABLE: Final = {
    "viewer": VIEWING,
    "caller": CALLING,
    "operator": OPERATING,
    "tenant-admin": RULING,
    "auditor": f"{VIEWING} keys:read explain:any",
    "admin": f"{RULING} catalog:reload tenants:read tenants:write",
}
"""The roles, independently of the code."""

NEVER_OF_TENANTS: Final = ("catalog:reload", "tenants:read", "tenants:write")


class Case(Struct, frozen=True, kw_only=True):
    """One question to the policy, with everything that the answer depends on."""

    record: KeyRecord
    tenant: TenantRecord
    permission: Permission
    entry: CatalogEntry
    item: Item | None


def record(holder: Holder, role: str, scope: ScopeText) -> KeyRecord:
    return KeyRecord(id=KeyId("k"), holder=holder, name="k", role=role, scope=scope, digests=())


def entry(server_id: str, namespace: str) -> CatalogEntry:
    runtime = LocalProcess(command="true")
    spec = ServerSpec(id=ServerId(server_id), namespace=Namespace(namespace), runtime=runtime)
    return CatalogEntry(spec=spec, shown=spec, runtime_type="local-process")


def _named(patterns: tuple[str, ...] | None, text: str) -> bool:
    """Whether a list leaves ``text``; what is not mentioned leaves everything."""
    if patterns is None:
        return True
    for pattern in patterns:
        if pattern == text or (pattern[-1] == "*" and text[: len(pattern) - 1] == pattern[:-1]):
            return True
    return False


def naive(case: Case) -> str:
    """The rules again, as plainly as they can be put."""
    key, spec, scope = case.record, case.entry.spec, case.record.scope
    of_tenant = not isinstance(key.holder, Platform)
    if of_tenant and (key.holder != case.tenant.id or spec.namespace not in case.tenant.namespaces):
        return "not_found"
    if not _named(scope.namespaces, spec.namespace) or not _named(scope.servers, spec.id):
        return "not_found"

    def may(permission: str) -> bool:
        if of_tenant and permission in NEVER_OF_TENANTS:
            return False
        granted = permission in TABLE.get(key.role, "").split()
        return granted and _named(scope.permissions, permission)

    if not may(case.permission):
        return "permission_denied" if may("servers:read") else "not_found"
    if case.item is not None and not _reaches(scope, case.item, spec.id):
        return "not_in_scope"
    return "allowed"


def _reaches(scope: ScopeText, item: Item, server_id: str) -> bool:
    name = f"{server_id}/{item.name}"
    if item.kind is Kind.TOOL:
        denied = scope.deny_tools is not None and _named(scope.deny_tools, name)
        return _named(scope.tools, name) and not denied
    named = scope.prompts if item.kind is Kind.PROMPT else scope.resources
    if named is None:
        return scope.tools is None
    if item.kind is Kind.PROMPT or "*" in named or name in named:
        return _named(named, name)
    return _named(named, name) and "/../" not in name


HOLDERS: Final[tuple[Holder, ...]] = (ALPHA, TenantId("unknown"))
SCOPES: Final = tuple(
    replace(narrow, servers=servers, tools=tools, deny_tools=denied)
    for narrow, servers, (tools, denied) in itertools.product(
        (
            ScopeText(),
            ScopeText(namespaces=("prod", "stage")),
            ScopeText(permissions=("servers:*", "mcp:call"), namespaces=("*",)),
        ),
        (None, ("pg", "g*"), ()),
        ((None, None), (("pg/query", "git/*"), None), (None, ("pg/d*",))),
    )
)
NAMESPACES: Final = ("prod", "dev", "stage")
SERVERS: Final = ("pg", "git", "web", "p")
ITEMS: Final = (None, Item(Kind.TOOL, "query"), Item(Kind.TOOL, "drop"))


def small_world() -> Iterator[Case]:
    """6 roles, 27 scopes, 2 tenants, 3 namespaces, 4 servers, 3 tools, every permission."""
    entries = [entry(*pair) for pair in itertools.product(SERVERS, NAMESPACES)]
    for role, scope, holder in itertools.product(TABLE, SCOPES, HOLDERS):
        key = record(holder, role, scope)
        for one, item, permission in itertools.product(entries, ITEMS, Permission):
            yield Case(record=key, tenant=TENANT, permission=permission, entry=one, item=item)


def _lists(*patterns: str) -> st.SearchStrategy[tuple[str, ...] | None]:
    some = st.lists(st.sampled_from(patterns), max_size=3, unique=True).map(tuple)
    return st.none() | some


_PARTS: Final = ("pg/query", "pg/drop", "pg/*", "pg/d*", "git/*", "git/query", "*", "pg/d/../q")
_NAMES: Final = ("query", "drop", "d/../q")

scopes: st.SearchStrategy[ScopeText] = st.builds(
    ScopeText,
    permissions=_lists("servers:*", "servers:read", "mcp:call", "*", "keys:read", "s*"),
    namespaces=_lists("prod", "dev", "stage", "*", "p*"),
    servers=_lists("pg", "git", "*", "p*", "g*"),
    tools=_lists(*_PARTS),
    deny_tools=_lists(*_PARTS),
    resources=_lists(*_PARTS),
    prompts=_lists(*_PARTS),
)
holders: st.SearchStrategy[Holder] = st.sampled_from([ALPHA, PLATFORM, ALPHA])
items = st.none() | st.builds(Item, st.sampled_from(Kind), st.sampled_from(_NAMES))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Any case; more worlds than the small one has."""
    role = draw(st.sampled_from([*TABLE, "none"]))
    namespaces = draw(st.sampled_from([(), ("prod",), ("prod", "dev"), ("stage",)]))
    return Case(
        record=record(draw(holders), role, draw(scopes)),
        tenant=TenantRecord(id=ALPHA, namespaces=tuple(Namespace(one) for one in namespaces)),
        permission=draw(st.sampled_from(Permission)),
        entry=entry(draw(st.sampled_from(SERVERS)), draw(st.sampled_from(NAMESPACES))),
        item=draw(items),
    )


_SOMEBODY: Final[tuple[Holder, ...]] = (ALPHA, PLATFORM)


def random_cases(count: int) -> Iterator[Case]:
    """The same kind, many and quickly, always the same ones."""
    rng = random.Random(count)
    words = ("servers:read", "mcp:call", "s*", "prod", "dev", "p*", "pg", "git", "*", *_PARTS)
    members = ("permissions", "namespaces", "servers", "tools", "deny_tools", "resources")
    for _ in range(count):
        lists = {one: _some(rng, words) for one in (*members, "prompts") if rng.random() < 0.4}
        namespaces = tuple(Namespace(one) for one in NAMESPACES if rng.random() < 0.6)
        item = Item(rng.choice(list(Kind)), rng.choice(_NAMES))
        yield Case(
            record=record(rng.choice(_SOMEBODY), rng.choice([*TABLE, "none"]), ScopeText(**lists)),
            tenant=TenantRecord(id=ALPHA, namespaces=namespaces),
            permission=rng.choice(list(Permission)),
            entry=entry(rng.choice(SERVERS), rng.choice(NAMESPACES)),
            item=rng.choice([None, item]),
        )


def _some(rng: random.Random, words: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(rng.sample(words, rng.randrange(5)))
