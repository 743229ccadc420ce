"""Paths as people write them in a file: relative to it, with ``~``."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from open_mcp_gateway.document.files import open_regular

_USER = re.compile(r"~[A-Za-z0-9_][A-Za-z0-9._-]*")


def absolute(text: str, base: Path, environ: Mapping[str, str]) -> Path | None:
    """``text`` as an absolute path, seen from the folder ``base``; None if ``~`` leads nowhere."""
    if text.startswith("~"):
        expanded = _home(text, environ)
        if expanded is None:
            return None
        text = expanded
    return Path(os.path.abspath(base)) / text  # noqa: PTH100  `Path.absolute` keeps `..`


def _home(text: str, environ: Mapping[str, str]) -> str | None:
    user, slash, rest = text.partition("/")
    if user == "~":
        home = environ.get("HOME") or environ.get("USERPROFILE")
        return f"{home}{slash}{rest}" if home else None
    if not _USER.fullmatch(user):
        return None
    expanded = os.path.expanduser(text)  # noqa: PTH111  Path raises for an unknown user
    return None if expanded.startswith("~") else expanded


def unreadable(path: Path) -> str | None:
    """Why the content of a file cannot be read; None when it can."""
    try:
        if path.is_dir():
            return "is a folder"
        if not path.exists():
            return "does not exist"
        with open_regular(path):
            return None
    except (OSError, ValueError) as error:
        return f"cannot be read ({getattr(error, 'strerror', None) or error})"
