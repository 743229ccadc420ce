"""A request that was let in, as long as the next one of its connection may be its like."""

from __future__ import annotations

from typing import NamedTuple

from open_mcp_gateway.inbound.admission import Admitted


class Known(NamedTuple):
    """Its head, what was decided of that, and by which policies."""

    method: bytes
    url: bytes
    head: list[tuple[bytes, bytes]]
    admitted: Admitted
    policies: tuple[object, object]

    def covers(
        self, method: bytes, url: bytes, head: list[tuple[bytes, bytes]], policies: object
    ) -> bool:
        """Whether the same would be decided of this head."""
        return (
            method == self.method
            and url == self.url
            and head == self.head
            and policies == self.policies
        )
