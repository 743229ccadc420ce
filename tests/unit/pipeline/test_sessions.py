"""The registry of sessions, the streams of one, and the sinks they are answered through."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import anyio
import pytest
from msgspec.structs import replace

from open_mcp_gateway.access.authorize import authorize_by_id
from open_mcp_gateway.access.permit import Permit
from open_mcp_gateway.auth.principal import Permission, Principal
from open_mcp_gateway.errors import Busy, InvalidParams, NotFound
from open_mcp_gateway.names import KeyId
from open_mcp_gateway.outbound.peer import Manner
from open_mcp_gateway.pipeline import backlog, sessions
from open_mcp_gateway.pipeline.backlog import Backlog
from open_mcp_gateway.pipeline.channel_sink import ChannelSink
from open_mcp_gateway.pipeline.errand import Means
from open_mcp_gateway.pipeline.sessions import HttpSession, Sessions
from open_mcp_gateway.pipeline.sink import DeferredSink, Waiting
from tests.unit.pipeline.clients import Asked, OwnerDesk, call, channel_of
from tests.unit.supervisor.memory import principal, snapshot_of, spec
from tests.unit.supervisor.virtual_time import LoopClock

pytestmark = pytest.mark.anyio

OTHER = replace(principal(), key_id=KeyId("other"))


class Wire:
    """An outlet that keeps what it is given."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.closed = False
        self.up = True

    def send(self, chunk: bytes) -> bool:
        self.chunks.append(chunk)
        return self.up

    def close(self) -> None:
        self.closed = True


@asynccontextmanager
async def registry() -> AsyncIterator[Sessions]:
    async with anyio.create_task_group() as tasks:
        desk = OwnerDesk()
        yield Sessions(Means(desk, tasks, LoopClock(), request_timeout_s=30, max_request_s=600))


def permit(server_id: str = "a", who: Principal | None = None) -> Permit:
    snapshot = snapshot_of(spec("a"), spec("b"))
    return authorize_by_id(who or principal(), Permission.MCP_CALL, snapshot, server_id)


def opened(place: Sessions) -> HttpSession:
    session = place.open(permit())
    place.register(session)
    return session


async def test_whose_it_is() -> None:
    async with registry() as place:
        session = place.open(permit())
        with pytest.raises(NotFound):
            place.find(permit(), session.session_id)
        place.register(session)
        fresh = permit()
        assert place.find(fresh, session.session_id) is session
        assert session.core.permit is fresh
        for where, session_id in (
            (permit(who=OTHER), session.session_id),
            (permit("b"), session.session_id),
            (permit(), "x"),
        ):
            with pytest.raises(NotFound):
                place.find(where, session_id)
        place.end(session)
        place.end(session)
        place.register(session)  # too late
        with pytest.raises(NotFound):
            place.find(permit(), session.session_id)


async def test_who_may_do_less_than_when_it_was_opened_has_no_session() -> None:
    less = replace(principal(), permissions=frozenset({Permission.MCP_CALL}))
    async with registry() as place:
        session = place.open(permit(who=less))
        place.register(session)
        more = permit()
        assert place.find(more, session.session_id) is session
        assert session.core.permit is more
        with pytest.raises(NotFound):
            place.find(permit(who=less), session.session_id)
        assert session.core.permit is more


async def test_how_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MAX_SESSIONS_PER_KEY", 2)
    async with registry() as place:
        first, _ = (place.open(permit()) for _ in range(2))
        with pytest.raises(Busy):
            place.open(permit())
        other = place.open(permit(who=OTHER))
        place.end(first)
        place.end(other)
        place.open(permit())


def is_open(session: HttpSession) -> bool:
    return not session.core.closed


async def test_those_that_nobody_uses_make_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "MAX_SESSIONS_PER_KEY", 3)
    async with registry() as place:
        others = place.open(permit(who=OTHER))
        place.register(others)
        read, oldest, newer = (opened(place) for _ in range(3))
        wire = Wire()
        read.standalone.attach(wire)
        await anyio.sleep(1)
        newer.core.notification(call("notifications/initialized", None))
        opened(place)
        assert not is_open(oldest)
        with pytest.raises(NotFound):
            place.find(permit(), oldest.session_id)
        assert is_open(read)
        assert is_open(newer)
        assert is_open(others)
        opened(place)
        assert not is_open(newer)
        place.open(permit())  # still being opened: not to be ended
        place.open(permit())
        with pytest.raises(Busy):
            place.open(permit())
        read.drop_reader(read.standalone, wire)
        place.open(permit())
        assert not is_open(read)


async def test_idle_ones_end() -> None:
    async with registry() as place:
        idle, reading = opened(place), opened(place)
        wire = Wire()
        reading.standalone.attach(wire)
        await anyio.sleep(sessions.IDLE_S + 1)
        place.sweep()
        assert idle.core.closed
        reading.drop_reader(reading.standalone, wire)
        place.sweep()
        assert not reading.core.closed  # it was used until now
        await anyio.sleep(sessions.IDLE_S + 1)
        place.sweep()
        assert reading.core.closed


async def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    async with registry() as place:
        session = opened(place)
        stream = session.standalone
        for _ in range(10):
            stream = session.new_stream()
            stream.send(b"x" * (sessions.MAX_ENDED_BYTES // 2))
            stream.end()
        assert session.kept_bytes < sessions.MAX_ENDED_BYTES * 2
        assert session.stream(stream.stream_id) is stream
        await anyio.sleep(1)
        place.sweep()
        assert session.stream(stream.stream_id) is stream
        await anyio.sleep(sessions.ENDED_S + 1)
        place.sweep()
        assert session.stream(stream.stream_id) is None
        assert session.stream(0) is session.standalone
        running = session.new_stream()
        last = session.new_stream()
        last.send(b"x")
        last.end()
        monkeypatch.setattr(sessions, "MAX_KEPT_BYTES", 0)
        place.sweep()
        assert session.stream(last.stream_id) is None
        assert session.stream(running.stream_id) is running


def is_read(session: HttpSession) -> bool:
    return session.connected


async def test_readers_take_over_and_leave() -> None:
    async with registry() as place:
        session = opened(place)
        first, second = Wire(), Wire()
        log = session.standalone
        log.attach(first)
        session.core.open_channel(log.send)
        log.attach(second)
        session.drop_reader(log, first)
        assert is_read(session)
        assert session.core.channel == log.send
        second.up = False
        log.send(b"1")  # noticed before the connection was
        assert not is_read(session)
        session.drop_reader(log, second)
        assert session.core.channel != log.send
        other = session.new_stream()
        session.drop_reader(other, second)


async def test_the_end_of_reading_and_of_all() -> None:
    async with registry() as place:
        one, two = opened(place), opened(place)
        wires = [Wire() for _ in range(3)]
        one.standalone.attach(wires[0])
        one.new_stream().attach(wires[1])
        two.new_stream().attach(wires[2])
        place.end_reading()
        assert [wire.closed for wire in wires] == [True, False, False]
        place.end_if(lambda session: session is one)
        assert [wire.closed for wire in wires] == [True, True, False]
        assert not two.core.closed


def test_a_backlog_is_bounded() -> None:
    kept = Backlog()
    for number in range(backlog.MAX_MESSAGES + 5):
        kept.add(b"%d" % number)
    assert kept.take()[0] == b"5"
    assert kept.take() == []
    kept.add(b"small")
    kept.add(b"x" * (backlog.MAX_BYTES + 1))
    assert [len(one) for one in kept.take()] == [backlog.MAX_BYTES + 1]


async def test_a_channel_takes_everything() -> None:
    async with registry() as place:
        session = opened(place).core
        session.manner = Manner(capabilities=b'{"elicitation":{}}', owner="s")
        came = channel_of(session)
        assert session.channel is not None
        sink = ChannelSink(session, session.channel, "r")
        sink.message(b"1")
        question = Asked()
        sink.asked(question)
        sink.answer(b"2")
        sink.fail(InvalidParams("no"))
        assert came[0] == 1
        assert came[1]["method"] == "elicitation/create"
        assert came[2] == 2
        assert came[3]["error"]["code"] == -32602
        session.close()
        assert len(question.refusals) == 1


def test_stateless_sinks_ask_nothing_and_can_be_dropped() -> None:
    class Responder:
        def __init__(self) -> None:
            self.streams: list[Wire] = []

        def respond(self, reply: object) -> None:
            raise AssertionError(reply)

        def open_stream(self, headers: object = ()) -> Wire:
            assert headers == ()
            self.streams.append(Wire())
            return self.streams[-1]

    responder, question = Responder(), Asked()
    sink = DeferredSink(responder, "r")
    sink.asked(question)
    sink.hold_open()
    sink.hold_open()
    sink.dropped()
    assert len(question.refusals) == 1
    (stream,) = responder.streams
    assert stream.closed
    for method in (Waiting().dropped, Waiting().hold_open):
        with pytest.raises(NotImplementedError):
            method()
