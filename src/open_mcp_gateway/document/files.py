"""Opening what a person named as a file, which may be anything."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

# Else opening a pipe that nobody writes to would wait for somebody who does. Windows knows no such
# pipes in folders.
_NEVER_WAIT = getattr(os, "O_NONBLOCK", 0)


class NotRegular(OSError):
    """A pipe, a device or a socket: can be read once, or never ends, or nothing ever comes."""

    def __init__(self) -> None:
        super().__init__(errno.EINVAL, "not a regular file")


def open_regular(path: Path) -> BinaryIO:
    """A regular file, opened for reading.

    Raises:
        NotRegular: it is something else, and no folder.
        OSError: it cannot be opened.
        ValueError: there cannot be such a path.
    """
    try:
        stream = open(path, "rb", opener=_opener)  # noqa: SIM115  Path takes no opener
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket, or a device that is not there
            raise NotRegular from error
        raise
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise NotRegular
    return stream


def _opener(path: str, flags: int) -> int:
    return os.open(path, flags | _NEVER_WAIT)
