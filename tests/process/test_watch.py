"""Real files, changed in every way that editors, tools and clusters change them."""
# ruff: noqa: ASYNC240  a test changes files where it stands, and nothing else runs meanwhile

from __future__ import annotations

import contextlib
import gc
import hashlib
import logging
import os
import resource
import shutil
from collections.abc import AsyncIterator, Callable, Iterable
from functools import partial
from pathlib import Path

import anyio
import pytest

from open_mcp_gateway.config.watch import _folders, _Notifier, watch
from open_mcp_gateway.errors import ReloadFailed
from tests.unprivileged import unprivileged

pytestmark = pytest.mark.anyio

DEBOUNCE_S = 0.15
NEVER_S = 3600.0
"""A polling interval that no test outlives: what is noticed then was notified."""


class Calls:
    """Counts the calls of ``changed`` and lets a test wait for one."""

    def __init__(self) -> None:
        self.count = 0
        self._happened = anyio.Event()
        self.then: Callable[[], None] = lambda: None

    async def changed(self) -> None:
        self.count += 1
        happened, self._happened = self._happened, anyio.Event()
        happened.set()
        self.then()

    async def next(self) -> None:
        with anyio.fail_after(60):
            await self._happened.wait()


@contextlib.asynccontextmanager
async def watching(
    paths: Callable[[], Iterable[Path]],
    poll_s: float = NEVER_S,
    last_read: Callable[[], dict[Path, bytes]] = dict,
) -> AsyncIterator[Calls]:
    """``watch`` at work, and ended soon after."""
    calls = Calls()
    async with anyio.create_task_group() as tasks:
        await tasks.start(
            partial(
                watch,
                paths,
                calls.changed,
                last_read=last_read,
                debounce_s=DEBOUNCE_S,
                poll_s=poll_s,
            )
        )
        yield calls
        tasks.cancel_scope.cancel()
        stopping = anyio.current_time()
    assert anyio.current_time() - stopping < 20


async def settle() -> None:
    """Longer than anything pending takes; only for showing that nothing happens."""
    await anyio.sleep(DEBOUNCE_S + 0.5)


async def test_what_was_read_meanwhile_is_what_a_file_is_compared_with(file: Path) -> None:
    """A file that somebody acted on is put back as it was before anybody looked."""
    before, now_read = file.read_bytes(), dict[Path, bytes]()
    calls = Calls()
    async with anyio.create_task_group() as tasks:
        follow = partial(
            watch, lambda: [file], calls.changed, last_read=lambda: now_read, debounce_s=DEBOUNCE_S
        )
        await tasks.start(follow)
        file.write_text("servers: [other]\n")
        now_read[file] = hashlib.sha256(file.read_bytes()).digest()
        file.write_bytes(before)
        await calls.next()
        tasks.cancel_scope.cancel()


async def test_what_changed_before_the_watch_began_is_told(file: Path) -> None:
    calls = Calls()
    async with anyio.create_task_group() as tasks:
        read = {file: hashlib.sha256(b"as it was read").digest()}
        tasks.start_soon(partial(watch, lambda: [file], calls.changed, last_read=lambda: read))
        await calls.next()
        tasks.cancel_scope.cancel()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "catalog.yaml"
    path.write_text("servers: []\n")
    return path


async def test_a_write_in_place_is_noticed(file: Path) -> None:
    async with watching(lambda: [file]) as calls:
        file.write_text("servers: [] # changed\n")
        await calls.next()
        await settle()
        assert calls.count == 1


async def test_the_same_bytes_again_are_no_change(file: Path) -> None:
    async with watching(lambda: [file]) as calls:
        file.write_text("servers: []\n")
        os.utime(file)
        file.chmod(0o600)
        await settle()
        assert calls.count == 0
        file.write_text("other")
        await calls.next()


async def test_another_file_in_the_folder_is_no_change(file: Path) -> None:
    async with watching(lambda: [file]) as calls:
        (file.parent / "unrelated").write_text("x")
        await settle()
        assert calls.count == 0
        file.write_text("other")
        await calls.next()


async def test_files_are_read_only_when_something_about_them_changed(file: Path) -> None:
    reads = 0

    def last_read() -> dict[Path, bytes]:
        nonlocal reads
        reads += 1
        return {}

    async with watching(lambda: [file], last_read=last_read) as calls:
        file.write_text("other")
        await calls.next()
        await settle()
        before = reads
        (file.parent / "unrelated").write_text("x")
        await settle()
        assert reads == before


async def test_what_happens_further_down_wakes_nobody(file: Path) -> None:
    asked = 0
    (file.parent / "sub").mkdir()

    def paths() -> list[Path]:
        nonlocal asked
        asked += 1
        return [file]

    async with watching(paths):
        before = asked
        (file.parent / "sub" / "catalog.yaml").write_text("x")
        await settle()
        assert asked == before


async def test_a_change_makes_nobody_listen_anew(file: Path) -> None:
    """Setting up the watches takes a thread each time; only a folder made anew is worth that."""
    async with anyio.create_task_group() as tasks:
        notifier = _Notifier(tasks)
        await notifier.follow(_folders([file]))
        first = notifier._stop
        changes: list[Callable[[], object]] = [
            lambda: file.write_text("other"),
            lambda: file.parent.chmod(0o700),
            file.unlink,
        ]
        for change in changes:
            change()
            with anyio.fail_after(60):
                await notifier.wait(NEVER_S)
            await notifier.follow(_folders([file]))
            assert notifier._stop is first
        file.parent.rmdir()
        with anyio.fail_after(60):
            while notifier._followed:  # the change before may come in two notifications
                await notifier.wait(NEVER_S)
        file.parent.mkdir()
        await notifier.follow(_folders([file]))
        assert notifier._stop is not first
        notifier.stop()


async def test_an_editor_that_renames_over_the_file(file: Path) -> None:
    async with watching(lambda: [file]) as calls:
        for content in ("one", "two"):
            temporary = file.with_suffix(".tmp")
            temporary.write_text(content)
            temporary.replace(file)
            await calls.next()
        assert calls.count == 2


async def test_an_editor_that_moves_the_old_file_away_first(file: Path) -> None:
    async with watching(lambda: [file]) as calls:
        file.rename(file.with_suffix(".yaml~"))
        file.write_text("new")
        await calls.next()
        await settle()
        assert calls.count == 1


async def test_each_further_change_restarts_the_wait(file: Path) -> None:
    async with watching(lambda: [file]) as calls:
        for number in range(12):
            written_s = anyio.current_time()
            file.write_text(f"version {number}")
            await anyio.sleep(DEBOUNCE_S / 3)
            if anyio.current_time() - written_s >= DEBOUNCE_S:
                return  # the machine itself left the file alone for so long
            assert calls.count == 0
        await calls.next()
        await settle()
        assert calls.count == 1


async def test_a_config_map_swap(tmp_path: Path) -> None:
    """``catalog.yaml -> ..data/catalog.yaml``, ``..data -> ..<time>``, as the kubelet does it."""

    def version(name: str, content: str) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "catalog.yaml").write_text(content)
        return folder

    old = version("..2026_01_01", "one")
    (tmp_path / "..data").symlink_to(old.name)
    file = tmp_path / "catalog.yaml"
    file.symlink_to("..data/catalog.yaml")
    async with watching(lambda: [file]) as calls:
        for number in range(3):
            new = version(f"..2026_01_0{number + 2}", f"new {number}")
            (tmp_path / "..data_tmp").symlink_to(new.name)
            (tmp_path / "..data_tmp").rename(tmp_path / "..data")
            shutil.rmtree(old)
            old = new
            await calls.next()
        await settle()
        assert calls.count == 3
        assert file.read_text() == "new 2"


async def test_the_target_of_a_link_elsewhere_changes(tmp_path: Path) -> None:
    target = tmp_path / "elsewhere" / "real.yaml"
    target.parent.mkdir()
    target.write_text("one")
    (tmp_path / "here").mkdir()
    link = tmp_path / "here" / "catalog.yaml"
    link.symlink_to(target)
    async with watching(lambda: [link]) as calls:
        target.write_text("two")
        await calls.next()


async def test_a_briefly_absent_file_with_the_same_content_is_no_change(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    content = file.read_bytes()
    async with watching(lambda: [file]) as calls:
        file.unlink()
        await settle()
        [record] = caplog.records
        assert record.message == "watched file is away"
        assert record.__dict__["path"] == str(file)
        assert record.__dict__["why"] == "No such file or directory"
        file.write_bytes(content)
        await settle()
        assert calls.count == 0
        file.write_text("other")
        await calls.next()
        file.unlink()
        await settle()
        assert len(caplog.records) == 2


async def test_a_folder_deleted_and_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "conf"
    folder.mkdir()
    file = folder / "catalog.yaml"
    file.write_text("one")
    async with watching(lambda: [file]) as calls:
        for number in range(2):
            shutil.rmtree(folder)
            await settle()
            folder.mkdir()
            file.write_text(f"again {number}")
            await calls.next()
        shutil.rmtree(folder)
        folder.mkdir()
        file.write_text("at once")
        await calls.next()
        file.write_text("and then in place")
        await calls.next()


async def test_a_folder_swapped_under_its_name_is_found_by_polling(tmp_path: Path) -> None:
    for name in ("conf", "next"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "catalog.yaml").write_text(name)
    file = tmp_path / "conf" / "catalog.yaml"
    async with watching(lambda: [file], poll_s=0.1) as calls:
        (tmp_path / "conf").rename(tmp_path / "old")
        (tmp_path / "next").rename(tmp_path / "conf")
        await calls.next()


async def test_any_of_several_files_and_folders(tmp_path: Path) -> None:
    files = [tmp_path / name / "file" for name in ("a", "b", "c")]
    for file in files:
        file.parent.mkdir()
        file.write_text("one")
    async with watching(lambda: files) as calls:
        for file in files:
            file.write_text("two")
            await calls.next()
        assert calls.count == 3


async def test_the_paths_are_asked_for_again_after_a_change(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "sub" / "other.yaml"
    other.parent.mkdir()
    other.write_text("one")
    paths = [file]
    async with watching(lambda: paths) as calls:

        def reload() -> None:
            paths[:] = [other]

        calls.then = reload
        file.write_text("points elsewhere now")
        await calls.next()
        await settle()
        assert calls.count == 1
        file.write_text("nobody looks at this any more")
        await settle()
        assert calls.count == 1
        other.write_text("two")
        await calls.next()


async def test_a_new_path_that_is_absent_at_first(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    paths = [file]
    async with watching(lambda: paths) as calls:
        calls.then = lambda: paths.append(other) if other not in paths else None
        file.write_text("names another file now")
        await calls.next()
        await settle()
        other.write_text("one")
        await calls.next()
        assert calls.count == 2


async def test_a_file_that_comes_into_being_later(tmp_path: Path) -> None:
    file = tmp_path / "not" / "yet" / "catalog.yaml"
    async with watching(lambda: [file]) as calls:
        file.parent.mkdir(parents=True)
        file.write_text("one")
        await calls.next()
        file.write_text("two")
        await calls.next()
        assert calls.count == 2


@pytest.mark.parametrize(
    "failure", [OSError("disk"), ReloadFailed("bad"), ZeroDivisionError("a defect")]
)
async def test_a_failing_reload_does_not_end_the_watch(
    file: Path, failure: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    async with watching(lambda: [file]) as calls:

        def fail() -> None:
            raise failure

        calls.then = fail
        file.write_text("one")
        await calls.next()
        await settle()
        file.write_text("two")
        await calls.next()
        await settle()
    for record in caplog.records:
        assert record.message == "reload failed"
        told = record.exc_info[1] if record.exc_info else record.__dict__["reason"]
        assert str(told) == str(failure)
    assert len(caplog.records) == 2


@pytest.mark.parametrize("kind", ["fifo", "folder", "broken link", "loop"])
async def test_things_that_are_no_files_are_left_alone(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "odd"
    match kind:
        case "fifo":
            os.mkfifo(path)
        case "folder":
            path.mkdir()
        case "broken link":
            path.symlink_to(tmp_path / "nowhere" / "file")
        case _:
            path.symlink_to(path)
    good = tmp_path / "good"
    good.write_text("one")
    async with watching(lambda: [path, good]) as calls:
        good.write_text("two")
        await calls.next()
        assert calls.count == 1


async def test_polling_where_no_notifier_can_be_had(
    file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Two file descriptors are left: the notifier needs three, reading a file one. It is tried
    again in other folders, and not told again."""
    other = file.parent / "sub" / "other.yaml"
    other.parent.mkdir()
    other.write_text("one")
    paths = [file]
    gc.collect()  # what earlier tests left must not give descriptors back in the middle
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken: list[int] = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, before[0]), before[1]))
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open(os.devnull, os.O_RDONLY))
        os.close(taken.pop())
        os.close(taken.pop())
        async with watching(lambda: paths, poll_s=0.05) as calls:
            calls.then = lambda: paths.append(other)
            file.write_text("changed")
            await calls.next()
            with anyio.fail_after(60):
                while calls.count == 1:  # from when it is looked at, which nothing tells
                    other.write_text(f"at {anyio.current_time()}")
                    with anyio.move_on_after(1):
                        await calls.next()
    finally:
        for descriptor in taken:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    [record] = [one for one in caplog.records if one.name == "open_mcp_gateway.config.watch"]
    assert record.message == "no file notifications, polling"
    assert "Too many open files" in record.__dict__["reason"]


def check_that_it_hides_no_other(folder: Path) -> None:
    files = [folder / name / "file" for name in ("closed", "open")]
    for file in files:
        file.parent.mkdir()
        file.write_text("one")
    files[0].parent.chmod(0o311)

    async def change() -> None:
        async with watching(lambda: files) as calls:
            files[1].write_text("two")
            await calls.next()

    anyio.run(change)


async def test_a_folder_that_may_not_be_listened_to_hides_no_other(tmp_path: Path) -> None:
    await anyio.to_thread.run_sync(unprivileged, check_that_it_hides_no_other, tmp_path)
