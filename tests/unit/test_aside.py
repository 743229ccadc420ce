"""Blocking work that nobody has to wait for."""

from __future__ import annotations

import threading

import anyio
import pytest

from open_mcp_gateway.aside import Aside, StillHanging

pytestmark = pytest.mark.anyio


async def test_it_gives_what_the_work_gives() -> None:
    def fail() -> None:
        raise KeyError("x")

    aside = Aside()
    assert await aside.run(lambda: 7) == 7
    with pytest.raises(KeyError):
        await aside.run(fail)
    assert await aside.run(lambda: 8) == 8


async def test_work_that_hangs_is_given_up_and_not_repeated() -> None:
    aside, hang, over = Aside(), threading.Event(), threading.Event()

    def work() -> None:
        hang.wait()
        over.set()

    with anyio.move_on_after(0.01) as given_up:
        await aside.run(work)
    assert given_up.cancelled_caught
    assert all(thread.daemon for thread in threading.enumerate() if thread.name == "aside")
    with pytest.raises(StillHanging):
        await aside.run(work)

    hang.set()
    assert over.wait(10)
    with anyio.fail_after(10):
        while True:
            try:
                assert await aside.run(lambda: 9) == 9
            except StillHanging:
                await anyio.sleep(0.001)
            else:
                break
