"""What the tests of this folder leave behind is put away after each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.unit.operations.desk import OPEN


@pytest.fixture(autouse=True)
def _stores_are_closed() -> Iterator[None]:
    yield
    OPEN.close()
