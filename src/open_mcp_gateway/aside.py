"""Work that may hang for good, such as a look at a file on a network that is gone.

A worker thread of anyio's would be waited for when the program ends, and it would not end.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, TypeVar

import anyio
from anyio.from_thread import BlockingPortal

T = TypeVar("T")


class StillHanging(Exception):
    """What was given up on earlier is not over yet."""


class Aside:
    """One piece of blocking work at a time, in a thread that neither a deadline nor the end of the
    program waits for."""

    def __init__(self) -> None:
        self._hanging: Future[Any] | None = None

    async def run(self, work: Callable[[], T]) -> T:
        """The value of ``work``, or what it raises. Cancelling leaves it to itself.

        Raises:
            StillHanging: the work before this one; a thread each would be too many.
        """
        if self._hanging is not None and not self._hanging.done():
            raise StillHanging
        outcome: Future[T] = Future()
        over = anyio.Event()
        async with BlockingPortal() as portal:

            def carry_out() -> None:
                _settle(outcome, work)
                with suppress(RuntimeError):  # nobody waits any more
                    portal.call(over.set)

            self._hanging = outcome
            threading.Thread(target=carry_out, name="aside", daemon=True).start()
            await over.wait()
        return outcome.result()


def _settle(outcome: Future[T], work: Callable[[], T]) -> None:
    try:
        outcome.set_result(work())
    except BaseException as error:  # noqa: BLE001  raised again where the outcome is looked at
        outcome.set_exception(error)
