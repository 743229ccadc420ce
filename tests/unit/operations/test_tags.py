"""The tag of a state: of that record alone, and another for every change of it."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from open_mcp_gateway.auth.apikeys import digest_of
from open_mcp_gateway.auth.principal import PLATFORM
from open_mcp_gateway.auth.records import KeyRecord, TenantRecord
from open_mcp_gateway.auth.scope import ScopeText
from open_mcp_gateway.names import KeyId, Namespace, TenantId
from open_mcp_gateway.operations.tags import TAG, tag_of

KEY = KeyRecord(id=KeyId("key_a"), holder=PLATFORM, name="a", role="admin", digests=())
TENANT = TenantRecord(id=TenantId("a"), namespaces=(Namespace("one"),))
CHANGES_OF_KEYS: dict[str, Any] = {
    "id": KeyId("key_b"),
    "holder": TenantId("a"),
    "name": "b",
    "role": "viewer",
    "scope": ScopeText(tools=()),
    "hint": "...",
    "ip_allow": (),
    "metadata": {"a": "b"},
    "not_before": 1.001,
    "expires_at": 1.0,
    "disabled_at": 1.0,
    "revoked_at": 1.0,
    "revoke_reason": "",
    "created_at": 1.0,
    "created_by": "a",
    "parent": KeyId("key_c"),
    "source": "api",
    "unusable": "scope",
}
CHANGES_OF_TENANTS: dict[str, Any] = {
    "id": TenantId("b"),
    "namespaces": (Namespace("one"), Namespace("two")),
    "name": "a",
    "disabled_at": 1.0,
    "deleted_at": 1.0,
    "created_at": 1.0,
    "source": "api",
    "unusable": "scope",
}
UNTOLD: dict[str, Any] = {"rev": 7, "last_used_at": 1.0, "digests": (digest_of(b"guessed"),)}


@pytest.mark.parametrize(
    ("record", "changes"), [(KEY, CHANGES_OF_KEYS), (TENANT, CHANGES_OF_TENANTS)]
)
def test_every_change_makes_another(
    record: KeyRecord | TenantRecord, changes: dict[str, Any]
) -> None:
    tags = [tag_of(replace(record, **{name: value})) for name, value in changes.items()]
    assert len({tag_of(record), *tags}) == len(changes) + 1
    assert all(TAG.fullmatch(one) for one in tags)
    assert {*changes, *UNTOLD} >= set(record.__struct_fields__)


def test_it_does_not_count_what_others_do() -> None:
    for name, value in UNTOLD.items():
        assert tag_of(replace(KEY, **{name: value})) == tag_of(KEY)
    assert tag_of(replace(TENANT, rev=7)) == tag_of(TENANT)


def test_the_order_of_members_says_nothing() -> None:
    one, other = ({"a": "1", "b": "2"}, {"b": "2", "a": "1"})
    assert tag_of(replace(KEY, metadata=one)) == tag_of(replace(KEY, metadata=other))
