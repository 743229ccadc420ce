"""No key gives more than it has."""

from __future__ import annotations

import sys
from typing import Any

import pytest

from open_mcp_gateway.access.policy import ROLES, principal_of
from open_mcp_gateway.auth.principal import PLATFORM, Holder
from open_mcp_gateway.auth.records import KeyRecord, TenantRecord
from open_mcp_gateway.auth.scope import ScopeText
from open_mcp_gateway.errors import Escalation
from open_mcp_gateway.names import KeyId, Namespace, TenantId
from open_mcp_gateway.operations.minting import Rights, check_subset, effective, excess

A, B = TenantId("a"), TenantId("b")
TENANTS = {
    A: TenantRecord(id=A, namespaces=(Namespace("one"), Namespace("two"))),
    B: TenantRecord(id=B, namespaces=(Namespace("one"),)),
}


def rights(
    role: str = "tenant-admin",
    holder: Holder = A,
    *,
    expires_at: float | None = None,
    ip_allow: tuple[str, ...] | None = None,
    **scope: Any,
) -> Rights:
    text = ScopeText(**scope)
    record = KeyRecord(
        id=KeyId("key_x"), holder=holder, name="x", role=role, scope=text, digests=()
    )
    principal = principal_of(record, TENANTS, ROLES)
    return Rights(principal=principal, expires_at=expires_at, ip_allow=ip_allow)


WHOLE = {
    "viewer": rights("viewer"),
    "narrowed": rights(namespaces=("one",), tools=("s/x",), deny_tools=("s/y",)),
    "ending": rights(expires_at=10.0),
    "networks": rights(ip_allow=("10.0.0.0/8", "::1/128")),
    "platform": rights("admin", PLATFORM),
}


@pytest.mark.parametrize("name", WHOLE)
def test_a_key_can_give_what_it_has(name: str) -> None:
    assert excess(WHOLE[name], WHOLE[name]) == ()
    check_subset(WHOLE[name], WHOLE[name])


@pytest.mark.parametrize("name", WHOLE)
def test_the_platform_admin_can_give_everything(name: str) -> None:
    assert excess(rights("admin", PLATFORM), WHOLE[name]) == ()


@pytest.mark.parametrize(
    ("giver", "given", "over"),
    [
        (rights("admin"), rights(holder=B), ["tenant: not the caller's own"]),
        (rights("admin"), rights(holder=PLATFORM), ["tenant: not the caller's own"]),
        (
            rights(permissions=("keys:*",)),
            rights("viewer"),
            [
                "permissions: servers:list",
                "permissions: servers:read",
                "permissions: stats:read",
                "permissions: *",
            ],
        ),
        (
            # All that a viewer has now; tomorrow its role may have more.
            rights("viewer", permissions=("servers:*", "stats:read")),
            rights("viewer"),
            ["permissions: *"],
        ),
        (
            rights(permissions=("keys:write", "mcp:call")),
            rights("viewer", permissions=("mcp:*",)),
            ["permissions: mcp:*"],
        ),
        (
            rights(permissions=("keys:write",)),
            rights("caller", permissions=("mcp:call",)),
            ["permissions: mcp:call"],
        ),
        (rights("viewer"), rights("caller"), ["permissions: mcp:call"]),
        (rights(namespaces=("one",)), rights(), ["namespaces: *"]),
        (rights(namespaces=("one",)), rights(namespaces=("one", "two")), ["namespaces: two"]),
        (rights(namespaces=()), rights(namespaces=("one",)), ["namespaces: one"]),
        (rights(servers=("s*",)), rights(servers=("s1", "t*")), ["servers: t*"]),
        (
            rights(tools=("s/x",)),
            rights(tools=("s/x", "s/y"), resources=("s/r",), prompts=("s/p",)),
            ["tools: s/y", "resources: s/r", "prompts: s/p"],
        ),
        (
            rights(deny_tools=("s/x", "s/y")),
            rights(deny_tools=("s/x*",)),
            ["deny_tools: s/y is not denied"],
        ),
        (rights(expires_at=10.0), rights(), ["expires_at: after the caller's own"]),
        (
            rights(expires_at=10.0),
            rights(expires_at=10.5),
            ["expires_at: after the caller's own"],
        ),
        (rights(ip_allow=("10.0.0.0/8",)), rights(), ["ip_allow: anywhere"]),
        (
            rights(ip_allow=("10.0.0.0/8", "fd00::/8")),
            rights(ip_allow=("10.1.0.0/16", "fd01::/16", "11.0.0.0/8", "::/0")),
            ["ip_allow: 11.0.0.0/8", "ip_allow: ::/0"],
        ),
        (rights(ip_allow=()), rights(ip_allow=("::1/128",)), ["ip_allow: ::1/128"]),
    ],
)
def test_every_surplus_is_named(giver: Rights, given: Rights, over: list[str]) -> None:
    assert list(excess(giver, given)) == over
    with pytest.raises(Escalation) as raised:
        check_subset(giver, given)
    assert list(raised.value.excess) == over


def test_narrower_is_fine() -> None:
    child = rights(
        "viewer",
        namespaces=("one",),
        servers=(),
        tools=(),
        deny_tools=("*",),
        expires_at=1.0,
        ip_allow=(),
    )
    assert excess(rights(), child) == ()


def test_permissions_are_those_that_role_and_key_both_grant() -> None:
    assert effective(rights("caller", permissions=("mcp:*", "keys:write")).principal) == [
        "mcp:call"
    ]


def test_comparing_many_networks_takes_steps_for_each_and_not_for_each_pair() -> None:
    many = tuple(f"10.{n // 256}.{n % 256}.0/24" for n in range(300))
    giver, given = rights(ip_allow=many[::-1]), rights(ip_allow=many)
    steps = 0

    def count(_frame: object, event: str, _argument: object) -> None:
        nonlocal steps
        steps += event == "call"

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        over = excess(giver, given)
    finally:
        sys.setprofile(before)
    assert over == ()
    assert steps < 100 * len(many)
