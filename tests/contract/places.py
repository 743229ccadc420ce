"""Places for key stores of either kind, and records to put there."""

from __future__ import annotations

import hashlib
import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import psycopg
from msgspec import Struct

from open_mcp_gateway.auth.principal import PLATFORM
from open_mcp_gateway.auth.records import KeyRecord, Source, TenantRecord
from open_mcp_gateway.keystore import migrate, sql
from open_mcp_gateway.keystore.open import create_store, open_store
from open_mcp_gateway.keystore.store import KeyStore, Remembered, Transaction
from open_mcp_gateway.names import KeyId, Namespace, TenantId

NOW_S = 1_800_000_000.125


class Place(Struct, frozen=True):
    """Where a store is or can be made."""

    kind: Literal["sqlite", "postgres"]
    where: str

    def create(self) -> KeyStore:
        if self.kind == "sqlite":
            return create_store("sqlite", path=Path(self.where))
        return create_store("postgres", url=self.where)

    def open(self) -> KeyStore:
        if self.kind == "sqlite":
            return open_store("sqlite", path=Path(self.where))
        return open_store("postgres", url=self.where)

    def ask(self, statement: str) -> list[Any]:
        """What the tables say behind the store's back."""
        if self.kind == "sqlite":
            with closing(sqlite3.connect(self.where)) as connection:
                return connection.execute(statement).fetchall()
        with psycopg.connect(self.where) as link:
            return link.execute(statement.encode()).fetchall()

    def alter(self, statement: str) -> None:
        """Change the tables behind the store's back."""
        if self.kind == "sqlite":
            connection = sqlite3.connect(self.where)
            with connection:
                connection.execute(statement)
            connection.close()
        else:
            with psycopg.connect(self.where) as link:
                link.execute(statement.encode())


def digest_of(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def a_key(name: str, /, **members: Any) -> KeyRecord:
    """A live key of the platform; its id and digest follow from the name."""
    given: dict[str, Any] = {
        "id": KeyId(f"key_{name}"),
        "holder": PLATFORM,
        "name": name,
        "role": "caller",
        "digests": (digest_of(name),),
        "created_at": NOW_S,
        "source": Source.STORE,
    }
    return KeyRecord(**{**given, **members})


def a_tenant(name: str, /, **members: Any) -> TenantRecord:
    given: dict[str, Any] = {
        "id": TenantId(name),
        "namespaces": (Namespace("production"),),
        "created_at": NOW_S,
        "source": Source.STORE,
    }
    return TenantRecord(**{**given, **members})


def put(*records: KeyRecord | TenantRecord) -> Callable[[Transaction], None]:
    """The change that writes them all."""

    def work(change: Transaction) -> None:
        for record in records:
            if isinstance(record, KeyRecord):
                change.put_key(record)
            else:
                change.put_tenant(record)

    return work


def three_at_once(name: str) -> Callable[[Transaction], None]:
    """The change that the crash tests break off."""

    def work(change: Transaction) -> None:
        put(a_tenant(name), a_key(f"{name}-1"), a_key(f"{name}-2"))(change)
        outcome = Remembered(request_sha256=digest_of(name), key_id=KeyId(f"key_{name}-1"))
        change.remember("actor", name, outcome, NOW_S)

    return work


NEXT_SCHEMA = (
    "CREATE TABLE added (id TEXT PRIMARY KEY)",
    "INSERT INTO added SELECT id FROM api_keys",
    "ALTER TABLE api_keys ADD COLUMN added TEXT",
    "UPDATE api_keys SET added = id",
)
"""A step as a later version might take it."""


def with_next_schema() -> None:
    """Make this process one of a later version, whose stores have one schema more."""
    later = (*migrate.MIGRATIONS, NEXT_SCHEMA)
    defaults = migrate.migrate.__kwdefaults__
    assert defaults is not None
    defaults["migrations"] = later
    vars(sql)["MIGRATIONS"] = later


def die_at(step: int) -> None:
    """Kill this process with SIGKILL at the given beginning or end of a statement; 0: no more. What
    measures coverage executes statements too, when the process ends."""
    seen = 0

    def profile(frame: FrameType, event: str, arg: Any) -> None:
        nonlocal seen
        name = getattr(arg, "__name__", "") if event[0] == "c" and arg else frame.f_code.co_name
        if name == "execute":
            seen += 1
            if seen == step:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(profile if step else None)
