"""The last words of a child process, kept for errors."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable

from open_mcp_gateway.outbound.lines import LineSplitter

KEPT_LINE_BYTES = 8192
SHOWN_LINE_CHARS = 500
SHOWN_LINES = 10
"""How many lines an error quotes; fewer than are kept."""

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[ -/]*[@-~]|[\x00-\x08\x0b-\x1f\x7f-\x9f]")


class StderrTail:
    """A ring of the last lines. What comes out of it was scrubbed as one text, as secrets can have
    several lines; cut only afterwards, so that no part of a secret is left over."""

    __slots__ = ("_lines", "_on_line", "_scrub", "_splitter")

    def __init__(
        self, limit_lines: int, scrub: Callable[[str], str], on_line: Callable[[str], None]
    ) -> None:
        self._lines: deque[str] = deque(maxlen=limit_lines)
        self._scrub = scrub
        self._on_line = on_line
        self._splitter = LineSplitter(KEPT_LINE_BYTES, self._add, self._add_overlong)

    def feed(self, data: bytes) -> None:
        self._splitter.feed(data)

    def finish(self) -> None:
        """The stream has ended; a last line without line end counts too."""
        self._splitter.finish()

    def lines(self) -> list[str]:
        """Every kept line, oldest first."""
        text = self._scrub("\n".join(self._lines))
        return [line[:SHOWN_LINE_CHARS] for line in _CONTROL.sub("", text).split("\n") if line]

    def quote(self) -> str:
        """The last lines as a sentence of an error, empty when there are none."""
        lines = self.lines()[-SHOWN_LINES:]
        return "stderr: " + "\n".join(lines) if lines else ""

    def _add(self, line: bytes) -> None:
        text = line.decode(errors="replace")
        self._lines.append(text)
        self._on_line(text)

    def _add_overlong(self, _front: bytes, _back: bytes) -> None:
        # Not even in part: a secret that the cut goes through would not be recognised.
        self._add(b"[line too long to keep]")
