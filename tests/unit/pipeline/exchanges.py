"""What an exchange stands between, moved by hand: a caller, a fleet, a lease, a peer."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
from anyio.abc import TaskGroup
from msgspec import UNSET

from open_mcp_gateway.access.permit import Permit
from open_mcp_gateway.auth.principal import Holder
from open_mcp_gateway.catalog.model import Isolation, Snapshot
from open_mcp_gateway.errors import GatewayError
from open_mcp_gateway.outbound.peer import ANY_MANNER, Audience, Handshake, Manner, Waiter
from open_mcp_gateway.pipeline.errand import Errand, Means
from open_mcp_gateway.pipeline.forward import Forwarder
from open_mcp_gateway.pipeline.reply import Headers, Outlet, Reply
from open_mcp_gateway.protocol.eras import LATEST_LEGACY, Era
from open_mcp_gateway.protocol.jsonrpc import Call, Incoming
from open_mcp_gateway.protocol.mirrored import Fields
from tests.unit.supervisor.memory import principal, snapshot_of, spec
from tests.unit.supervisor.virtual_time import LoopClock

HANDSHAKE = Handshake(era=Era.LEGACY, version=LATEST_LEGACY, result=b"{}")


class Caller:
    """A Responder that keeps what it is told."""

    def __init__(self) -> None:
        self.replies: list[Reply] = []
        self.told = anyio.Event()

    def respond(self, reply: Reply) -> None:
        self.replies.append(reply)
        self.told.set()

    def open_stream(self, headers: Headers = ()) -> Outlet:
        raise AssertionError(headers)  # the envelope gives one body and nothing before it

    @property
    def reply(self) -> Reply:
        (only,) = self.replies
        return only

    @property
    def error(self) -> dict[str, Any]:
        """The JSON-RPC error in the only reply."""
        message: dict[str, Any] = json.loads(self.reply.body)
        return {"id": message["id"], **message["error"]}


class HandPeer:
    """Takes calls; answers, fails and refuses them when told to."""

    def __init__(self, handshake: Handshake = HANDSHAKE) -> None:
        self.handshake = handshake
        self.pid: int | None = None
        self.audience: Audience | None = None
        self.waiters: list[Waiter] = []
        self.cancelled: list[str] = []
        self.calls: list[tuple[Permit, Call]] = []
        self.deadlines: list[float] = []
        self.extended: list[float] = []
        self.refusal: Exception | None = None
        self.given_up: set[str] = set()
        """Whose calls the server may still be at work on."""

    @property
    def inflight(self) -> int:
        return len(self.waiters)

    def given_up_by_others(self, whose: str) -> bool:
        return bool(self.given_up - {whose})

    def call(self, permit: Permit, call: Call, waiter: Waiter, *, deadline_s: float) -> HandPeer:
        if self.refusal is not None:
            raise self.refusal
        self.calls.append((permit, call))
        self.deadlines.append(deadline_s)
        self.waiters.append(waiter)
        return self

    def cancel(self, reason: str) -> None:
        """Every call is its own ticket here: one call at a time."""
        self.cancelled.append(reason)

    def extend(self, deadline_s: float) -> None:
        self.extended.append(deadline_s)

    def notify(self, permit: Permit, call: Call) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.calls.append((permit, call))

    def attend(self, audience: Audience) -> None:
        self.audience = audience

    def mirrored(self, tool: str) -> Fields | None:
        raise AssertionError(tool)

    def wait_for_tools(self, then: Callable[[], None]) -> bool:
        raise AssertionError(then)

    async def probe(self) -> None: ...

    def on_lost(self, callback: Callable[[GatewayError], None]) -> None: ...

    async def aclose(self) -> None: ...


class HandQuestion:
    """A server that wants to know something, and keeps what it is told."""

    raw_id = b"1"
    method = "sampling/createMessage"
    params = UNSET

    def __init__(self) -> None:
        self.refusals: list[tuple[int, str]] = []

    def answer(self, incoming: Incoming) -> None:
        raise AssertionError(incoming)

    def refuse(self, code: int, text: str) -> None:
        self.refusals.append((code, text))


class HandLease:
    """Keeps account: what began, and how it ended."""

    def __init__(self, peer: HandPeer | None = None) -> None:
        self.peer = peer or HandPeer()
        self.serving = True
        self.begun = 0
        self.failures: list[bool] = []

    def began(self, holder: Holder) -> None:  # noqa: ARG002
        self.begun += 1

    def ended(
        self,
        holder: Holder,  # noqa: ARG002
        *,
        failed: bool,
        cause: str | None = None,  # noqa: ARG002
    ) -> None:
        self.failures.append(failed)
        assert len(self.failures) <= self.begun


class Desk:
    """Hands out leases: at once if ``running``, else from ``coming`` once it is let go on."""

    def __init__(self, running: HandLease | None = None) -> None:
        self._running = running
        self.coming: deque[HandLease | Exception] = deque()
        self.go_on = anyio.Event()
        self.asked = 0
        self.manners: list[Manner] = []
        """Of all that was asked for, running or not."""

    @property
    def running(self) -> HandLease | None:
        return self._running

    @running.setter
    def running(self, lease: HandLease | None) -> None:
        if self._running is not None:
            self._running.serving = False
        self._running = lease

    def isolation(self, permit: Permit) -> Isolation:
        return permit.entry.spec.isolation or Isolation.SHARED

    def lease(self, permit: Permit, manner: Manner = ANY_MANNER) -> HandLease | None:  # noqa: ARG002
        self.manners.append(manner)
        return self.running

    async def ready(self, permit: Permit, manner: Manner = ANY_MANNER) -> HandLease:  # noqa: ARG002
        self.manners.append(manner)
        self.asked += 1
        await self.go_on.wait()
        found = self.coming.popleft()
        if isinstance(found, Exception):
            raise found
        return found

    def release(self, permit: Permit, manner: Manner) -> None:
        raise AssertionError(permit, manner)  # only sessions own what they could give back


class Counter:
    """A forwarder with what it needs, and the way callers use it."""

    def __init__(self, desk: Desk, tasks: TaskGroup, snapshot: Snapshot) -> None:
        self.desk = desk
        self.tasks = tasks
        self.means = Means(desk, tasks, LoopClock(), request_timeout_s=30, max_request_s=600)
        self.forwarder = Forwarder(self.means, snapshot)

    def send(self, call: Call | None = None, server_id: str = "a") -> tuple[Caller, Errand | None]:
        caller = Caller()
        exchange = self.forwarder.forward(
            principal(),
            server_id,
            call or Call("tools/call", b'"i"', {}),
            request_id="r-1",
            responder=caller,
        )
        return caller, exchange


@asynccontextmanager
async def counter(
    running: HandLease | None = None, snapshot: Snapshot | None = None
) -> AsyncIterator[Counter]:
    async with anyio.create_task_group() as tasks:
        yield Counter(Desk(running), tasks, snapshot or snapshot_of(spec("a")))
