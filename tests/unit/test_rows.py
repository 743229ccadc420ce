"""Rows of the key store and back."""

from __future__ import annotations

import pytest

from open_mcp_gateway.auth.principal import PLATFORM
from open_mcp_gateway.auth.records import KeyRecord, Source
from open_mcp_gateway.auth.scope import ScopeText
from open_mcp_gateway.keystore.rows import key_of, key_values
from open_mcp_gateway.names import KeyId


@pytest.mark.parametrize(("count", "kept"), [(10, True), (1000, False)])
def test_what_keys_have_in_common_is_one_object_unless_it_is_long(count: int, kept: bool) -> None:
    """What is kept for others outlives the key, and there is room for thousands."""
    record = KeyRecord(
        id=KeyId("key_x"),
        holder=PLATFORM,
        name="x",
        role="admin",
        scope=ScopeText(tools=tuple(f"s/{n}" for n in range(count))),
        digests=(b"x" * 32,),
        ip_allow=tuple(f"10.0.{n // 256}.{n % 256}/32" for n in range(count)),
        created_at=1.0,
        source=Source.STORE,
    )
    row = key_values(record, 1)
    one, other = key_of(row, record.digests), key_of(row, record.digests)
    assert one == other
    assert one.scope == record.scope
    assert (one.scope is other.scope) is kept
    assert (one.ip_allow is other.ip_allow) is kept
