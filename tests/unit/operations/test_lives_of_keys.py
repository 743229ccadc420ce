"""Keys are made, changed, revoked and expire in two processes on one store, in any order, while
news are late, the store is lost, files are read again and time passes: what opens is always what
each of the two has heard of."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, TypeVar

import hypothesis
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from open_mcp_gateway.access.authorize import require
from open_mcp_gateway.access.keyring import Keyring
from open_mcp_gateway.access.permit import Clearance
from open_mcp_gateway.access.policy import platform_admin
from open_mcp_gateway.auth.apikeys import digest_of
from open_mcp_gateway.auth.principal import PLATFORM, Permission, Platform
from open_mcp_gateway.auth.records import KeyRecord, Source, TenantRecord
from open_mcp_gateway.errors import GatewayError, StoreUnavailable, WrongKey
from open_mcp_gateway.keystore.open import create_store, open_store
from open_mcp_gateway.keystore.store import KeyStore, StoreChanges
from open_mcp_gateway.names import KeyId, Namespace, RequestId, TenantId
from open_mcp_gateway.operations.admins import is_admin
from open_mcp_gateway.operations.changes import Changer
from open_mcp_gateway.operations.inforce import Configured, KeysInForce
from open_mcp_gateway.operations.keys import KeyAdmin
from open_mcp_gateway.operations.requests import KeyCreate, KeyPatch, TenantPatch, read_body
from open_mcp_gateway.operations.tenants import TenantAdmin
from tests.contract.places import put
from tests.unit.operations.desk import HandClock, _json

Result = TypeVar("Result")

FULL = 2000
CLIENT = "127.0.0.1:1"
REQUEST = RequestId("r")
TENANT = TenantId("acme")
ROOT = platform_admin(digest_of(b"root"))
FIRST = KeyRecord(
    id=KeyId("key_first"),
    holder=PLATFORM,
    name="first",
    role="admin",
    digests=(digest_of(b"first"),),
    created_at=1.0,
    source=Source.STORE,
)
HIDING = TenantRecord(id=TENANT, namespaces=(Namespace("prod"),))
FILES = {
    "root": Configured(keys=(ROOT,)),
    "none": Configured(),
    "tenant": Configured(keys=(ROOT,), tenants=(HIDING,)),
    "roles": Configured(keys=(ROOT,), roles={"admin": frozenset(Permission)}),
}

nodes = st.sampled_from([0, 1])
some = st.integers(min_value=0, max_value=1_000)


class Node:
    """One process: what it has in force, and what it has heard of, told by what a test did."""

    def __init__(self, store: KeyStore, clock: HandClock, files: Configured, numbers: Any) -> None:
        self.store, self.clock, self.files = store, clock, files
        self.keys = KeysInForce(files, clock.wall, store.read())
        self.lost = False
        self.heard = store.read().rev
        self.own: set[int] = set()
        self.revoked_here: set[KeyId] = set()
        self.changer = Changer(store, self.keys, self._turn)
        self.admin = KeyAdmin(self.changer, clock, lambda bits: next(numbers) << (bits - 32))
        self.tenants = TenantAdmin(self.changer, clock)

    def _turn(self, ring: Keyring) -> None:
        self.own |= {one.rev for one in ring.keys.values()}
        self.own |= {one.rev for one in ring.tenants.values()}

    def clearance(self, permission: Permission) -> Clearance:
        ring = self.keys.keyring
        record = ring.keys.get(ROOT.id) or ring.keys[FIRST.id]
        return require(ring.principal(record), permission)

    def knows(self, rev: int) -> bool:
        return rev <= self.heard or rev in self.own

    def outcome(self, secret: str) -> str:
        identifier = self.keys.keyring.identifier
        try:
            found = (identifier.store_lost() if self.lost else identifier).identify(
                secret.encode(), CLIENT
            )
        except StoreUnavailable:
            return "unavailable"
        except WrongKey as error:
            return error.reason or "unknown"
        return found.principal.key_id


class Lives(RuleBasedStateMachine):
    """Two processes, and the history of the store as they wrote it."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.folder = tempfile.TemporaryDirectory()
        path = Path(self.folder.name) / "keys.db"
        self.clock = HandClock()
        first = create_store("sqlite", path=path)
        self.stores = [first, open_store("sqlite", path=path)]
        numbers = itertools.count(1)
        tenant = TenantRecord(id=TENANT, namespaces=(), created_at=1.0, source=Source.STORE)
        first.transact(put(FIRST, tenant))
        self.nodes = [
            Node(store, self.clock, FILES[files], numbers)
            for store, files in zip(self.stores, ("root", "none"), strict=True)
        ]
        self.history: list[StoreChanges] = [first.read()]
        self.secrets: dict[KeyId, str] = {FIRST.id: "first"}

    def teardown(self) -> None:
        for store in self.stores:
            store.close()
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
        self.folder.cleanup()

    # What happens

    def changed(self, node: Node, work: Callable[[], Coroutine[Any, Any, Result]]) -> Result | None:
        """Carries out a change, or has it refused; a refusal changes nothing."""
        before = self.history[-1].rev
        had_admin = self.has_admin()
        try:
            done = self.loop.run_until_complete(work())
        except GatewayError:
            assert self.stores[0].read().rev == before
            return None
        changes = self.stores[0].read(before)
        assert changes.rev - before in {0, 1}
        if changes.rev != before:
            self.history.append(changes)
            assert node.own >= {changes.rev}
        if ROOT.id not in node.keys.keyring.keys:
            assert self.has_admin() or not had_admin
        return done

    def has_admin(self) -> bool:
        return any(is_admin(one, self.clock.wall()) for one in self.stores[0].read().keys)

    def key_id(self, number: int) -> KeyId:
        return list(self.secrets)[number % len(self.secrets)]

    @initialize()
    def begin(self) -> None:
        assert self.history[0].rev == 1

    @rule(
        node=nodes,
        tenant=st.sampled_from([None, TENANT]),
        role=st.sampled_from(["admin", "caller"]),
        ends=st.sampled_from([None, "10s", "60s"]),
    )
    def create(self, node: int, tenant: str | None, role: str, ends: str | None) -> None:
        at = self.nodes[node]
        body = {"name": f"k{len(self.secrets)}", "tenant": tenant, "role": role, "expires_in": ends}
        given = {name: value for name, value in body.items() if value is not None}

        async def work() -> Any:
            request = read_body(_json(given), KeyCreate)
            permit = at.clearance(Permission.KEYS_WRITE)
            return await at.admin.create(permit, request, request_id=REQUEST)

        made = self.changed(at, work)
        if made is not None:
            assert made.record.id not in self.secrets
            self.secrets[made.record.id] = made.secret

    @rule(
        node=nodes,
        number=some,
        patch=st.sampled_from(
            [
                {"disabled": True},
                {"disabled": False},
                {"role": "admin"},
                {"role": "caller"},
                {"ends": 20},
                {"expires_at": None},
            ]
        ),
    )
    def patch(self, node: int, number: int, patch: dict[str, Any]) -> None:
        at, key_id = self.nodes[node], self.key_id(number)
        if "ends" in patch:
            moment = self.clock.now().timestamp() + patch["ends"]
            patch = {"expires_at": self.clock.now().fromtimestamp(moment).astimezone().isoformat()}

        async def work() -> Any:
            permit = at.clearance(Permission.KEYS_WRITE)
            form = read_body(_json(patch), KeyPatch)
            return await at.admin.patch(permit, key_id, form, request_id=REQUEST)

        self.changed(at, work)

    @rule(node=nodes, number=some, cascade=st.booleans())
    def revoke(self, node: int, number: int, cascade: bool) -> None:
        at, key_id = self.nodes[node], self.key_id(number)

        async def work() -> Any:
            permit = at.clearance(Permission.KEYS_WRITE)
            return await at.admin.revoke(permit, key_id, request_id=REQUEST, cascade=cascade)

        if self.changed(at, work) is not None:
            # In the process that was asked to, at once, whoever was first.
            assert at.outcome(self.secrets[key_id]) != key_id

    @rule(node=nodes, off=st.booleans())
    def switch_tenant(self, node: int, off: bool) -> None:
        at = self.nodes[node]

        async def work() -> Any:
            permit = at.clearance(Permission.TENANTS_WRITE)
            form = read_body(_json({"disabled": off}), TenantPatch)
            return await at.tenants.patch(permit, TENANT, form, request_id=REQUEST)

        self.changed(at, work)

    @rule(node=nodes)
    def hear(self, node: int) -> None:
        at = self.nodes[node]
        before = at.keys.rev
        self.loop.run_until_complete(at.changer.catch_up())
        assert at.keys.rev >= before
        at.heard = self.history[-1].rev

    @rule(node=nodes, lost=st.booleans())
    def lose(self, node: int, lost: bool) -> None:
        self.nodes[node].lost = lost

    @rule(node=nodes, files=st.sampled_from(sorted(FILES)))
    def reload(self, node: int, files: str) -> None:
        at = self.nodes[node]
        configured = FILES[files]
        at.keys.adopt(configured, at.keys.reconfigured(configured))
        at.files = configured

    @rule(seconds=st.sampled_from([1.0, 15.0, 50.0]))
    def wait(self, seconds: float) -> None:
        self.clock.time_s += seconds

    # What is always so

    @invariant()
    def what_opens_is_what_was_heard_of(self) -> None:
        for node in self.nodes:
            known = [one for one in self.history if node.knows(one.rev)]
            keys = {key.id: key for one in known for key in one.keys}
            tenants = {tenant.id: tenant for one in known for tenant in one.tenants}
            tenants |= {one.id: one for one in node.files.tenants}
            for key_id, secret in self.secrets.items():
                expected = self.expected(node, keys.get(key_id), tenants.get(TENANT))
                assert node.outcome(secret) == expected
            in_files = {one.id for one in node.files.keys}
            assert node.outcome("root") == (ROOT.id if ROOT.id in in_files else "unknown")

    def expected(self, node: Node, key: KeyRecord | None, tenant: TenantRecord | None) -> str:
        now_s = self.clock.wall()
        if key is None:
            return "unknown"
        if node.lost:
            return "unavailable"
        if key.revoked_at is not None:
            return "revoked"
        if key.disabled_at is not None:
            return "disabled"
        if not isinstance(key.holder, Platform) and (tenant is None or tenant.disabled_at):
            return "tenant_disabled"
        if key.expires_at is not None and key.expires_at <= now_s:
            return "expired"
        return key.id

    @invariant()
    def what_is_revoked_stays_so(self) -> None:
        for node in self.nodes:
            keys = node.keys.keyring.keys.values()
            revoked = {one.id for one in keys if one.revoked_at is not None}
            assert revoked >= node.revoked_here
            node.revoked_here = revoked

    @invariant()
    def one_secret_opens_for_one_key(self) -> None:
        stored = self.stores[0].read().keys
        digests = [digest for one in stored for digest in one.digests]
        assert len(digests) == len({*digests})
        for node in self.nodes:
            for key_id, secret in self.secrets.items():
                found = node.keys.keyring.identifier.find(secret.encode())
                assert found is None or found.principal.key_id == key_id

    @invariant()
    def revisions_only_grow(self) -> None:
        revs = [one.rev for one in self.history]
        assert revs == list(range(1, len(revs) + 1))
        assert self.stores[1].read().rev == revs[-1]


def lives(runs: int, steps: int) -> None:
    # Each run makes two stores, so that a search for the shortest failure would take minutes.
    settings = hypothesis.settings(
        deadline=None,
        max_examples=runs,
        stateful_step_count=steps,
        phases=[hypothesis.Phase.generate],
        database=None,
        derandomize=runs < FULL,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    run_state_machine_as_test(Lives, settings=settings)


def test_lives_of_keys() -> None:
    lives(25, 25)


@pytest.mark.long("2,000 lives of 50 steps")
@pytest.mark.timeout(3600)
def test_two_thousand_lives_of_keys() -> None:
    lives(FULL, 50)
