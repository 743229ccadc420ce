"""Imports of any size, in requests that a gateway takes."""

from __future__ import annotations

import msgspec
import pytest

from open_mcp_gateway.cli.batches import batches
from open_mcp_gateway.operations.requests import MAX_IMPORT_BYTES

MOST = MAX_IMPORT_BYTES - 11
"""Within ``{"keys":[]}``, with a comma for each."""


@pytest.mark.parametrize(
    ("lengths", "expected"),
    [
        ([], []),
        ([2] * 1000, [1000]),
        ([2] * 2001, [1000, 1000, 1]),
        ([MOST - 1], [1]),
        ([MOST // 2 - 1] * 4, [2, 2]),
        ([MOST // 2] * 4, [1, 1, 1, 1]),
        ([MAX_IMPORT_BYTES * 2, 2, 2], [1, 2]),
    ],
)
def test_batches(lengths: list[int], expected: list[int]) -> None:
    items = [msgspec.Raw(b'"%b"' % (b"x" * (length - 2))) for length in lengths]
    found = list(batches(items))
    assert [len(batch) for batch in found] == expected
    assert [one for batch in found for one in batch] == items
    bodies = [msgspec.json.encode({"keys": batch}) for batch in found]
    assert all(len(body) <= MAX_IMPORT_BYTES for body in bodies) is (max(lengths, default=0) < MOST)
