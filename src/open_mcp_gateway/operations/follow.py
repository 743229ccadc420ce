"""Keeps the keys in force in step with a store that other processes write to."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from typing import Final, NoReturn, TypeVar, final

import anyio
from anyio import CapacityLimiter, to_thread

from open_mcp_gateway.clock import Clock
from open_mcp_gateway.errors import StoreUnavailable
from open_mcp_gateway.keystore.store import KeyStore
from open_mcp_gateway.names import KeyId
from open_mcp_gateway.operations.changes import Changer

log = logging.getLogger(__name__)

WAIT_S: Final = 1.0
"""How long one wait for a change may take; a change ends it at once."""

STALE_AFTER_S: Final = 5.0
"""After so long without a word from the store, its keys open nothing."""

PACE_S: Final = 0.5
"""Between attempts while the store does not answer, and between looks at the time."""

USES_S: Final = 5.0
"""How often it is kept which keys were used."""

_SKEW_S: Final = 60.0
"""How far the clocks of processes on one store may be apart."""

Result = TypeVar("Result")


@final
class Follower:
    """Follows ``store``; ``changer`` puts in force what it hears of. ``lost`` is told whether the
    store is; ``used`` gives the keys that opened since it was last asked."""

    def __init__(
        self,
        store: KeyStore,
        changer: Changer,
        clock: Clock,
        *,
        lost: Callable[[bool], None],
        used: Callable[[], Collection[KeyId]],
    ) -> None:
        self._store = store
        self._changer = changer
        self._keys = changer.keys
        self._clock = clock
        self._tell_lost = lost
        self._used = used
        self._heard_at = clock.monotonic()
        self._lost = False
        self._silent = False
        self._unkept: dict[KeyId, float] = {}
        self._uses_since_s = clock.wall() - _SKEW_S

    async def run(self) -> None:
        """Follow until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._follow)
            tasks.start_soon(self._keep_uses)
            tasks.start_soon(self._watch_silence)

    async def _follow(self) -> NoReturn:
        alone = CapacityLimiter(1)
        while True:
            try:
                changed = await _in_thread(lambda: self._store.wait_for_change(WAIT_S), alone)
                if changed or self._silent:
                    await self._changer.catch_up(alone)
            except StoreUnavailable as error:
                self._fell_silent(error)
                await anyio.sleep(PACE_S)
            except (
                Exception
            ):  # a defect must not end the gateway; what it hides is as good as silent
                if not self._silent:
                    self._silent = True
                    log.exception("changes of the key store cannot be put in force")
                await anyio.sleep(PACE_S)
            else:
                self._heard()

    def _heard(self) -> None:
        self._heard_at = self._clock.monotonic()
        if self._silent:
            self._silent = False
            log.warning("the key store answers again")
        if self._lost:
            self._lost = False
            self._tell_lost(False)

    def _fell_silent(self, error: StoreUnavailable) -> None:
        if not self._silent:
            self._silent = True
            reason = "; ".join((error.public, *getattr(error, "__notes__", ())))
            log.error("the key store does not answer", extra={"reason": reason})

    async def _watch_silence(self) -> NoReturn:
        """Looks by itself: a wait in a thread may hang for as long as a network likes."""
        while True:
            await anyio.sleep(PACE_S)
            silent_s = self._clock.monotonic() - self._heard_at
            if silent_s > STALE_AFTER_S and not self._lost:
                self._lost = self._silent = True
                log.error("keys of the store open nothing until the store answers again")
                self._tell_lost(True)

    async def _keep_uses(self) -> NoReturn:
        alone = CapacityLimiter(1)
        while True:
            await anyio.sleep(USES_S)
            try:
                await self._exchange_uses(alone)
            except StoreUnavailable:
                # Said by ``_follow``; what is not kept yet goes with the next attempt.
                continue
            except Exception:
                log.exception("uses of keys are not kept")

    async def _exchange_uses(self, limiter: CapacityLimiter) -> None:
        now_s = self._clock.wall()
        self._unkept.update((key_id, now_s) for key_id in self._used() if self._keys.stores(key_id))
        mine, since_s = self._unkept.copy(), self._uses_since_s
        if mine:
            await _in_thread(lambda: self._store.note_use(mine), limiter)
            self._unkept.clear()
        self._keys.note_uses(await _in_thread(lambda: self._store.used_since(since_s), limiter))
        self._uses_since_s = now_s - _SKEW_S


async def _in_thread(work: Callable[[], Result], limiter: CapacityLimiter) -> Result:
    # Given up on when the gateway stops: a thread that waits for a network holds nobody up.
    return await to_thread.run_sync(work, limiter=limiter, abandon_on_cancel=True)
