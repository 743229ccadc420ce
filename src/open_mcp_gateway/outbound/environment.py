"""What a child process gets to see of the gateway's environment: an allow-list, never all of it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

OWNER_VARIABLE = "OPEN_MCP_GATEWAY_OWNER"
"""Marks every process the gateway starts, and what those start: ``<pid>-<start token>``."""

NO_START_TOKEN = "0"  # noqa: S105 - a time, not a secret
"""Stands for the start token where the platform does not tell start times."""

_ALLOWED = frozenset(
    {
        "PATH",
        "HOME",
        "USER",
        "LOGNAME",
        "SHELL",
        "LANG",
        "LANGUAGE",
        "TZ",
        "TMPDIR",
        "TMP",
        "TEMP",
        "TERM",
        "SSL_CERT_FILE",
        "SSL_CERT_DIR",
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
        "NODE_EXTRA_CA_CERTS",
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "NO_PROXY",
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "no_proxy",
    }
)
_ALLOWED_PREFIXES = ("LC_", "XDG_")

_AFTER_NAME = re.compile(r"^[0-9]+ \(.*\) ", re.DOTALL)
GONE = frozenset({"Z", "X"})
"""States of /proc/<pid>/stat that mean a process runs no more. proc(5)."""

PROCESS_GROUP = 2
"""Index of ``pgrp`` in /proc/<pid>/stat, counted from the field after the name. proc(5)."""

_START_TIME = 19
"""The same of ``starttime``."""


def child_environment(
    environ: Mapping[str, str], own: Mapping[str, str], owner: str
) -> dict[str, str]:
    """The environment of a child: the allowed part of ``environ``, its ``own``, and the marker."""
    env = {
        name: value
        for name, value in environ.items()
        if name in _ALLOWED or name.startswith(_ALLOWED_PREFIXES)
    }
    env.setdefault("PATH", os.defpath)
    env.update(own)
    env[OWNER_VARIABLE] = owner
    return env


def owner_mark() -> str:
    """This process as a value of ``OWNER_VARIABLE``; another with the same pid has another."""
    pid = os.getpid()
    return f"{pid}-{start_token(pid) or NO_START_TOKEN}"


def start_token(pid: int, proc: Path = Path("/proc")) -> str | None:
    """When process ``pid`` started, in the kernel's own unit.

    None when it is gone, is a zombie, or the platform does not say.
    """
    fields = stat_fields(pid, proc)
    return None if fields is None or fields[0] in GONE else fields[_START_TIME]


def stat_fields(pid: int, proc: Path = Path("/proc")) -> list[str] | None:
    """/proc/<pid>/stat from the state on; None when there is no such process."""
    try:
        # The name may hold anything, newlines and parentheses too, so it is cut off greedily.
        text = (proc / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    return _AFTER_NAME.sub("", text, count=1).split()


def group_has_members(pgid: int, proc: Path = Path("/proc")) -> bool:
    """Whether process group ``pgid`` has a member that is not a zombie.

    A zombie whose parent never reaps it keeps the group alive for ever but can do no harm.
    """
    try:
        os.killpg(pgid, 0)
    except (ProcessLookupError, PermissionError):
        return False
    try:
        pids = [int(path.name) for path in proc.iterdir() if path.name.isdigit()]
    except OSError:
        return True
    members = (stat_fields(pid, proc) for pid in pids)
    return any(
        fields is not None and fields[PROCESS_GROUP] == str(pgid) and fields[0] not in GONE
        for fields in members
    )
