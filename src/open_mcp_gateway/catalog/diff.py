"""What a new catalog changes."""

from __future__ import annotations

from msgspec import Struct

from open_mcp_gateway.catalog.model import CatalogEntry, Snapshot
from open_mcp_gateway.names import ServerId


class Changes(Struct, frozen=True, kw_only=True):
    """Server ids, each group in file order."""

    added: tuple[ServerId, ...] = ()
    removed: tuple[ServerId, ...] = ()
    modified: tuple[ServerId, ...] = ()
    relaunch: tuple[ServerId, ...] = ()
    """Those of ``modified`` whose running process is outdated; the others change in place."""


def diff(old: Snapshot, new: Snapshot) -> Changes:
    """From ``old`` to ``new``."""
    kept = [server for server in new.entries if server in old.entries]
    modified = tuple(one for one in kept if old.entries[one] != new.entries[one])
    return Changes(
        added=tuple(server for server in new.entries if server not in old.entries),
        removed=tuple(server for server in old.entries if server not in new.entries),
        modified=modified,
        relaunch=tuple(one for one in modified if _outdates(old.entries[one], new.entries[one])),
    )


def _outdates(old: CatalogEntry, new: CatalogEntry) -> bool:
    """A process started from ``old`` is not what ``new`` asks for."""
    before, after = old.spec, new.spec
    return (before.runtime, before.env, before.era) != (after.runtime, after.env, after.era)
