"""Mistakes that are none: the program does the same with them, so no test can tell."""

from __future__ import annotations

from typing import Final

EQUIVALENT: Final[dict[tuple[str, str, str], str]] = {}
"""By module, the line as it stands there and what the mistake is: why it makes no difference."""
