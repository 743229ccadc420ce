"""Whether a gateway is still there while calls through it last.

A call may take as long as that gateway allows, which is not known here, and silence on its way says
nothing: what is in between may hold back the comments that a silent stream is given. A process that
hangs or is stopped keeps its connections, so that nothing else tells of it either.
"""

from __future__ import annotations

import asyncio

from open_mcp_gateway.errors import Busy
from open_mcp_gateway.outbound.answer import Ask, Fell
from open_mcp_gateway.outbound.http import HttpPeer

PAUSE_S = 30.0
"""Between two questions, as long as there are calls."""

ANSWER_S = 30.0
"""How long a gateway may take to say that it is there, which even a busy one does at once."""

_HEALTH = "../../health"
"""From ``/servers/{id}/mcp``."""


class Pulse:
    """Loses ``peer`` when its gateway takes a question and gives no answer, good or bad."""

    __slots__ = ("_peer", "_request", "_task")

    def __init__(self, peer: HttpPeer) -> None:
        link = peer.link
        self._peer = peer
        self._request = link.head(b"GET", link.endpoint.beside(_HEALTH)) + b"\r\n"
        self._task = asyncio.get_running_loop().create_task(self._watch())

    async def stop(self) -> None:
        """Ask no more."""
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(PAUSE_S)
            if self._peer.inflight and not await self._answers():
                self._peer.lose(f"has not answered anything for {ANSWER_S:g} s")
                return

    async def _answers(self) -> bool:
        """Only silence is none. Of what cannot be sent, or breaks off, the calls learn by their own
        connections, if it concerns them."""
        link = self._peer.link
        max_bytes = link.settings.max_message_bytes
        ask = Ask(self._request, None, replayable=True, max_bytes=max_bytes)
        try:
            link.pool.submit(ask)
            async with asyncio.timeout(ANSWER_S):
                await ask.outcome
        except TimeoutError:
            return link.pool.waits(ask)
        except (Fell, Busy):
            return True
        finally:
            link.pool.withdraw(ask)
        return True
