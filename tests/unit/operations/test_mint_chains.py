"""Keys that make keys that make keys: none can do what the first of them could not."""

from __future__ import annotations

import random
from typing import Final

import pytest
from msgspec.structs import replace

from open_mcp_gateway.access.authorize import Item, Kind, decide, decide_gateway
from open_mcp_gateway.access.policy import ROLES, principal_of
from open_mcp_gateway.auth.principal import PLATFORM, Holder, Permission, Principal
from open_mcp_gateway.auth.records import KeyRecord, TenantRecord
from open_mcp_gateway.auth.scope import ScopeText
from open_mcp_gateway.catalog.model import CatalogEntry
from open_mcp_gateway.names import Namespace
from open_mcp_gateway.operations.minting import Rights, excess
from tests.unit.access.worlds import ALPHA, TENANT, entry, record

SHORT, LONG = 2_000, 100_000
DEPTH: Final = 5
TENANTS: Final = (
    TENANT,
    replace(TENANT, namespaces=(*TENANT.namespaces, Namespace("stage"))),
    replace(TENANT, namespaces=()),
)
"""A tenant before and after somebody changed what it may reach."""

PATTERNS: Final = {
    "permissions": ("servers:*", "servers:list", "mcp:call", "keys:*", "keys:read", "*"),
    "namespaces": ("prod", "dev", "stage", "p*", "*"),
    "servers": ("pg", "git", "p*", "*"),
    "tools": ("pg/query", "pg/*", "git/log", "pg/drop*", "*"),
    "deny_tools": ("pg/query", "pg/*", "pg/drop_all", "git/*"),
    "resources": ("pg/r", "*"),
    "prompts": ("pg/p", "git/*"),
}
HOLDERS: Final[tuple[Holder, ...]] = (ALPHA, PLATFORM)
NETWORKS: Final = ("10.0.0.0/8", "10.1.0.0/16", "10.1.2.3/32", "fd00::/8", "0.0.0.0/0")
ENTRIES: Final = (entry("pg", "prod"), entry("pg", "stage"), entry("git", "dev"))
ITEMS: Final = (
    None,
    *(Item(Kind.TOOL, name) for name in ("query", "drop", "drop_all", "log")),
    Item(Kind.RESOURCE, "r"),
    Item(Kind.PROMPT, "p"),
)


class Key:
    """A key with everything that makes it worth more or less."""

    def __init__(
        self, record: KeyRecord, expires_at: float | None, ip_allow: tuple[str, ...] | None
    ) -> None:
        self.record, self.expires_at, self.ip_allow = record, expires_at, ip_allow

    def rights(self, tenant: TenantRecord) -> Rights:
        principal = principal_of(self.record, {ALPHA: tenant}, ROLES)
        return Rights(principal=principal, expires_at=self.expires_at, ip_allow=self.ip_allow)


def some(chance: random.Random, words: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(chance.sample(words, chance.randint(0, len(words))))


def other(chance: random.Random, parent: Key) -> Key:
    """A key like ``parent`` but for a few members, wider or narrower as it happens."""
    scope, role, holder = parent.record.scope, parent.record.role, parent.record.holder
    expires_at, ip_allow = parent.expires_at, parent.ip_allow
    for _ in range(chance.randint(1, 3)):
        member = chance.choice([*PATTERNS, "role", "holder", "expires_at", "ip_allow"])
        if member == "role":
            role = chance.choice([*ROLES, "unknown"])
        elif member == "holder":
            holder = chance.choice(HOLDERS)
        elif member == "expires_at":
            expires_at = chance.choice([None, 1.0, 2.0, 3.0])
        elif member == "ip_allow":
            ip_allow = chance.choice([None, some(chance, NETWORKS)])
        else:
            chosen = chance.choice([None, some(chance, PATTERNS[member])])
            scope = replace(scope, **{member: chosen})
    return Key(record(holder, role, scope), expires_at, ip_allow)


def first(chance: random.Random) -> Key:
    holder = chance.choice(HOLDERS)
    return Key(record(holder, chance.choice([*ROLES]), ScopeText()), None, None)


def can(key: Key, tenant: TenantRecord) -> set[tuple[str, Item | None]]:
    """Everything that it may do."""
    who = key.rights(tenant).principal
    allowed = {
        (f"{one.spec.namespace}/{one.spec.id}", item)
        for one in ENTRIES
        for item in ITEMS
        if _may(who, one, item)
    }
    return allowed | {(one, None) for one in Permission if decide_gateway(who, one).allowed}


def _may(who: Principal, server: CatalogEntry, item: Item | None) -> bool:
    return decide(who, Permission.MCP_CALL, server, item).allowed


def check_chains(seed: int, chains: int) -> int:
    """How many keys were made."""
    chance, made = random.Random(seed), 0
    for _ in range(chains):
        parent = first(chance)
        for _ in range(DEPTH):
            child = other(chance, parent)
            if excess(parent.rights(TENANT), child.rights(TENANT)):
                continue
            made += 1
            for tenant in TENANTS:
                assert can(child, tenant) <= can(parent, tenant), (parent.record, child.record)
            assert (child.expires_at or 9.0) <= (parent.expires_at or 9.0)
            assert parent.ip_allow is None or child.ip_allow is not None
            parent = child
    return made


def test_no_child_can_do_more_than_its_parent() -> None:
    assert check_chains(1, SHORT // DEPTH) > SHORT // 5


@pytest.mark.long("100,000 keys in chains of 5")
@pytest.mark.timeout(1800)
def test_no_child_of_many_can_do_more_than_its_parent() -> None:
    assert check_chains(2, LONG // DEPTH) > LONG // 5
