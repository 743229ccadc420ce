"""Does something as somebody whom file modes bind, which they do not bind root."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

import anyio

NOBODY: Final = 65534


def unprivileged(check: Callable[[Path], None], folder: Path) -> None:
    """Run ``check``, a function of a module, on ``folder``: as root in a process that becomes
    nobody's. It fails with what was raised."""
    if os.geteuid() != 0:
        check(folder)
        return
    os.chown(folder, NOBODY, NOBODY)
    for one in folder.parents:  # pytest's folders are their owner's alone
        one.chmod(one.stat().st_mode | 0o001)
        if one.name.startswith("pytest-of-"):
            break
    command = [sys.executable, "-m", "tests.unprivileged", check.__module__, check.__name__]
    done = subprocess.run(
        [*command, str(folder)], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr


def main(module: str, name: str, folder: str) -> None:
    # Before it becomes nobody's, for whom the interpreter may lie where only root can read.
    check = getattr(importlib.import_module(module), name)
    anyio.run(anyio.sleep, 0)  # imports what an event loop needs
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    check(Path(folder))


if __name__ == "__main__":
    main(*sys.argv[1:])
