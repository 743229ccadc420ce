"""Fixtures for every test."""

import hypothesis
import pytest


@pytest.fixture
def anyio_backend() -> str:
    """The gateway runs on asyncio alone."""
    return "asyncio"


# How long inputs take to make says more about the machine than about them.
hypothesis.settings.register_profile(
    "gateway", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("gateway")
