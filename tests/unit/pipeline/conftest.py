"""Under a loop of virtual time deadlines pass in no time, and always the same way."""

from __future__ import annotations

from typing import Any

import pytest

from tests.unit.supervisor.virtual_time import BACKEND


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return BACKEND
