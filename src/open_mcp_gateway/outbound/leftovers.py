"""Processes that an earlier gateway started and, dying by force, could not stop. Linux only."""

from __future__ import annotations

import os
import re
from pathlib import Path

from msgspec import Struct

from open_mcp_gateway.outbound.environment import (
    GONE,
    NO_START_TOKEN,
    OWNER_VARIABLE,
    PROCESS_GROUP,
    start_token,
    stat_fields,
)

_MARK = re.compile(rb"\0%b=([0-9]{1,10})-([0-9]{1,20})\0" % OWNER_VARIABLE.encode())


class Leftover(Struct, frozen=True, kw_only=True):
    """A process that nobody owns any more."""

    pid: int
    pgid: int
    command: str
    """Its first word only: arguments can hold secrets, and this is for a log line."""

    owner_pid: int
    """The gateway that started it, or started what started it."""


def find_leftovers(proc: Path = Path("/proc")) -> list[Leftover]:
    """This user's processes whose gateway is gone, by pid; empty where there is no /proc.

    The gateway is known by pid and start time, so a new process under its old pid is not taken for
    it. A few microseconds for each process of the machine.
    """
    try:
        pids = sorted(int(path.name) for path in proc.iterdir() if path.name.isdigit())
    except OSError:
        return []
    found = (_leftover(pid, proc) for pid in pids if pid != os.getpid())
    return [leftover for leftover in found if leftover is not None]


def _leftover(pid: int, proc: Path) -> Leftover | None:
    folder = proc / str(pid)
    try:
        if folder.stat().st_uid != os.getuid():
            return None
        environ = b"\0" + (folder / "environ").read_bytes() + b"\0"
        command = (folder / "cmdline").read_bytes().partition(b"\0")[0]
    except OSError:  # ended meanwhile, or does not let us look
        return None
    mark = _MARK.search(environ)
    if mark is None:
        return None
    owner_pid = int(mark[1])
    if _lives(owner_pid, mark[2].decode(), proc):
        return None
    fields = stat_fields(pid, proc)
    if fields is None or fields[0] in GONE:
        return None
    return Leftover(
        pid=pid,
        pgid=int(fields[PROCESS_GROUP]),
        command=command.decode(errors="replace"),
        owner_pid=owner_pid,
    )


def _lives(owner_pid: int, token: str, proc: Path) -> bool:
    now = start_token(owner_pid, proc)
    return now is not None and token in {now, NO_START_TOKEN}
