"""When keys were last used: kept beside the records, and no change of them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from open_mcp_gateway.keystore.rows import milliseconds
from open_mcp_gateway.keystore.sql import Database
from open_mcp_gateway.names import KeyId


def note_use(database: Database, used: Mapping[KeyId, float]) -> None:
    """``KeyStore.note_use``."""
    if not used:
        return
    moments: Iterable[tuple[KeyId, int]] = [(one, milliseconds(at)) for one, at in used.items()]
    with database.changing() as run:
        for key_id, moment in moments:
            run(
                "UPDATE api_keys SET last_used_at = ?"
                " WHERE id = ? AND (last_used_at IS NULL OR last_used_at < ?)",
                [moment, key_id, moment],
            )


def used_since(database: Database, after_s: float) -> Mapping[KeyId, float]:
    """``KeyStore.used_since``."""
    statement = "SELECT id, last_used_at FROM api_keys WHERE last_used_at > ?"
    with database.reading() as run:
        rows = run(statement, [milliseconds(after_s)])
    return {KeyId(key_id): moment / 1000 for key_id, moment in rows}
