"""Event streams to clients: when they begin, what keeps them alive, how they are picked up again,
and what ends them, over sockets."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

import anyio
import msgspec
import pytest

from open_mcp_gateway.access.policy import platform_admin
from open_mcp_gateway.auth.apikeys import digest_of
from open_mcp_gateway.catalog.diff import Changes
from open_mcp_gateway.catalog.model import ServerSpec
from open_mcp_gateway.inbound import asgi, outlet
from open_mcp_gateway.names import KeyId, ServerId
from open_mcp_gateway.pipeline import modern, sessions, streamlog
from tests.wire.conftest import MakeClient
from tests.wire.faces import ALL, HOT, KEY, Face, face
from tests.wire.mcp_client import OTHER_KEY, TWO_KEYS, Client, Json, Reply, talker

TOKEN: Final = {"progressToken": "t"}
MEGABYTE: Final = 1024 * 1024


@pytest.fixture(scope="module", params=ALL)
def front(request: pytest.FixtureRequest) -> Iterator[Face]:
    with face(request.param, *both(), keys=TWO_KEYS) as running:
        yield running
        running.at_rest()
        running.inside(lambda: running.gateway.sessions.end_if(lambda _: True))


@pytest.fixture(scope="module", params=HOT)
def hot(request: pytest.FixtureRequest) -> Iterator[Face]:
    with face(request.param, *both(), keys=TWO_KEYS) as running:
        yield running
        running.at_rest()
        running.inside(lambda: running.gateway.sessions.end_if(lambda _: True))


def both() -> tuple[ServerSpec, ...]:
    return talker("legacy", "legacy"), talker("modern", "modern")


def held(one: Client, gate: str) -> Reply:
    """A call that has made progress once and waits for its gate to be opened."""
    reply = one.call("gated_progress", gate=gate, meta=TOKEN)
    assert reply.next()["params"]["progress"] == 1
    return reply


def flood(one: Client, params: Json) -> None:
    """A notification for every session of the server, and not a small one."""
    method = "notifications/tools/list_changed"
    assert one.call("notify", method=method, params=params).text() == "sent"


def session_of(front: Face, one: Client) -> sessions.HttpSession:
    found = front.inside(lambda: front.gateway.sessions._sessions[str(one.session)])
    assert isinstance(found, sessions.HttpSession)
    return found


# ── body or stream ───────────────────────────────────────────────────────────────────────────────


def test_an_answer_that_comes_first_is_a_body(front: Face, client: MakeClient) -> None:
    one, two = client(front, "legacy").initialize(), client(front, "modern")
    for reply in (one.call("progress", steps=2), two.tool("progress", steps=2)):
        assert (reply.status, reply.is_stream) == (200, False)
        assert reply.text() == "done"


def test_what_comes_before_the_answer_makes_a_stream(front: Face, client: MakeClient) -> None:
    one, two = client(front, "legacy").initialize(), client(front, "modern")
    for reply in (one.call("progress", meta=TOKEN), two.tool("progress", meta=TOKEN)):
        assert reply.is_stream
        assert reply.headers["x-accel-buffering"] == "no"
        assert "content-length" not in reply.headers
        *progress, answer = reply.messages()
        assert [message["params"]["progress"] for message in progress] == [1, 2, 3]
        assert {message["params"]["progressToken"] for message in progress} == {"t"}
        assert answer["result"]["content"][0]["text"] == "done"


@pytest.mark.parametrize("token", ["", "t", 0, -5, 2**60])
def test_progress_tokens_keep_their_type(front: Face, client: MakeClient, token: object) -> None:
    one, two = client(front, "legacy").initialize(), client(front, "modern")
    meta = {"progressToken": token}
    for reply in (one.call("progress", meta=meta), two.tool("progress", meta=meta)):
        got = reply.next()["params"]["progressToken"]
        assert got == token
        assert type(got) is type(token)


@pytest.mark.parametrize(
    ("version", "primed"), [("2025-11-25", True), ("2025-06-18", False), ("2024-11-05", False)]
)
def test_only_new_clients_get_an_event_without_data(
    front: Face, client: MakeClient, version: str, primed: bool
) -> None:
    one = client(front, "legacy").initialize(version)
    events = list(one.call("progress", meta=TOKEN, steps=1).events())
    assert [bool(event.data) for event in events] == [False] * primed + [True, True]
    ids = [event.id for event in events]
    assert len({*ids}) == len(ids)
    assert None not in ids


def test_stateless_streams_have_no_ids(front: Face, client: MakeClient) -> None:
    events = list(client(front, "modern").tool("progress", meta=TOKEN).events())
    assert {(event.id, bool(event.data)) for event in events} == {(None, True)}


def test_a_long_silence_becomes_a_stream(
    front: Face, client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    new, old = (
        client(front, "legacy").initialize(),
        client(front, "legacy").initialize("2025-06-18"),
    )
    stateless = client(front, "modern")
    waiting = [
        new.call("gated_progress", gate="long"),
        old.call("gated_progress", gate="long"),
        stateless.tool("gated_progress", gate="long"),
    ]
    front.until(lambda: front.used("legacy")[1] == 2 and front.used("modern")[1] == 1)
    front.inside(front.gateway.sweep)
    assert all(reply.is_silent(0.05) for reply in waiting)
    for module in (sessions, modern):
        monkeypatch.setattr(module, "HOLD_OPEN_S", -1.0)
    front.inside(front.gateway.sweep)
    front.inside(front.gateway.sweep)
    assert all(reply.is_stream for reply in waiting)
    for one in (new, old):
        one.call("open", gate="long")
    stateless.tool("open", gate="long")
    events = [list(reply.events()) for reply in waiting]
    assert [[bool(event.data) for event in each] for each in events] == [
        [False, True],
        [True],
        [True],
    ]
    assert all(each[-1].message["result"]["content"][0]["text"] == "long" for each in events)


# ── alive, and not too slow ──────────────────────────────────────────────────────────────────────


def test_silent_streams_get_comments(hot: Face, client: MakeClient) -> None:
    one = client(hot, "legacy").initialize()
    stream, listen = one.listen(), client(hot, "modern").subscribe(toolsListChanged=True)
    assert stream.event() is not None  # an id to come back with
    later_s = hot.portal.call(now) + outlet.COMMENT_S
    for connection in hot.connections():
        hot.portal.call(connection.close_if_quiet, later_s)
    one.call("change_list")
    client(hot, "modern").tool("change_list")
    for reply in (stream, listen):
        assert reply.next()["method"] == "notifications/tools/list_changed"
        assert reply.comments == 1
        reply.leave()


@pytest.mark.parametrize("name", ["asgi-httptools", "asgi-h11"])
def test_silent_streams_get_comments_over_asgi(
    name: str, client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asgi, "COMMENT_S", 0.05)
    with face(name, *both()) as running:
        one = client(running, "legacy").initialize()
        stream = one.listen()
        assert stream.event() is not None
        assert stream.comment()
        assert stream.comment()
        one.call("change_list")
        assert stream.next()["method"] == "notifications/tools/list_changed"
        stream.leave()


async def now() -> float:
    return anyio.current_time()


def test_who_does_not_read_is_cut_off_and_may_come_back(hot: Face, client: MakeClient) -> None:
    one = client(hot, "legacy").initialize()
    stream = one.listen()
    first = stream.event()
    assert first is not None
    log = session_of(hot, one).standalone
    text = "x" * MEGABYTE
    sent = 0
    while hot.inside(lambda: log.connected):
        sent += 1
        assert sent < 40, "the gateway keeps it all"
        flood(one, {"n": sent, "x": text})
    assert hot.inside(lambda: log.size_bytes) <= streamlog.MAX_BYTES + 2 * MEGABYTE
    again = one.listen(first.id)
    messages = again.messages()
    while True:
        if next(messages)["params"]["n"] == sent:
            break
    again.leave()
    stream.leave()
    one.end()


def test_who_does_not_read_is_cut_off_and_its_call_ends(front: Face, client: MakeClient) -> None:
    one, uri = client(front, "modern"), "test://" + "x" * MEGABYTE
    running = front.gateway.modern._running
    deaf = one.subscribe(resourceSubscriptions=[uri])
    hears = one.subscribe(toolsListChanged=True)
    for _ in range(40):
        if front.inside(lambda: len(running)) == 1:
            break
        assert one.tool("touch", uri=uri).text() == "touched"
    front.until(lambda: front.inside(lambda: len(running)) == 1)
    one.tool("change_list")
    assert hears.next()["method"] == "notifications/tools/list_changed"
    for reply in (deaf, hears):
        reply.leave()
    front.at_rest()


def test_who_stops_reading_is_cut_off(hot: Face, client: MakeClient) -> None:
    one = client(hot, "legacy").initialize()
    stream = one.listen()
    stream.event()
    (reader,) = [c for c in hot.connections() if c.active is not None]
    unsent = reader.transport.get_write_buffer_size
    while hot.inside(unsent) <= outlet.STALLED_BYTES:
        flood(one, {"x": "x" * MEGABYTE})
    hot.portal.call(reader.close_if_quiet, hot.portal.call(now))
    # When it was last seen to take something, which may be before all that it was sent.
    assert reader.active is not None
    assert isinstance(reader.active.outlet, outlet.HotOutlet)
    taken_s = reader.active.outlet._taken_s
    hot.portal.call(reader.close_if_quiet, taken_s + outlet.STALLED_S - 1)
    assert not hot.inside(reader.transport.is_closing)
    hot.portal.call(reader.close_if_quiet, taken_s + outlet.STALLED_S + 1)
    assert hot.inside(reader.transport.is_closing)
    stream.leave()
    one.end()


# ── picked up again ──────────────────────────────────────────────────────────────────────────────


def test_a_broken_stream_is_picked_up_without_loss(front: Face, client: MakeClient) -> None:
    one = client(front, "legacy").initialize()
    first = one.call("gated_progress", id="r", gate="r", meta=TOKEN)
    primed, progress = first.event(), first.event()
    assert primed is not None
    assert progress is not None
    assert (primed.data, progress.message["params"]["progress"]) == (b"", 1)
    first.leave()
    assert one.call("open", gate="r").text() == "opened"
    replayed = [event.message for event in one.listen(progress.id).events() if event.data]
    assert [message.get("id") for message in replayed] == [None, "r"]
    assert replayed[0]["params"]["progress"] == 2
    again = [event.message for event in one.listen(primed.id).events() if event.data]
    assert [message.get("id") for message in again] == [None, None, "r"]


def test_whoever_comes_back_takes_over(front: Face, client: MakeClient) -> None:
    one = client(front, "legacy").initialize()
    first = one.call("gated_progress", id="o", gate="o", meta=TOKEN)
    last = None
    while last is None or not last.data:
        last = first.event()
        assert last is not None
    second = one.listen(last.id)
    assert second.event() is not None
    assert first.ended()
    first.leave()
    assert one.call("ping").error  # the gateway has looked at its connections since
    assert one.call("open", gate="o").text() == "opened"
    assert [message.get("id") for message in second.messages()] == [None, "o"]


def test_one_that_comes_back_is_not_cut_off_with_the_one_before(
    hot: Face, client: MakeClient
) -> None:
    """The old connection may be noticed to be dead long after the new one has begun."""
    one = client(hot, "legacy").initialize()
    first = held(one, "late")
    (reader,) = [c for c in hot.connections() if c.active is not None]
    session = session_of(hot, one)
    (log,) = [log for log in session._streams.values() if log.stream_id]
    turn = reader.active
    assert turn is not None
    exchange = turn.exchange
    assert exchange is not None
    second = one.listen(f"{log.stream_id}-1")
    assert second.event() is not None
    hot.inside(exchange.abandon)
    assert hot.inside(lambda: log.connected)
    one.call("open", gate="late")
    assert [message.get("id") for message in second.messages()][-1] is not None
    first.leave()


def test_leaving_is_no_cancellation_in_a_session(front: Face, client: MakeClient) -> None:
    one = client(front, "legacy").initialize(roots={})
    first, silent = held(one, "stay"), one.call("gated_progress", gate="stay")
    front.until(lambda: front.used("legacy")[1] >= 2)
    first.leave()
    silent.leave()
    assert one.call("open", gate="stay").text() == "opened"
    front.at_rest()
    assert "cancelled" not in str(one.ask("test/seen").result)
    one.end()


def test_leaving_is_a_cancellation_otherwise(front: Face, client: MakeClient) -> None:
    one = client(front, "modern")
    first = one.tool("gated_progress", gate="leave", meta=TOKEN)
    first.next()
    silent = one.tool("gated_progress", gate="leave")
    listen = one.subscribe(toolsListChanged=True)
    front.until(lambda: front.used("modern")[1] >= 3)
    for reply in (first, silent, listen):
        reply.leave()
    front.at_rest()
    seen = [m for m in one.modern("test/seen").result["seen"] if "cancelled" in m["method"]]
    assert [m["params"]["reason"] for m in seen[-3:]] == ["client disconnected"] * 3


def test_an_answer_nobody_took_is_not_kept_for_ever(
    hot: Face, client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = client(hot, "legacy").initialize()
    session = session_of(hot, one)
    for _ in range(40):
        list(one.call("progress", meta=TOKEN).events())
    assert len(session._streams) <= sessions.MAX_ENDED_STREAMS + 2
    monkeypatch.setattr(sessions, "ENDED_S", -1.0)
    hot.inside(hot.gateway.sweep)
    assert [*session._streams] == [0]
    reply = one.send(b"", *one.headers(), (b"Last-Event-ID", b"1-1"), method=b"GET")
    assert reply.status == 400


@pytest.mark.parametrize("last", [b"x", b"0", b"99-1", b"1-1-1", b"-1", b"\xb2-1", b"9" * 5000])
def test_ids_that_name_no_event(front: Face, client: MakeClient, last: bytes) -> None:
    one = client(front, "legacy").initialize()
    reply = one.send(b"", *one.headers(), (b"Last-Event-ID", last), method=b"GET")
    assert (reply.status, reply.error["code"]) == (400, -32600)


def test_an_event_that_was_never_sent_is_no_place_to_go_on_from(
    front: Face, client: MakeClient
) -> None:
    one, two = (client(front, "legacy").initialize() for _ in range(2))
    stream = one.listen()
    two.call("change_list")
    assert stream.next()["method"] == "notifications/tools/list_changed"
    ahead = one.send(b"", *one.headers(), (b"Last-Event-ID", b"0-2"), method=b"GET")
    assert ahead.status == 400
    assert ahead.error["code"] == -32600
    two.call("change_list", kind="prompts")  # whoever reads has not been taken over from
    assert stream.next()["method"] == "notifications/prompts/list_changed"
    again = one.listen("0-2")
    primed = again.event()
    assert primed is not None
    assert primed.id == "0-2"
    for each in (one, two):
        each.end()


# ── the stream of a session ──────────────────────────────────────────────────────────────────────


def test_each_session_hears_of_a_change_once(front: Face, client: MakeClient) -> None:
    one, two = (client(front, "legacy").initialize() for _ in range(2))
    streams = [one.listen(), two.listen()]
    busy = held(one, "once")
    assert two.call("change_list").text() == "changed"
    assert two.call("change_list", kind="prompts").text() == "changed"
    for stream in streams:
        messages = stream.messages()
        assert [next(messages)["method"] for _ in range(2)] == [
            "notifications/tools/list_changed",
            "notifications/prompts/list_changed",
        ]
    one.call("open", gate="once")
    assert [message.get("id") for message in busy.messages()][-1] == 1
    assert all(stream.is_silent(0.05) for stream in streams)
    for each in (one, two):
        each.end()


def test_what_nobody_reads_is_kept(front: Face, client: MakeClient) -> None:
    one, two = (client(front, "legacy").initialize() for _ in range(2))
    two.call("change_list")
    stream = one.listen()
    assert stream.next()["method"] == "notifications/tools/list_changed"
    last = one.listen()  # takes over
    assert stream.ended()
    two.call("change_list", kind="resources")
    assert last.next()["method"] == "notifications/resources/list_changed"
    for each in (one, two):
        each.end()


def test_a_stream_that_broke_is_gone_on_with(front: Face, client: MakeClient) -> None:
    one, two = (client(front, "legacy").initialize() for _ in range(2))
    stream = one.listen()
    first = stream.event()
    assert first is not None
    two.call("change_list")
    stream.leave()
    two.call("change_list", kind="prompts")
    again = one.listen(first.id).messages()
    assert [next(again)["method"] for _ in range(2)] == [
        "notifications/tools/list_changed",
        "notifications/prompts/list_changed",
    ]
    for each in (one, two):
        each.end()


# ── the end ──────────────────────────────────────────────────────────────────────────────────────


def test_everything_ends_with_the_key(client: MakeClient) -> None:
    with face("hot", *both(), keys=TWO_KEYS) as running:
        one = client(running, "legacy", key=OTHER_KEY).initialize()
        stays = client(running, "legacy", key=KEY).initialize()
        listen = client(running, "modern", key=OTHER_KEY).subscribe(toolsListChanged=True)
        kept = client(running, "modern", key=KEY).subscribe(toolsListChanged=True)
        silent = client(running, "modern", key=OTHER_KEY).tool("gated_progress", gate="x")
        begun, quiet = held(one, "x"), one.call("gated_progress", gate="x")
        stream, other = one.listen(), stays.listen()
        sse = client(running, "legacy", key=OTHER_KEY).send(
            b"", method=b"GET", path=b"/servers/legacy/sse"
        )
        assert sse.event() is not None
        running.until(lambda: running.used("legacy")[1] >= 2 and running.used("modern")[1] >= 3)
        keys = (platform_admin(digest_of(KEY), KeyId("test")),)
        config = msgspec.structs.replace(running.gateway.config, keys=keys)
        began_s = time.perf_counter()
        running.inside(lambda: running.gateway.apply(config, running.gateway.snapshot, Changes()))
        assert [event for event in stream.events() if event.data] == []
        assert sse.ended()
        assert begun.error["message"].startswith("The session has ended: Invalid API key; ")
        assert quiet.status == 404
        assert listen.error["message"] == "Invalid API key"  # has no effect to doubt
        assert silent.status == 403
        assert time.perf_counter() - began_s < 10  # calls are given 30 s
        assert one.ask("ping").status == 403
        stays.call("change_list")
        client(running, "modern", key=KEY).tool("change_list")
        assert other.next()["method"] == "notifications/tools/list_changed"
        assert kept.next()["method"] == "notifications/tools/list_changed"
        assert running.inside(lambda: len(running.gateway.sessions._sessions)) == 1
        kept.leave()
        other.leave()
        running.at_rest()
        assert ServerId("legacy") in running.gateway.snapshot.entries
