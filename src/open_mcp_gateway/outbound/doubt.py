"""Whether a server still is what it was when it was reached."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

NOT_AS_IT_WAS: Final = "no longer speaks as it did when it was reached; call again"
"""What callers are told once that is certain; follows ``Server 'x'``."""


class Doubt:
    """Asks the server, before anybody acts on one odd answer: that may come from something in
    between, and must not take the server from all the other callers."""

    __slots__ = ("_asking", "_confirmed", "_denied", "_dismissed")

    def __init__(
        self,
        denied: Callable[[], Awaitable[bool]],
        confirmed: Callable[[], None],
        dismissed: Callable[[], None] = lambda: None,
    ) -> None:
        """``denied`` asks whether it is something else now, and bounds its own time; ``confirmed``
        is called when it is, ``dismissed`` when it is not."""
        self._denied = denied
        self._confirmed = confirmed
        self._dismissed = dismissed
        self._asking: asyncio.Task[None] | None = None

    def arise(self) -> None:
        """Ask, unless that is under way."""
        if self._asking is None:
            self._asking = asyncio.get_running_loop().create_task(self._ask())

    async def _ask(self) -> None:
        denied = await self._denied()
        self._asking = None
        if denied:
            self._confirmed()
        else:
            self._dismissed()

    async def dispel(self) -> None:
        """Ask no more."""
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.wait([self._asking])
