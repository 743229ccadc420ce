"""A process follows a store that others write to, that falls silent, and that comes back."""

from __future__ import annotations

import logging
import threading
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import anyio
import pytest

from open_mcp_gateway.access.keyring import Keyring
from open_mcp_gateway.auth.records import KeyRecord, TenantRecord
from open_mcp_gateway.clock import SystemClock
from open_mcp_gateway.errors import StoreUnavailable
from open_mcp_gateway.keystore.store import KeyStore, StoreChanges, Transaction
from open_mcp_gateway.names import KeyId
from open_mcp_gateway.operations import follow
from open_mcp_gateway.operations.changes import Changer
from open_mcp_gateway.operations.follow import Follower
from open_mcp_gateway.operations.inforce import Configured, KeysInForce
from tests.contract.places import NOW_S, a_key, a_tenant, put
from tests.unit.operations.desk import new_store

pytestmark = pytest.mark.anyio
Result = TypeVar("Result")
PATIENCE_S = 20.0


class Wavering:
    """A real store that can be told to be away, to hang, or to be an earlier state of itself."""

    warnings: tuple[str, ...] = ()

    def __init__(self, inner: KeyStore) -> None:
        self.inner = inner
        self.away = False
        self.reads_fail = 0
        self.reads = 0
        self.go_on = threading.Event()
        self.go_on.set()

    def _here(self) -> None:
        self.go_on.wait(PATIENCE_S)
        if self.away:
            error = StoreUnavailable("The key store does not answer.", retry_after_s=1)
            error.add_note("it is away")
            raise error

    def read(self, after_rev: int = -1, tag: str | None = None) -> StoreChanges:
        self._here()
        self.reads += 1
        if self.reads_fail:
            self.reads_fail -= 1
            raise StoreUnavailable("A record of the key store cannot be read.")
        return self.inner.read(after_rev, tag)

    def transact(
        self,
        work: Callable[[Transaction], Result],
        known_rev: int = -1,
        known_tag: str | None = None,
    ) -> tuple[Result, StoreChanges]:
        return self.inner.transact(work, known_rev, known_tag)

    def wait_for_change(self, timeout_s: float) -> bool:
        self._here()
        return self.inner.wait_for_change(min(timeout_s, 0.05))

    def note_use(self, used: Mapping[KeyId, float]) -> None:
        self._here()
        self.inner.note_use(used)

    def used_since(self, after_s: float) -> Mapping[KeyId, float]:
        self._here()
        return self.inner.used_since(after_s)

    def close(self) -> None:
        self.inner.close()


class Watched:
    """A follower at work, and what it said."""

    def __init__(self, store: Wavering, *, limited: Configured | None = None) -> None:
        self.store = store
        self.keys = KeysInForce(limited or Configured(), lambda: NOW_S, store.read())
        self.turned: list[Keyring] = []
        self.lost: list[bool] = []
        self.opened: set[KeyId] = set()
        self.changer = Changer(store, self.keys, self.turned.append)
        self.follower = Follower(
            store,
            self.changer,
            SystemClock(),
            lost=self.lost.append,
            used=self._taken,
        )

    def _taken(self) -> Collection[KeyId]:
        taken, self.opened = self.opened, set()
        return taken

    def known(self, name: str) -> KeyRecord | None:
        return self.keys.keyring.keys.get(a_key(name).id)


@asynccontextmanager
async def following(store: Wavering) -> AsyncIterator[Watched]:
    watched = Watched(store)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watched.follower.run)
        yield watched
        store.go_on.set()
        tasks.cancel_scope.cancel()


async def until(true: Callable[[], Any]) -> None:
    """Wait for what other threads bring about."""
    with anyio.fail_after(PATIENCE_S):
        while not true():  # noqa: ASYNC110 - threads set no event of ours
            await anyio.sleep(0.005)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> Wavering:
    for name in ("PACE_S", "USES_S"):
        monkeypatch.setattr(follow, name, 0.02)
    monkeypatch.setattr(follow, "STALE_AFTER_S", 60.0)  # no pause of the machine is as long
    return Wavering(new_store())


@pytest.fixture
def stale(store: Wavering, monkeypatch: pytest.MonkeyPatch) -> None:
    """A silence that can be waited for."""
    del store
    monkeypatch.setattr(follow, "STALE_AFTER_S", 1.0)


@pytest.fixture
def others(store: Wavering) -> Callable[..., None]:
    """What another process does to the store."""

    def write(*records: KeyRecord | TenantRecord) -> None:
        store.transact(put(*records))

    return write


async def test_what_others_write_comes_into_force(
    store: Wavering, others: Callable[..., None]
) -> None:
    async with following(store) as watched:
        others(a_tenant("acme"), a_key("k"))
        await until(lambda: watched.known("k"))
        assert watched.keys.rev == 1
        assert watched.turned == [watched.keys.keyring]
        others(a_key("k", revoked_at=NOW_S))
        await until(lambda: watched.keys.rev == 2)
        assert watched.turned[-1].keys[a_key("k").id].revoked_at == NOW_S
    assert watched.lost == []


async def test_what_this_process_wrote_is_not_put_in_force_again(store: Wavering) -> None:
    async with following(store) as watched:
        _, changes = store.transact(put(a_key("k")))
        watched.keys.take(changes)
        await until(lambda: watched.keys.rev == 1)
        assert watched.turned == []


async def test_uses_are_no_news(store: Wavering, others: Callable[..., None]) -> None:
    others(a_key("k"))
    async with following(store) as watched:
        reads = store.reads
        store.inner.note_use({a_key("k").id: NOW_S})
        await until(lambda: store.reads > reads)
        assert watched.turned == []


async def test_a_store_that_went_back_in_time_is_read_anew_and_said(
    store: Wavering, others: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    others(a_key("k"))
    others(a_key("k", revoked_at=NOW_S))
    async with following(store) as watched:
        earlier = new_store()
        earlier.transact(put(a_key("k")))
        store.inner = earlier
        earlier.note_use({})
        store.away = True
        await until(lambda: watched.follower._silent)
        store.away = False
        await until(lambda: watched.keys.rev == 1)
        found = watched.known("k")
        assert found is not None
        assert found.revoked_at is None
        assert watched.turned == [watched.keys.keyring]
    assert "went back in time" in caplog.text


@pytest.mark.parametrize("more", [0, 1, 5])
async def test_another_history_is_noticed_at_any_revision(
    store: Wavering, others: Callable[..., None], caplog: pytest.LogCaptureFixture, more: int
) -> None:
    """A backup that went on by itself, to the known revision and beyond."""
    others(a_key("k"))
    others(a_key("k", revoked_at=NOW_S))
    async with following(store) as watched:
        earlier = new_store()
        earlier.transact(put(a_key("k")))
        for number in range(more + 1):
            earlier.transact(put(a_key(f"other-{number}")))
        store.inner = earlier
        earlier.note_use({a_key("k").id: NOW_S})
        await until(lambda: watched.known("other-0"))
        found = watched.known("k")
        assert found is not None
        assert found.revoked_at is None
        assert watched.keys.rev == 2 + more
    assert "went back in time" in caplog.text


@pytest.mark.usefixtures("stale")
async def test_a_silence_is_said_once_and_so_is_its_end(
    store: Wavering, others: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    async with following(store) as watched:
        store.away = True
        await until(lambda: watched.lost)
        others(a_key("k"))
        store.away = False
        await until(lambda: watched.lost == [True, False])
        # What was written meanwhile is in force before the keys of the store open again.
        assert watched.known("k")
    said = [one.message for one in caplog.records if one.name == follow.__name__]
    assert said == [
        "the key store does not answer",
        "keys of the store open nothing until the store answers again",
        "the key store answers again",
    ]
    assert caplog.records[0].__dict__["reason"] == "The key store does not answer.; it is away"


async def test_a_short_silence_loses_nothing(store: Wavering, others: Callable[..., None]) -> None:
    async with following(store) as watched:
        store.away = True
        await until(lambda: watched.follower._silent)
        store.away = False
        others(a_key("k"))
        await until(lambda: not watched.follower._silent)
        assert watched.known("k")
    assert watched.lost == []


async def test_news_that_could_not_be_read_are_read_later(
    store: Wavering, others: Callable[..., None]
) -> None:
    async with following(store) as watched:
        store.reads_fail = 2
        others(a_key("k"))
        await until(lambda: watched.known("k"))
        assert store.reads_fail == 0


@pytest.mark.usefixtures("stale")
async def test_a_defect_ends_nothing_and_hides_nothing(
    store: Wavering,
    others: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What no version of ours foresaw: news that cannot be put in force. The keys of the store open
    nothing then, and are in force as soon as that is over."""
    broken = True
    made = Keyring.changed

    def change(*given: Any, **named: Any) -> Keyring:
        if broken:
            raise RuntimeError("a defect")
        return made(*given, **named)

    monkeypatch.setattr(Keyring, "changed", change)
    async with following(store) as watched:
        others(a_key("k"))
        await until(lambda: watched.lost == [True])
        broken = False
        await until(lambda: watched.lost == [True, False])
        assert watched.known("k")
    said = [one.message for one in caplog.records if one.name == follow.__name__]
    assert said.count("changes of the key store cannot be put in force") == 1


@pytest.mark.usefixtures("stale")
async def test_a_store_that_hangs_is_lost_too(store: Wavering) -> None:
    async with following(store) as watched:
        store.go_on.clear()
        await until(lambda: watched.lost == [True])
        store.go_on.set()
        await until(lambda: watched.lost == [True, False])


@pytest.mark.usefixtures("stale")
async def test_it_can_be_stopped_while_the_store_hangs(store: Wavering) -> None:
    with anyio.fail_after(PATIENCE_S / 2):
        watched = Watched(store)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watched.follower.run)
            store.go_on.clear()
            await until(lambda: watched.lost)
            tasks.cancel_scope.cancel()
    store.go_on.set()


async def test_uses_are_kept_once_and_seen_by_others(
    store: Wavering, others: Callable[..., None]
) -> None:
    others(a_key("k"), a_key("l"))
    other = Wavering(store.inner)
    used = a_key("k").id
    async with following(store) as here, following(other) as there:
        here.opened = {used, KeyId("config:api_key")}
        await until(lambda: there.keys.last_used_s(a_key("k")))
        assert there.keys.last_used_s(a_key("l")) is None
        kept = store.inner.read().keys
        assert {one.id: one.last_used_at is not None for one in kept} == {
            used: True,
            a_key("l").id: False,
        }
        first = here.keys.last_used_s(a_key("k"))
        await until(lambda: not here.follower._unkept)
        here.opened = {used}
        await until(lambda: there.keys.last_used_s(a_key("k")) != first)
        assert store.inner.read().rev == 1


async def test_uses_that_could_not_be_kept_are_kept_later(
    store: Wavering, others: Callable[..., None]
) -> None:
    others(a_key("k"))
    async with following(store) as watched:
        store.away = True
        watched.opened = {a_key("k").id}
        await until(lambda: watched.follower._unkept)
        assert watched.keys.last_used_s(a_key("k")) is None
        store.away = False
        await until(lambda: watched.keys.last_used_s(a_key("k")))
        assert watched.follower._unkept == {}
