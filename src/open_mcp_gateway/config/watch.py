"""Noticing that a file has new content, however it got it.

The kernel's notifications only wake the watcher; what counts is the content. A slow look at the
files' metadata goes on all the time, for what notifications miss: network file systems, a folder
swapped under its name, and systems that have run out of watches.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TypeAlias

import anyio
import anyio.abc
import watchfiles

from open_mcp_gateway.aside import Aside
from open_mcp_gateway.document.files import open_regular
from open_mcp_gateway.document.source import MAX_FILE_BYTES
from open_mcp_gateway.errors import GatewayError

log = logging.getLogger(__name__)

POLL_S = 2.0
"""How often metadata is looked at without any notification."""

_GROUP_MS = 100
"""Notifications within this time are one; also how often the notifier's thread wakes up."""

_MAX_HOPS = 40
"""Symbolic links followed for one path, as in Linux."""

_Stat: TypeAlias = tuple[int, ...] | None
_Stats: TypeAlias = dict[Path, _Stat]
_Folders: TypeAlias = dict[Path, _Stat]


async def watch(
    paths: Callable[[], Iterable[Path]],
    changed: Callable[[], Awaitable[None]],
    *,
    last_read: Callable[[], Mapping[Path, bytes]] = dict,
    debounce_s: float = 0.5,
    poll_s: float = POLL_S,
    task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
) -> None:
    """Call ``changed`` whenever a file of ``paths`` has other bytes than before, until cancelled.

    Called once the files have been left alone for ``debounce_s`` seconds. A file that is absent or
    cannot be read counts as unchanged until it is back. ``paths`` is asked again each time.
    ``last_read`` gives the SHA-256 of files as they were last read by whoever acts on them: those
    are compared with, not what was seen here, so that what was read on request and put back counts.
    Started, in the sense of ``TaskGroup.start``, when no change can be missed any more.
    """
    async with anyio.create_task_group() as tasks:
        notifier = _Notifier(tasks)
        try:
            watcher = _Watcher(
                paths,
                changed,
                notifier,
                last_read=last_read,
                debounce_s=debounce_s,
                poll_s=poll_s,
            )
            await watcher.run(task_status)
        finally:
            notifier.stop()


class _Watcher:
    """What was seen last, and the wait for something else."""

    def __init__(
        self,
        paths: Callable[[], Iterable[Path]],
        changed: Callable[[], Awaitable[None]],
        notifier: _Notifier,
        *,
        last_read: Callable[[], Mapping[Path, bytes]],
        debounce_s: float,
        poll_s: float,
    ) -> None:
        self._paths = paths
        self._changed = changed
        self._last_read = last_read
        self._notifier = notifier
        self._debounce_s = debounce_s
        self._poll_s = poll_s
        self._aside = Aside()
        self._digests: dict[Path, bytes] = {}
        self._absent: set[Path] = set()

    async def run(self, task_status: anyio.abc.TaskStatus[None]) -> None:
        seen = await self._look()
        changed = await self._compare()
        task_status.started()
        if changed:
            await self._tell()
        while True:
            await self._notifier.wait(self._poll_s)
            now = await self._look()
            if now == seen:
                continue
            seen = await self._settled(now)
            if await self._compare():
                await self._tell()

    async def _look(self) -> _Stats:
        """Metadata of every path; the notifier is set up first, so that no change falls between."""
        paths = list(self._paths())
        await self._notifier.follow(await self._aside.run(partial(_folders, paths)))
        return await self._aside.run(partial(_stats, paths))

    async def _settled(self, now: _Stats) -> _Stats:
        """Wait until nothing changes any more; each further change starts the time again."""
        deadline = anyio.current_time() + self._debounce_s
        while (left_s := deadline - anyio.current_time()) > 0:
            await self._notifier.wait(left_s)
            before, now = now, await self._look()
            if now != before:
                deadline = anyio.current_time() + self._debounce_s
        return now

    async def _compare(self) -> bool:
        """Take in the contents; True when a path has another one than before, or its first."""
        paths = list(self._paths())
        read = await self._aside.run(partial(_digests, paths))
        new = False
        self._digests.update(self._last_read())
        for path, digest in read.items():
            if isinstance(digest, str):
                if path not in self._absent:
                    log.warning("watched file is away", extra={"path": str(path), "why": digest})
                self._absent.add(path)
                continue
            known = path in self._digests or path in self._absent
            new = new or (known and self._digests.get(path) != digest)
            self._absent.discard(path)
            self._digests[path] = digest
        for path in self._digests.keys() - read.keys():
            del self._digests[path]
        return new

    async def _tell(self) -> None:
        try:
            await self._changed()
        except (OSError, GatewayError) as error:
            log.error("reload failed", extra={"reason": str(error)})
        except Exception:  # a defect in one reload must not end the gateway
            log.exception("reload failed")
        # What was read meanwhile for the first time is the new starting point.
        await self._take_in_new()

    async def _take_in_new(self) -> None:
        new = [path for path in self._paths() if path not in self._digests]
        for path, digest in (await self._aside.run(partial(_digests, new))).items():
            if isinstance(digest, bytes):
                self._digests[path] = digest
            else:
                self._absent.add(path)


class _Notifier:
    """Wakes up when something happens in certain folders."""

    def __init__(self, tasks: anyio.abc.TaskGroup) -> None:
        self._tasks = tasks
        self._followed: _Folders = {}
        self._stop = anyio.Event()
        self._wake = anyio.Event()
        self._complained = False

    async def wait(self, longest_s: float) -> None:
        """Until something happened since the last wait, or the time is over."""
        with anyio.move_on_after(longest_s):
            await self._wake.wait()
            self._wake = anyio.Event()

    async def follow(self, folders: _Folders) -> None:
        """Listen to these folders from now on; one made anew under its old name is another one."""
        if folders == self._followed:
            return
        self.stop()
        self._followed = folders
        self._stop = anyio.Event()
        await self._tasks.start(self._pump, list(folders), self._stop)

    def stop(self) -> None:
        # The event, because the notifier's thread cannot be cancelled.
        self._stop.set()

    async def _pump(
        self,
        folders: list[Path],
        stop: anyio.Event,
        *,
        task_status: anyio.abc.TaskStatus[None],
    ) -> None:
        # Whoever waits for this goes on at the next suspension of this task, and `awatch` sets up
        # its watches before its first one.
        task_status.started()
        names = {str(folder) for folder in folders}
        try:
            async for changes in watchfiles.awatch(
                *folders,
                watch_filter=None,
                recursive=False,
                stop_event=stop,
                debounce=_GROUP_MS,
                step=_GROUP_MS,
                ignore_permission_denied=True,
            ):
                gone = {path for change, path in changes if change is watchfiles.Change.deleted}
                if gone & names and not stop.is_set():
                    # A folder made in its place may have the same inode, and has no watch.
                    self._followed = {}
                self._wake.set()
        # The notifier's own error is a RuntimeError; being out of inotify instances is one of them.
        except (OSError, RuntimeError) as error:
            if not self._complained:
                self._complained = True
                log.warning("no file notifications, polling", extra={"reason": str(error)})


def _stats(paths: list[Path]) -> _Stats:
    """Enough to see a write, a rename over it, and a swapped link, without reading the file."""
    return {path: _stat(path) for path in paths}


def _stat(path: Path) -> _Stat:
    try:
        seen = path.stat()
    except (OSError, ValueError):
        return None
    return (seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)


def _digests(paths: list[Path]) -> dict[Path, bytes | str]:
    """The SHA-256 of each content, or why there is none."""
    return {path: _digest(path) for path in paths}


def _digest(path: Path) -> bytes | str:
    try:
        # Reading a pipe would wait for, and take away, what another reader needs.
        with open_regular(path) as stream:
            return hashlib.sha256(stream.read(MAX_FILE_BYTES + 1)).digest()
    except (OSError, ValueError) as error:
        return getattr(error, "strerror", None) or str(error)


def _folders(paths: list[Path]) -> _Folders:
    """Every folder whose entries lead to one of the files, each with its identity."""
    found: _Folders = {}
    for path in paths:
        for folder in _leading_to(path):
            seen = _stat(folder)
            found[folder] = seen[:2] if seen else None
    return found


def _leading_to(path: Path) -> set[Path]:
    """The folder of the file, and of every symbolic link on the way; existing ones only."""
    found: set[Path] = set()
    target = Path(os.path.abspath(path))  # noqa: PTH100  `Path.absolute` keeps `..`
    for _ in range(_MAX_HOPS):
        link = _first_link(target)
        if link is None:
            break
        place, pointed = link
        found.add(place.parent)
        target = Path(os.path.abspath(pointed / target.relative_to(place)))  # noqa: PTH100
    found.add(next((folder for folder in target.parents if _is_folder(folder)), target.parent))
    return found


def _first_link(path: Path) -> tuple[Path, Path] | None:
    """The first symbolic link on the way to ``path``, seen from the root, and where it points."""
    for part in (*reversed(path.parents), path):
        try:
            return part, part.parent / part.readlink()
        except (OSError, ValueError):  # most are no links; whether one is cannot always be told
            continue
    return None


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):
        return False
