"""Requests to the management routes: each a task, and those that wait for a server can be ended."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import partial

import anyio
from anyio.abc import TaskGroup

from open_mcp_gateway.access.authorize import authorize_by_id, require
from open_mcp_gateway.access.permit import Permit
from open_mcp_gateway.auth.principal import Permission, Principal
from open_mcp_gateway.catalog.model import Snapshot
from open_mcp_gateway.errors import Draining, GatewayError, InternalError
from open_mcp_gateway.inbound.arrival import Arrival
from open_mcp_gateway.inbound.handlers import (
    Handler,
    OnCaller,
    OnGateway,
    OnRequest,
    OnServer,
    Request,
    check_body,
)
from open_mcp_gateway.inbound.routes import AnyKey, Match
from open_mcp_gateway.pipeline.reply import Reply, Responder

log = logging.getLogger(__name__)


class Managed:
    """Runs handlers with the proof that each demands. ``refuse`` makes answers of failures."""

    def __init__(
        self,
        tasks: TaskGroup,
        catalog: Callable[[], Snapshot],
        refuse: Callable[[Arrival, GatewayError], Reply],
    ) -> None:
        self._tasks = tasks
        self._catalog = catalog
        self._refuse = refuse
        self._waiting: set[_Waiting] = set()

    def serve(
        self,
        arrival: Arrival,
        principal: Principal,
        match: Match[Handler],
        body: bytes,
        responder: Responder,
    ) -> None:
        """Serve one request; ``responder`` hears of the outcome later.

        Raises:
            GatewayError: it may not be served; no answer was given yet.
        """
        route, permit = match.route, None
        permission, handler = route.permission, route.handler
        work: Callable[[], Awaitable[Reply]] | None = None
        if isinstance(permission, Permission):
            if isinstance(handler, OnGateway):
                work = partial(handler.run, require(principal, permission), arrival.query)
            elif isinstance(handler, OnRequest):
                try:
                    clearance = require(principal, permission)
                except GatewayError:
                    check_body(arrival, body)
                    raise
                work = partial(handler.run, clearance, _request(arrival, match, body))
            elif isinstance(handler, OnServer) and match.ref is not None:
                permit = authorize_by_id(principal, permission, self._catalog(), match.ref)
                work = partial(handler.run, permit)
        elif isinstance(permission, AnyKey) and isinstance(handler, OnCaller):
            work = partial(handler.run, principal, _request(arrival, match, body))
        if work is None:
            raise InternalError(f"route {route.path} is wired wrongly")
        waiting = _Waiting(permit)
        self._waiting.add(waiting)
        self._tasks.start_soon(self._run, arrival, work, waiting, responder)

    def end_if(self, loss: Callable[[Permit], GatewayError | None]) -> None:
        """End what waits for a server where ``loss`` says why its caller may not hear of it.

        Nothing else is ended: it is soon over, decides anew before it changes anything, and may be
        the very request whose change is being put in force.
        """
        for waiting in self._waiting:
            if waiting.permit is not None and waiting.error is None:
                waiting.error = loss(waiting.permit)
                if waiting.error is not None:
                    waiting.scope.cancel()

    async def _run(
        self,
        arrival: Arrival,
        work: Callable[[], Awaitable[Reply]],
        waiting: _Waiting,
        responder: Responder,
    ) -> None:
        # What is answered when this is cancelled: the gateway has stopped waiting for requests.
        reply = self._refuse(arrival, Draining("the gateway is shutting down", retry_after_s=1))
        try:
            with waiting.scope:
                if waiting.error is None:
                    reply = await work()
        except GatewayError as error:
            reply = self._refuse(arrival, error)
            _let_go(error)
        except Exception as error:
            log.exception("request failed", extra={"request_id": arrival.request_id})
            reply = self._refuse(arrival, InternalError("internal error"))
            _let_go(error)
        finally:
            self._waiting.discard(waiting)
            if waiting.error is not None:
                reply = self._refuse(arrival, waiting.error)
            responder.respond(reply)


class _Waiting:
    """A request that is being served."""

    __slots__ = ("error", "permit", "scope")

    def __init__(self, permit: Permit | None) -> None:
        self.permit = permit
        self.scope = anyio.CancelScope()
        self.error: GatewayError | None = None
        """Why it has been ended."""


def _let_go(error: BaseException) -> None:
    """Have ``error`` and those it came of forget where they were raised.

    An error of a worker thread is held by a future, which is held by the frames in the traceback of
    the error. Only the collector ends that, and it comes so rarely that the bodies of refused
    requests, which those frames hold too, would fill the memory.
    """
    last: BaseException | None = error
    while last is not None:
        last.__traceback__ = None
        last = last.__context__


def _request(arrival: Arrival, match: Match[Handler], body: bytes) -> Request:
    return Request(match.ref or "", arrival.query, body, arrival)
