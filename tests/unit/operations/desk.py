"""Key management on a store of its own, with callers of every kind."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import msgspec
import pytest

from open_mcp_gateway.access.authorize import require
from open_mcp_gateway.access.keyring import Keyring
from open_mcp_gateway.access.permit import Clearance
from open_mcp_gateway.access.policy import API_KEY_ID, platform_admin
from open_mcp_gateway.auth.apikeys import digest_of
from open_mcp_gateway.auth.principal import Permission
from open_mcp_gateway.auth.records import KeyRecord, TenantRecord
from open_mcp_gateway.errors import GatewayError
from open_mcp_gateway.keystore.open import create_store
from open_mcp_gateway.keystore.store import KeyStore
from open_mcp_gateway.names import KeyId, Namespace, RequestId, TenantId
from open_mcp_gateway.operations.changes import Changer
from open_mcp_gateway.operations.inforce import Configured, KeysInForce
from open_mcp_gateway.operations.keys import Created, KeyAdmin
from open_mcp_gateway.operations.requests import KeyCreate, KeyPatch, read_body
from open_mcp_gateway.operations.tenants import TenantAdmin

ROOT = platform_admin(digest_of(b"root"))
A, B = TenantId("a"), TenantId("b")
REQUEST = RequestId("r-1")


OPEN = ExitStack()
"""The stores of the running test."""


def new_store() -> KeyStore:
    """An empty store in a folder of its own, until the test ends."""
    folder = OPEN.enter_context(tempfile.TemporaryDirectory())
    store = create_store("sqlite", path=Path(folder) / "keys.db")
    OPEN.callback(store.close)
    return store


class HandClock:
    """Moves when it is told to."""

    def __init__(self) -> None:
        self.time_s = 1_800_000_000.0

    def monotonic(self) -> float:
        return self.time_s

    def wall(self) -> float:
        return self.time_s

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.time_s, UTC)


class Desk:
    """Two configured tenants, and the configured keys that are given."""

    def __init__(self, *configured: KeyRecord, store: bool = True) -> None:
        self.clock = HandClock()
        self.store = new_store()
        tenants = tuple(TenantRecord(id=one, namespaces=(Namespace("one"),)) for one in (A, B))
        files = Configured(tenants=tenants, keys=configured)
        self.in_force = KeysInForce(files, self.clock.wall, self.store.read())
        self.turned: list[int] = []
        numbers = itertools.count(1)
        changer = Changer(self.store if store else None, self.in_force, self._turn)
        self.keys = KeyAdmin(changer, self.clock, lambda bits: next(numbers) << (bits - 32))
        self.tenants = TenantAdmin(changer, self.clock)

    @property
    def ring(self) -> Keyring:
        return self.in_force.keyring

    @ring.setter
    def ring(self, ring: Keyring) -> None:
        self.in_force.keyring = ring

    @property
    def stored(self) -> dict[KeyId, KeyRecord]:
        """The keys as the store has them."""
        return {one.id: one for one in self.store.read().keys}

    def _turn(self, ring: Keyring) -> None:
        revs = [one.rev for one in ring.keys.values()] + [one.rev for one in ring.tenants.values()]
        self.turned.append(max(revs))

    def by(
        self, key_id: str = API_KEY_ID, permission: Permission = Permission.KEYS_WRITE
    ) -> Clearance:
        """Proof for the key of that id."""
        return require(self.ring.principal(self.ring.keys[KeyId(key_id)]), permission)

    async def make(
        self, by: str = API_KEY_ID, idempotency_key: str | None = None, **members: Any
    ) -> Created:
        request = read_body(_json({"name": "k", **members}), KeyCreate)
        return await self.keys.create(
            self.by(by), request, request_id=REQUEST, idempotency_key=idempotency_key
        )

    async def patch(
        self, key_id: str, by: str = API_KEY_ID, seen: str | None = None, **members: Any
    ) -> KeyRecord:
        patch = read_body(_json(members), KeyPatch)
        return await self.keys.patch(self.by(by), key_id, patch, request_id=REQUEST, rev=seen)

    async def revoke(self, key_id: str, by: str = API_KEY_ID, **how: Any) -> KeyRecord:
        done = await self.keys.revoke(self.by(by), key_id, request_id=REQUEST, **how)
        return done.record


def _json(value: object) -> bytes:
    return msgspec.json.encode(value)


Story = Callable[[Desk], Awaitable[None]]


def tell(story: Story, *, store: bool = True) -> Desk:
    """What happens at a desk with the key of an administrator in the configuration."""
    desk = Desk(ROOT, store=store)
    anyio.run(story, desk)
    return desk


async def refused(kind: type[GatewayError], code: str, doing: Awaitable[object]) -> str:
    """The text of the error that ``doing`` must end with."""
    with pytest.raises(kind) as raised:
        await doing
    assert raised.value.code == code
    return raised.value.public
