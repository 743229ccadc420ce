"""What a request costs at the door among 100,000 keys."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

import pytest

from open_mcp_gateway.access.authorize import Item, Kind, decide
from open_mcp_gateway.access.keyring import Keyring
from open_mcp_gateway.auth.apikeys import digest_of
from open_mcp_gateway.auth.principal import Permission
from open_mcp_gateway.auth.records import KeyRecord, TenantRecord
from open_mcp_gateway.auth.scope import ScopeText
from open_mcp_gateway.names import KeyId, Namespace, TenantId
from tests.unit.access.worlds import entry

CLIENT = "127.0.0.1:1"
ITEM = Item(Kind.TOOL, "query")


def ring_of(keys: int) -> Callable[[], Keyring]:
    """What makes a keyring of that many keys of 100 tenants, a hundred scopes among them."""
    tenants = [
        TenantRecord(id=TenantId(f"tenant-{number}"), namespaces=(Namespace("prod"),))
        for number in range(100)
    ]
    records = [
        KeyRecord(
            id=KeyId(f"key_{number:012}"),
            holder=tenants[number % 100].id,
            name=f"key {number}",
            role="caller",
            scope=ScopeText(tools=("pg/query", f"pg/tool_{number % 100}", "git/*")),
            digests=(digest_of(b"test-key-%d" % number),),
        )
        for number in range(keys)
    ]
    return lambda: Keyring(tenants, records, time.time)


def measured(ring: Keyring, keys: int, rounds: int) -> tuple[float, float]:
    """p50 and p99 in microseconds of finding out who it is and whether it may."""
    server = entry("pg", "prod")
    took = []
    for number in range(rounds):
        secret = b"test-key-%d" % (number * 7919 % keys)
        began = time.perf_counter_ns()
        who = ring.identifier.identify(secret, CLIENT).principal
        allowed = decide(who, Permission.MCP_CALL, server, ITEM).allowed
        took.append(time.perf_counter_ns() - began)
        assert allowed
    took.sort()
    return took[rounds // 2] / 1000, took[rounds * 99 // 100] / 1000


def test_it_is_measured() -> None:
    """The same walk among few keys: no figure is held to here."""
    p50, p99 = measured(ring_of(500)(), 500, 2_000)
    assert 0 < p50 <= p99


@pytest.mark.long("100,000 keys")
def test_a_hundred_thousand_keys(capsys: pytest.CaptureFixture[str]) -> None:
    make = ring_of(100_000)
    gc.collect()
    began = time.process_time()
    ring = make()
    loaded_s = time.process_time() - began
    p50, p99 = measured(ring, 100_000, 100_000)
    with capsys.disabled():
        print(f"\n100,000 keys: load {loaded_s:.2f} s, p50 {p50:.1f} us, p99 {p99:.1f} us")
    assert loaded_s <= 2.0
    assert p50 <= 10
    assert p99 <= 50
