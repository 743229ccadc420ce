"""The protocol revisions of MCP and the two eras they fall into.

Spec: 2026-07-28 basic/versioning; the handshake era ends with 2025-11-25.
"""

from __future__ import annotations

import enum

LATEST_MODERN = "2026-07-28"
LATEST_LEGACY = "2025-11-25"

MODERN_VERSIONS: tuple[str, ...] = (LATEST_MODERN,)
LEGACY_VERSIONS: tuple[str, ...] = ("2024-11-05", "2025-03-26", "2025-06-18", LATEST_LEGACY)
"""Oldest first."""


class Era(enum.StrEnum):
    """How a connection is run."""

    MODERN = "modern"
    """Stateless: every request carries version and client capabilities (2026-07-28 on)."""

    LEGACY = "legacy"
    """Sessions opened with ``initialize`` (up to 2025-11-25)."""
