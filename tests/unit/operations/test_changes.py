"""What was written is in force when its writer hears of it, whatever became of the store."""

from __future__ import annotations

import shutil
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import TypeVar, cast

import anyio
import pytest
from anyio import to_thread
from msgspec.structs import replace

from open_mcp_gateway.auth.records import KeyRecord
from open_mcp_gateway.keystore import history
from open_mcp_gateway.keystore.open import create_store, open_store
from open_mcp_gateway.keystore.store import KeyStore, StoreChanges, Transaction
from open_mcp_gateway.names import KeyId
from open_mcp_gateway.operations.changes import Changer
from tests.contract.places import put
from tests.unit.operations.desk import OPEN, Desk, tell

Result = TypeVar("Result")


class Backup:
    """A store in a file of its own, of which a copy is taken and put back as an operator does it:
    under the name of the other, while that is in use."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "keys.db"
        self.copy = folder / "copy.db"
        self.store = create_store("sqlite", path=self.path)
        OPEN.callback(self.store.close)

    def take(self) -> None:
        with closing(sqlite3.connect(self.path)) as connection:
            connection.execute("VACUUM INTO ?", [str(self.copy)])

    def put_back(self) -> None:
        shutil.copy(self.copy, self.path.with_suffix(".new"))
        for end in ("-wal", "-shm"):
            self.path.with_name(self.path.name + end).unlink(missing_ok=True)
        self.path.with_suffix(".new").replace(self.path)


def at(desk: Desk, store: object) -> None:
    """Let what happens at the desk go to another store."""
    changer = Changer(cast(KeyStore, store), desk.in_force, desk._turn)
    desk.store = cast(KeyStore, store)
    desk.keys.changer = desk.tenants.changer = changer


def is_live(desk: Desk, key_id: KeyId) -> bool:
    return desk.ring.identifier.opens(key_id)


def test_a_change_right_after_a_restore_is_in_force_when_it_is_answered(tmp_path: Path) -> None:
    """The restored store counts its revisions on from where the backup was made, so that what is
    written to it has a lower one than what is in force."""

    async def story(desk: Desk) -> None:
        backup = Backup(tmp_path)
        at(desk, backup.store)
        leaked = (await desk.make()).record
        backup.take()
        for number in range(5):
            await desk.patch(leaked.id, metadata={"n": str(number)})
        backup.put_back()
        disabled = await desk.patch(leaked.id, disabled=True)
        assert disabled.rev < 5
        assert desk.ring.keys[leaked.id] == disabled
        assert not is_live(desk, leaked.id)

    tell(story)


def test_a_change_has_the_revision_that_another_had_before_the_restore(tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        backup = Backup(tmp_path)
        at(desk, backup.store)
        leaked = (await desk.make()).record
        backup.take()
        before = await desk.patch(leaked.id, metadata={"n": "1"})
        backup.put_back()
        disabled = await desk.patch(leaked.id, disabled=True)
        assert disabled.rev == before.rev
        assert not is_live(desk, leaked.id)

    tell(story)


class Gated:
    """A real store that has read, and holds back what it has to say."""

    def __init__(self, inner: KeyStore) -> None:
        self.inner = inner
        self.has_read = threading.Event()
        self.go_on = threading.Event()

    def read(self, after_rev: int = -1, tag: str | None = None) -> StoreChanges:
        found = self.inner.read(after_rev, tag)
        self.has_read.set()
        assert self.go_on.wait(20)
        return found

    def transact(
        self, work: Callable[[Transaction], Result], known_rev: int, known_tag: str
    ) -> tuple[Result, StoreChanges]:
        return self.inner.transact(work, known_rev, known_tag)


def test_no_older_state_of_the_whole_store_replaces_a_change(tmp_path: Path) -> None:
    """Whoever reads all of a restored store is overtaken by a change while it does."""

    async def story(desk: Desk) -> None:
        backup = Backup(tmp_path)
        at(desk, backup.store)
        leaked = (await desk.make()).record
        backup.take()
        await desk.patch(leaked.id, metadata={"n": "1"})
        backup.put_back()
        assert backup.store.wait_for_change(0)
        gated = Gated(backup.store)
        at(desk, gated)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(desk.keys.changer.catch_up)
            assert await to_thread.run_sync(gated.has_read.wait, 20)
            await desk.revoke(leaked.id)
            gated.go_on.set()
        assert not is_live(desk, leaked.id)
        assert desk.in_force.rev == 2

    tell(story)


def test_news_after_a_restore_is_read_whole_once(tmp_path: Path) -> None:
    """Own changes to a restored store do not hide from the next look that it was restored."""

    async def story(desk: Desk) -> None:
        backup = Backup(tmp_path)
        at(desk, backup.store)
        kept = (await desk.make(name="kept")).record
        backup.take()
        lost = (await desk.make(name="lost")).record
        backup.put_back()
        await desk.patch(kept.id, metadata={"n": "1"})
        assert is_live(desk, lost.id)
        await desk.keys.changer.catch_up()
        assert set(desk.ring.keys) == {"config:api_key", kept.id}
        assert (desk.in_force.rev, desk.ring.keys[kept.id].metadata) == (2, {"n": "1"})

    tell(story)


def test_news_do_not_wait_for_a_change_that_takes_long(tmp_path: Path) -> None:
    """What another process revoked holds here meanwhile, and the store is heard of."""

    async def story(desk: Desk) -> None:
        backup = Backup(tmp_path)
        at(desk, backup.store)
        changer = desk.keys.changer
        leaked = (await desk.make()).record
        await changer.catch_up()
        begun, go_on = threading.Event(), threading.Event()

        def slow(_change: Transaction) -> None:
            begun.set()
            assert go_on.wait(60)

        other = open_store("sqlite", path=backup.path)
        OPEN.callback(other.close)
        other.transact(put(replace(leaked, revoked_at=1.0)))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(changer.change, slow)
            try:
                assert await to_thread.run_sync(begun.wait, 60)
                with anyio.fail_after(20):
                    await changer.catch_up()
                assert not is_live(desk, leaked.id)
            finally:
                go_on.set()

    tell(story)


def test_news_that_a_change_overtook_are_read_again(tmp_path: Path) -> None:
    async def story(desk: Desk) -> None:
        backup = Backup(tmp_path)
        at(desk, backup.store)
        changer = desk.keys.changer
        kept = (await desk.make()).record
        gated = Gated(backup.store)
        at(desk, gated)
        async with anyio.create_task_group() as tasks:
            await changer.catch_up()
            await desk.patch(kept.id, metadata={"n": "1"})
            tasks.start_soon(desk.keys.changer.catch_up)
            assert await to_thread.run_sync(gated.has_read.wait, 20)
            disabled = await desk.patch(kept.id, disabled=True)
            gated.go_on.set()
        assert desk.ring.keys[kept.id] == disabled
        assert desk.in_force.rev == disabled.rev

    tell(story)


def test_a_restore_is_said_even_before_news_of_own_changes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The revision that was followed last is in the backup too; what was revoked since is not."""

    async def story(desk: Desk) -> None:
        backup = Backup(tmp_path)
        at(desk, backup.store)
        leaked = (await desk.make(name="leaked")).record
        other = (await desk.make(name="other")).record
        await desk.keys.changer.catch_up()
        caplog.clear()
        backup.take()
        await desk.revoke(leaked.id)
        backup.put_back()
        await desk.patch(other.id, metadata={"n": "1"})
        await desk.keys.changer.catch_up()
        assert is_live(desk, leaked.id)
        assert "went back in time" in caplog.text
        caplog.clear()
        await desk.keys.changer.catch_up()
        assert caplog.text == ""

    tell(story)


def test_who_was_far_behind_catches_up_without_a_word(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "KEPT", 3)

    async def story(desk: Desk) -> None:
        backup = Backup(tmp_path)
        at(desk, backup.store)
        changed = (await desk.make(name="changed")).record
        await desk.make(name="stays")
        await desk.keys.changer.catch_up()
        caplog.clear()
        other = open_store("sqlite", path=backup.path)
        OPEN.callback(other.close)
        for moment in range(1, 6):
            other.transact(put(replace(changed, revoked_at=float(moment))))
        await desk.keys.changer.catch_up()
        assert not is_live(desk, changed.id)
        assert desk.in_force.rev == 7
        assert caplog.text == ""

    tell(story)


@pytest.mark.parametrize("lost", ["key", "revocation", "both"])
def test_a_restore_is_noticed_however_far_the_store_went_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    monkeypatch.setattr(history, "KEPT", 3)

    async def story(desk: Desk) -> None:
        backup = Backup(tmp_path)
        at(desk, backup.store)
        leaked = (await desk.make(name="leaked")).record
        other = (await desk.make(name="other")).record
        backup.take()
        if lost == "key":
            await desk.make(name="lost")
        else:
            await desk.revoke(leaked.id)
        await desk.keys.changer.catch_up()
        caplog.clear()
        backup.put_back()
        again = open_store("sqlite", path=backup.path)
        OPEN.callback(again.close)
        if lost == "both":
            # What was revoked is newer here, too; but another key had a change of that time.
            other = put_key(again, replace(other, hint="x"))
            put_key(again, leaked)
        new = replace(other, id=KeyId("key_new"), name="new", digests=(b"n" * 32,))
        for number in range(5):
            put_key(again, replace(new, hint=f"{number}"))
        assert backup.store.wait_for_change(0)
        await desk.keys.changer.catch_up()
        assert "went back in time" in caplog.text
        assert KeyId("key_new") in desk.ring.keys

    tell(story)


def put_key(store: KeyStore, record: KeyRecord) -> KeyRecord:
    _, written = store.transact(put(record))
    return written.keys[0]
