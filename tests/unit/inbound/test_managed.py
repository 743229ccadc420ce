"""What is left of a request to a management route once it was answered: nothing."""

from __future__ import annotations

import gc
import logging
import weakref
from collections.abc import Iterator

import anyio
import pytest
from anyio import to_thread

from open_mcp_gateway.access.permit import Clearance
from open_mcp_gateway.auth.identify import anonymous
from open_mcp_gateway.auth.principal import Permission
from open_mcp_gateway.catalog.model import Snapshot
from open_mcp_gateway.errors import Conflict, NotFound
from open_mcp_gateway.inbound.arrival import Arrival
from open_mcp_gateway.inbound.handlers import Handler, OnRequest, Request
from open_mcp_gateway.inbound.managed import Managed
from open_mcp_gateway.inbound.refusal import refusal
from open_mcp_gateway.inbound.routes import Match, Route
from open_mcp_gateway.pipeline.reply import Reply
from tests.unit.pipeline.exchanges import Caller

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _nothing_else_keeps_or_collects() -> Iterator[None]:
    logging.disable(logging.ERROR)  # pytest keeps what is logged, with its traceback
    gc.collect()
    gc.disable()
    yield
    gc.enable()
    logging.disable(logging.NOTSET)


class _Body:
    """Something that can be watched, in place of the body of a request."""


class _Refusing:
    """Refuses in a thread, as whatever is decided inside a transaction."""

    def __init__(self, kind: type[Exception]) -> None:
        self.kind = kind
        self.bodies: list[weakref.ref[_Body]] = []

    async def run(self, _: Clearance, _request: Request) -> Reply:
        body = _Body()
        self.bodies.append(weakref.ref(body))

        def work() -> Reply:
            try:
                raise KeyError(body)
            except KeyError:
                raise self.kind("no") from None

        return await to_thread.run_sync(work)


@pytest.mark.parametrize("kind", [Conflict, NotFound, ZeroDivisionError])
async def test_a_request_that_was_refused_is_not_kept(kind: type[Exception]) -> None:
    refusing = _Refusing(kind)
    handler: Handler = OnRequest(refusing.run)
    route = Route(methods=("POST",), path="/x", permission=Permission.STATS_READ, handler=handler)
    arrival, caller = Arrival(b"POST", b"/x", [], "127.0.0.1:1"), Caller()
    async with anyio.create_task_group() as tasks:
        managed = Managed(tasks, Snapshot, lambda one, error: refusal(error, one.request_id))
        managed.serve(arrival, anonymous(), Match(route), b"", caller)
    await to_thread.run_sync(int)  # by the same thread, which is done with the first by then
    assert [body() for body in refusing.bodies] == [None]
