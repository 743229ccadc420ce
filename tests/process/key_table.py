"""A process that takes a table of keys into memory: ``PATH KEYS`` makes the store if there is none,
loads it and prints, as JSON, what that took."""

from __future__ import annotations

import gc
import json
import sys
import time
from pathlib import Path

from msgspec.structs import replace

from open_mcp_gateway.auth.apikeys import digest_of
from open_mcp_gateway.auth.records import KeyRecord, Source, TenantRecord
from open_mcp_gateway.auth.scope import ScopeText
from open_mcp_gateway.keystore.open import create_store, open_store
from open_mcp_gateway.keystore.store import StoreChanges, Transaction
from open_mcp_gateway.names import KeyId, Namespace, TenantId
from open_mcp_gateway.operations.inforce import Configured, KeysInForce

CHANGES = 50


def record(number: int) -> KeyRecord:
    return KeyRecord(
        id=KeyId(f"key_{number:012}"),
        holder=TenantId(f"tenant-{number % 100}"),
        name=f"key {number}",
        role="caller",
        scope=ScopeText(tools=("pg/query", f"pg/tool_{number % 100}", "git/*")),
        digests=(digest_of(b"test-key-%d" % number),),
        hint="mgk_…abcd",
        expires_at=2_000_000_000.0,
        created_at=1_700_000_000.0,
        created_by="config:api_key",
        source=Source.STORE,
    )


def fill(path: Path, keys: int) -> None:
    def work(tx: Transaction) -> None:
        for number in range(100):
            tenant = TenantId(f"tenant-{number}")
            spaces = (Namespace("prod"),)
            tx.put_tenant(
                TenantRecord(id=tenant, namespaces=spaces, created_at=1.0, source=Source.STORE)
            )
        for number in range(keys):
            tx.put_key(record(number))

    store = create_store("sqlite", path=path)
    store.transact(work)
    store.close()


def resident_mb() -> float:
    status = Path("/proc/self/status").read_text("utf-8")
    line = next(one for one in status.splitlines() if one.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def main(path: Path, keys: int) -> None:
    if not path.exists():
        fill(path, keys)
        return
    store = open_store("sqlite", path=path)
    gc.collect()
    before_mb, began_s = resident_mb(), time.process_time()
    in_force = KeysInForce(Configured(), time.time, store.read())
    loaded_s = time.process_time() - began_s
    memory_mb = resident_mb() - before_mb
    took_s = []
    for number in range(CHANGES):
        changed = replace(record(number), name="another", rev=2 + number)
        began_s = time.process_time()
        in_force.take(StoreChanges(rev=2 + number, keys=(changed,)))
        took_s.append(time.process_time() - began_s)
    began_s = time.process_time()
    in_force.keyring.identifier.next_end_s()
    looked_s = time.process_time() - began_s
    store.close()
    took_s.sort()
    found = {
        "keys": len(in_force.keyring.keys),
        "load_s": loaded_s,
        "memory_mb": memory_mb,
        "memory_after_changes_mb": resident_mb() - before_mb,
        "change_p50_ms": took_s[CHANGES // 2] * 1000,
        "change_worst_ms": took_s[-1] * 1000,
        "look_ms": looked_s * 1000,
    }
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
