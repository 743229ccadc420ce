"""File descriptors: each connection and each pipe takes one, and without any nothing new works.

The event loop closes a connection for which there is none without a word, so a word is said here.
"""

from __future__ import annotations

import errno
import logging
import math
import os
import sys
from contextlib import suppress

if sys.platform != "win32":
    import resource

log = logging.getLogger(__name__)

WANTED = 65_536
"""More is not asked for: children inherit the limit, and some close every number below it."""

COMPLAIN_EVERY_S = 60.0

_NONE_LEFT = frozenset({errno.EMFILE, errno.ENFILE})


def raise_limit() -> None:
    """Allow this process, and its children, as many as it may allow itself."""
    if sys.platform == "win32":  # which has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED if hard == resource.RLIM_INFINITY else min(hard, WANTED)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with suppress(ValueError, OSError):  # then it stays as it is
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


class DescriptorWatch:
    """Says so in the log when there are none left, once in a while."""

    def __init__(self) -> None:
        self._said_s = -math.inf

    def look(self, now_s: float) -> None:
        """Called now and then; ``now_s`` is seconds of any clock that only goes forward."""
        try:
            os.close(os.open(os.devnull, os.O_RDONLY))
        except OSError as error:
            if error.errno in _NONE_LEFT and now_s - self._said_s >= COMPLAIN_EVERY_S:
                self._said_s = now_s
                log.warning(
                    "no file descriptors left: new connections are closed, servers cannot start",
                    extra={"reason": error.strerror, "mend": "raise `ulimit -n` (LimitNOFILE)"},
                )
