"""A reload whose files do not come."""

from __future__ import annotations

import threading
from typing import cast

import pytest

from open_mcp_gateway.app import Gateway
from open_mcp_gateway.catalog.load import LoadedCatalog
from open_mcp_gateway.config.load import LoadedConfig, Overrides
from open_mcp_gateway.errors import ReloadFailed
from open_mcp_gateway.reload import Reloader, Sources

pytestmark = pytest.mark.anyio


class Hanging(Sources):
    """Files on a drive that is gone."""

    def __init__(self) -> None:
        super().__init__(None, Overrides(), {})
        self.back = threading.Event()

    def read(self) -> tuple[LoadedConfig, LoadedCatalog]:
        self.back.wait()
        raise ReloadFailed("read, and that is all")


async def test_a_reload_does_not_wait_for_good(caplog: pytest.LogCaptureFixture) -> None:
    sources = Hanging()
    reloader = Reloader(sources)
    reloader.gateway = cast("Gateway", object())  # never got to
    reloader.read_s = 0.01
    for _ in range(2):
        with pytest.raises(ReloadFailed, match=r"within 0.01 s"):
            await reloader.reload()
    assert caplog.text.count("reload refused") == 2
    assert sum(thread.name == "aside" for thread in threading.enumerate()) == 1
    sources.back.set()


async def test_a_defect_in_a_reload_ends_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Defective(Hanging):
        def read(self) -> tuple[LoadedConfig, LoadedCatalog]:
            raise ZeroDivisionError

    reloader = Reloader(Defective())
    reloader.gateway = cast("Gateway", object())
    await reloader.reload_changed()
    assert "ZeroDivisionError" in caplog.text
