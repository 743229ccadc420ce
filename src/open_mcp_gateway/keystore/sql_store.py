"""What every store in an SQL database does alike, over what differs between them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from open_mcp_gateway.keystore import sql, uses
from open_mcp_gateway.keystore.store import StoreChanges, Transaction
from open_mcp_gateway.names import KeyId

Result = TypeVar("Result")


class SqlStore(sql.Database):
    """A part of ``KeyStore``."""

    def read(self, after_rev: int = -1, tag: str | None = None) -> StoreChanges:
        return sql.read(self, after_rev, tag)

    def transact(
        self,
        work: Callable[[Transaction], Result],
        known_rev: int = -1,
        known_tag: str | None = None,
    ) -> tuple[Result, StoreChanges]:
        return sql.transact(self, work, known_rev, known_tag)

    def note_use(self, used: Mapping[KeyId, float]) -> None:
        uses.note_use(self, used)

    def used_since(self, after_s: float) -> Mapping[KeyId, float]:
        return uses.used_since(self, after_s)
