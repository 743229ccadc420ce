"""What holds for a request holds for those like it, and for no others."""

from __future__ import annotations

import gc
import json
import tracemalloc
from collections.abc import Callable
from typing import Any, Final

import anyio
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from open_mcp_gateway.access.authorize import authorize_by_id
from open_mcp_gateway.auth.principal import Permission
from open_mcp_gateway.errors import GatewayError
from open_mcp_gateway.pipeline.errand import Means
from open_mcp_gateway.pipeline.modern import ModernFace
from open_mcp_gateway.pipeline.precedent import MAX_BYTES, Precedent, precedent
from open_mcp_gateway.pipeline.states import StateSeal
from open_mcp_gateway.protocol.jsonrpc import Call, encode_params
from open_mcp_gateway.protocol.messages import Message, call_of, decode_message
from open_mcp_gateway.protocol.routing import Routing, routing_of
from tests.unit.pipeline.clients import OwnerDesk, ToolPeer
from tests.unit.pipeline.exchanges import HandLease
from tests.unit.supervisor.memory import principal, snapshot_of, spec
from tests.unit.supervisor.virtual_time import LoopClock

META: Final[dict[str, object]] = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}
PERMIT: Final = authorize_by_id(principal(), Permission.MCP_CALL, snapshot_of(spec("a")), "a")


def head(method: str, name: str | None = None) -> Routing:
    lines = [(b"mcp-protocol-version", b"2026-07-28"), (b"mcp-method", method.encode())]
    return routing_of(lines if name is None else [*lines, (b"mcp-name", name.encode())])


def message(members: dict[str, Any]) -> Message:
    return decode_message(json.dumps(members, separators=(",", ":")).encode())


def request(method: str = "tools/call", **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": {**params, "_meta": META}}


CALL: Final = request(name="echo", arguments={"text": "a"})


@pytest.fixture(scope="module")
def face() -> ModernFace:
    """Which only checks here, so that its task group may be closed."""

    async def made() -> ModernFace:
        clock, desk = LoopClock(), OwnerDesk(HandLease(ToolPeer()))
        async with anyio.create_task_group() as tasks:
            means = Means(desk, tasks, clock, request_timeout_s=30, max_request_s=600)
        return ModernFace(means, StateSeal(clock))

    return anyio.run(made)


def first(face: ModernFace, members: dict[str, Any], sent: Routing) -> Precedent | None:
    read = message(members)
    return precedent(read, face.check(PERMIT, call_of(read), sent))


def told(call: Call) -> tuple[object, ...]:
    """All that there is in a call, as bytes."""
    raws = (call.progress_token, call.log_level)
    texts = [None if raw is None else bytes(raw) for raw in raws]
    return call.method, call.id, encode_params(call.params), call.capabilities, *texts


NAMES: Final = st.sampled_from(
    ["name", "arguments", "uri", "requestState", "RequestState", "_META", "x", "task", "cursor"]
)
VALUES: Final = st.sampled_from(["echo", "add", {"text": "b"}, 1, None, "e\u0301"])
METAS: Final[st.SearchStrategy[object]] = st.sampled_from(
    [
        META,
        {**META, "io.modelcontextprotocol/protocolVersion": "2025-11-25"},
        {**META, "io.modelcontextprotocol/logLevel": "debug"},
        {**META, "io.modelcontextprotocol/related-task": {"taskId": "t"}},
        {**META, "progressToken": 7, "vendor": [1]},
        {},
        [],
        None,
    ]
)
METHODS: Final = st.sampled_from(["tools/call", "tools/list", "tasks/get", "ping", "x", 1, ""])
IDS: Final = st.sampled_from([1, 22, "a", "", 1.5, None, True, -3])


@example(changes={}, gone=set(), params={"name": "add"}, without=set(), meta=META, reverse=False)
@example(changes={"id": 1.5}, gone=set(), params={}, without=set(), meta=META, reverse=False)
@example(changes={}, gone={"id"}, params={}, without=set(), meta=META, reverse=False)
@example(changes={}, gone=set(), params={}, without=set(), meta={}, reverse=False)
@given(
    changes=st.fixed_dictionaries(
        {}, optional={"id": IDS, "method": METHODS, "jsonrpc": st.sampled_from(["2.0", "1.0", 2])}
    ),
    gone=st.sets(st.sampled_from(["id", "jsonrpc", "params"]), max_size=1),
    params=st.dictionaries(NAMES, VALUES, max_size=3),
    without=st.sets(st.sampled_from(["name", "arguments", "_meta"]), max_size=1),
    meta=METAS,
    reverse=st.booleans(),
)
def test_what_it_lets_pass_is_what_would_have_passed(
    face: ModernFace,
    changes: dict[str, object],
    gone: set[str],
    params: dict[str, object],
    without: set[str],
    meta: object,
    reverse: bool,
) -> None:
    sent = head("tools/call", "echo")
    before = first(face, CALL, sent)
    assert before is not None
    given = {"name": "echo", "arguments": {"text": "b"}, "_meta": meta, **params}
    given = {name: value for name, value in given.items() if name not in without}
    if reverse:
        given = dict(reversed(given.items()))
    members: dict[str, object] = {**CALL, "params": given, **changes}
    members = {name: value for name, value in members.items() if name not in gone}
    expected = outcome(lambda: face.check(PERMIT, call_of(message(members)), sent))
    passed = outcome(lambda: before.followed_by(message(members)))
    assert passed in (None, expected)


def outcome(checked: Callable[[], Call | None]) -> object:
    """All that there is in a call, as bytes; or what is wrong with it."""
    try:
        call = checked()
    except GatewayError as error:
        return error.public
    return None if call is None else told(call)


def test_requests_that_differ_in_id_and_arguments_alone_are_alike(face: ModernFace) -> None:
    meta = {**META, "progressToken": "p", "vendor": 1, "io.modelcontextprotocol/logLevel": "info"}
    sent = head("tools/call", "echo")
    before = first(face, CALL | {"params": {**CALL["params"], "_meta": meta}}, sent)
    assert before is not None
    after = {**CALL, "id": "b", "params": {"name": "echo", "arguments": [2], "_meta": meta}}
    passed = before.followed_by(message(after))
    assert passed is not None
    assert told(passed) == told(face.check(PERMIT, call_of(message(after)), sent))
    assert passed.params is not None
    assert bytes(passed.params["_meta"]) == b'{"vendor":1}'


def test_what_names_nothing_is_a_precedent_too(face: ModernFace) -> None:
    discovery = request("server/discover")
    before = first(face, discovery, head("server/discover"))
    assert before is not None
    passed = before.followed_by(message({**discovery, "id": 2}))
    assert passed is not None
    assert (passed.method, passed.id, passed.params) == ("server/discover", b"2", {})


@pytest.mark.parametrize(
    "members",
    [
        request("tools/list"),  # the next may have a cursor of somebody else
        request(name="echo", arguments={}, x=1),
        request(name="echo", arguments={"text": "a"} | dict.fromkeys("ab", 1), Task=1),
    ],
)
def test_what_depends_on_more_is_none(face: ModernFace, members: dict[str, Any]) -> None:
    name = members["params"].get("name")
    assert first(face, members, head(members["method"], name)) is None


def test_little_is_kept(face: ModernFace) -> None:
    meta = {**META, "vendor": "x" * MAX_BYTES}
    long = CALL | {"params": {**CALL["params"], "_meta": meta}}
    assert first(face, long, head("tools/call", "echo")) is None


def test_the_body_of_a_precedent_is_not_kept(face: ModernFace) -> None:
    size = 1_000_000
    members = CALL | {"params": {**CALL["params"], "arguments": {"text": "x" * size}}}
    tracemalloc.start()
    try:
        kept = first(face, members, head("tools/call", "echo"))
        gc.collect()
        assert kept is not None
        assert tracemalloc.get_traced_memory()[0] < size / 2
    finally:
        tracemalloc.stop()
