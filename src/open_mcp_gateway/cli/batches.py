"""An import in requests that are each within what one may hold. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import Raw

from open_mcp_gateway.operations.requests import MAX_IMPORT_BYTES, MAX_IMPORTED

_ROOM_BYTES = MAX_IMPORT_BYTES - len(b'{"keys":[]}')


def batches(items: Iterable[Raw]) -> Iterator[list[Raw]]:
    """``items`` in their order. One that is too long for any request is a batch of its own."""
    batch: list[Raw] = []
    taken_bytes = 0
    for item in items:
        item_bytes = len(memoryview(item)) + len(b",")
        if batch and (len(batch) == MAX_IMPORTED or taken_bytes + item_bytes > _ROOM_BYTES):
            yield batch
            batch, taken_bytes = [], 0
        batch.append(item)
        taken_bytes += item_bytes
    if batch:
        yield batch
