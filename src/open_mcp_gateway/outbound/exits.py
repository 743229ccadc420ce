"""Hearing of a child's exit, from the process itself and not from its pipes, and reaping it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import threading
from collections.abc import Callable


def watch_exit(process: subprocess.Popen[bytes], on_exit: Callable[[], None]) -> None:
    """Call ``on_exit`` once on the running loop when ``process`` has exited and was reaped."""
    loop = asyncio.get_running_loop()
    try:
        pidfd = os.pidfd_open(process.pid)
    except (AttributeError, OSError):  # not Linux, or a kernel or sandbox without it
        watch_by_thread(process, on_exit)
        return

    def exited() -> None:
        loop.remove_reader(pidfd)
        os.close(pidfd)
        process.wait()
        on_exit()

    loop.add_reader(pidfd, exited)


def watch_by_thread(process: subprocess.Popen[bytes], on_exit: Callable[[], None]) -> None:
    """The same with a thread that waits."""
    loop = asyncio.get_running_loop()

    def wait() -> None:
        process.wait()
        with contextlib.suppress(RuntimeError):  # the loop was closed meanwhile
            loop.call_soon_threadsafe(on_exit)

    threading.Thread(target=wait, name=f"wait for child {process.pid}", daemon=True).start()
