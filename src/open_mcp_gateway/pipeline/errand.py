"""Something to do with a running server: wait for it if need be, do it once, or say why not."""

from __future__ import annotations

from typing import Protocol

import anyio
from anyio.abc import TaskGroup

from open_mcp_gateway.access.permit import Permit
from open_mcp_gateway.catalog.model import Isolation
from open_mcp_gateway.clock import Clock
from open_mcp_gateway.errors import (
    Draining,
    GatewayError,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from open_mcp_gateway.outbound.peer import ANY_MANNER, Manner
from open_mcp_gateway.pipeline.handles import Handles
from open_mcp_gateway.pipeline.reply import failure_of
from open_mcp_gateway.supervisor.lease import Lease

_ATTEMPTS = 3
"""A peer can die between being leased and being written to; nothing was sent then."""


class Servers(Protocol):
    """The part of the fleet that requests need."""

    def isolation(self, permit: Permit) -> Isolation: ...
    def lease(self, permit: Permit, manner: Manner = ANY_MANNER) -> Lease | None: ...
    async def ready(self, permit: Permit, manner: Manner = ANY_MANNER) -> Lease: ...
    def release(self, permit: Permit, manner: Manner) -> None: ...


class Means:
    """What errands are run with; the times may be replaced."""

    __slots__ = (
        "clock",
        "handles",
        "max_request_s",
        "request_timeout_s",
        "servers",
        "start_timeout_s",
        "tasks",
    )

    def __init__(
        self,
        servers: Servers,
        tasks: TaskGroup,
        clock: Clock,
        *,
        request_timeout_s: float,
        max_request_s: float,
        start_timeout_s: float = 0.0,
        handles: Handles | None = None,
    ) -> None:
        self.servers = servers
        self.tasks = tasks
        self.clock = clock
        self.request_timeout_s = request_timeout_s
        self.max_request_s = max_request_s
        self.start_timeout_s = start_timeout_s
        """What the opening of a session may take on top: a server that only it wants may start."""

        self.handles = Handles() if handles is None else handles

    def timeout_s(self, permit: Permit) -> float:
        """How long a call under ``permit`` may go without an answer or progress."""
        own = permit.entry.spec.request_timeout_seconds
        return min(own or self.request_timeout_s, self.max_request_s)


class Errand:
    """One use of one server. Callbacks while the server runs; a task only to wait for its start."""

    __slots__ = (
        "began_s",
        "deadline_s",
        "manner",
        "means",
        "over",
        "permit",
        "ran",
        "request_id",
        "waiting",
    )

    def __init__(self, means: Means, permit: Permit, manner: Manner, request_id: str) -> None:
        self.means = means
        self.permit = permit
        self.manner = manner
        self.request_id = request_id
        self.began_s = means.clock.monotonic()
        self.deadline_s = self.began_s + means.timeout_s(permit)
        self.waiting: anyio.CancelScope | None = None
        self.over = False
        """Nobody waits for an outcome any more."""

        self.ran = False
        """It was done, after waiting; its outcome comes by itself."""

    def run(self, lease: Lease) -> bool:
        """Do it now; False when the peer turned out to be gone and nothing was sent."""
        raise NotImplementedError

    def fail(self, error: GatewayError) -> None:
        """It could not be done. Called at most once, and not after ``run`` gave an outcome."""
        raise NotImplementedError

    def start(self, lease: Lease | None = None) -> None:
        """Do it at once if the server runs, else as soon as it does. ``lease`` is one of it that is
        known to serve. Whatever goes wrong is the outcome: whoever started it may have it on its
        books, and is told in one way alone."""
        try:
            if lease is None:
                lease = self.means.servers.lease(self.permit, self.manner)
            if lease is None or not self.run(lease):
                self.means.tasks.start_soon(self._run_when_ready)
        except Exception as error:  # noqa: BLE001 - a boundary, for the reason above
            self._settle(failure_of(error, None, self.request_id))

    async def _run_when_ready(self) -> None:
        """Wait for the server until the deadline; its start goes on without us."""
        clock, scope = self.means.clock, anyio.CancelScope()
        scope.deadline = anyio.current_time() + self.deadline_s - clock.monotonic()
        self.waiting = scope
        try:
            with scope:
                await self._run_once_up()
            # Reached without an outcome when the scope was cancelled by its deadline.
            if not self.ran:
                text = f"{self._server} was not ready in time; it goes on starting"
                self._settle(UpstreamTimeout(text))
        finally:
            if not self.ran:
                self._settle(Draining("the gateway is shutting down", retry_after_s=1))

    async def _run_once_up(self) -> None:
        try:
            for _ in range(_ATTEMPTS):
                if self.over or await self._once_up():
                    return  # left before this task began, or done
            self._settle(UpstreamUnavailable(f"{self._server} went away as soon as it was up"))
        except Exception as error:  # noqa: BLE001 - the last boundary before a caller is left without an answer
            self._settle(failure_of(error, None, self.request_id))

    async def _once_up(self) -> bool:
        """False when the server went away again before it could be done."""
        lease = await self.means.servers.ready(self.permit, self.manner)
        if self.over:  # left in the moment in which the server came up
            return True
        self.ran = self.run(lease)
        return self.ran

    @property
    def _server(self) -> str:
        return f"Server '{self.permit.entry.spec.id}'"

    def _settle(self, error: GatewayError) -> None:
        if not self.over:
            self.over = True
            self.fail(error)

    def abandon(self) -> None:
        """The caller is gone: stop waiting."""
        self.over = True
        if self.waiting is not None:
            self.waiting.cancel()
