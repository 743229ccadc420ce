"""The three pipes between the gateway and a child, on any event loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

STDIN, STDOUT, STDERR = 0, 1, 2


class PipeEnd:
    """A descriptor as event loops want one. ``close`` never closes what is not ours.

    asyncio leaves closing to this object, but uvloop closes the descriptor first and then calls
    ``close`` as well; by then another thread may have been given its number.
    """

    __slots__ = ("_fd", "_identity")

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._identity = _identity(fd)

    def fileno(self) -> int:
        return self._fd

    def close(self) -> None:
        if self._fd >= 0 and _identity(self._fd) == self._identity:
            os.close(self._fd)
        self._fd = -1


def _identity(fd: int) -> tuple[int, int] | None:
    try:
        status = os.fstat(fd)
    except OSError:
        return None
    return status.st_dev, status.st_ino


class Pipes:
    """Both ends of all three, for the moment of the start."""

    def __init__(self) -> None:
        """Raises OSError when there are no more descriptors."""
        self._fds: list[int] = []
        try:
            for _ in (STDIN, STDOUT, STDERR):
                self._fds.extend(os.pipe())
        except OSError:
            self.close()
            raise
        child_in, our_in, our_out, child_out, our_err, child_err = self._fds
        self.of_child = (child_in, child_out, child_err)
        self.ours = {STDIN: our_in, STDOUT: our_out, STDERR: our_err}

    def close(self) -> None:
        for fd in self._fds:
            os.close(fd)

    def started(self) -> dict[int, PipeEnd]:
        """The child has its ends; close them here and take ours."""
        for fd in self.of_child:
            os.close(fd)
        return {number: PipeEnd(fd) for number, fd in self.ours.items()}


class Output(asyncio.Protocol):
    """Our end of the child's stdout or stderr."""

    def __init__(self, feed: Callable[[bytes], None], ended: Callable[[], None]) -> None:
        self._feed = feed
        self._ended = ended

    def data_received(self, data: bytes) -> None:
        self._feed(data)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._ended()


class Input(asyncio.BaseProtocol):
    """Our end of the child's stdin."""

    def __init__(self, congested: Callable[[bool], None], ended: Callable[[], None]) -> None:
        self._congested = congested
        self._ended = ended

    def pause_writing(self) -> None:
        self._congested(True)

    def resume_writing(self) -> None:
        self._congested(False)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self._ended()
