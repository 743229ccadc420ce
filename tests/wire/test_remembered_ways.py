"""What is remembered with the head of a post to an endpoint is forgotten the moment it is wrong.

Each client here sends one head, byte for byte, again and again on one connection.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest
from msgspec.structs import replace

from open_mcp_gateway.catalog.diff import diff
from open_mcp_gateway.catalog.model import Isolation, Snapshot
from open_mcp_gateway.names import ServerId
from open_mcp_gateway.pipeline.session import ClientSession
from tests.rawhttp import Answer, Wire, request
from tests.wire.conftest import MakeClient
from tests.wire.faces import HOT, JSON, Face, face, new_store
from tests.wire.mcp_client import ACCEPT, CAPABILITIES, MODERN, VERSION, Client, Header, Json
from tests.wire.stored_keys import PROD, Made, Office
from tests.wire.test_moved_servers import SHARED, move

LIST: Final = "tools/list"
CALL: Final = "tools/call"
RELATED: Final = "io.modelcontextprotocol/related-task"


@pytest.fixture(params=HOT)
def front(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Face]:
    with new_store(tmp_path) as store, face(request.param, *SHARED, store=store) as found:
        yield found
        found.at_rest()


@pytest.fixture
def office(front: Face) -> Office:
    found = Office(front.ask)
    found.tenant("acme", PROD)
    return found


@pytest.fixture
def key(office: Office) -> Made:
    return office.key("a", tenant="acme")


class Repeater:
    """Posts to one server by one head. What was asked for a few times is remembered."""

    def __init__(
        self,
        front: Face,
        wire: Wire,
        server_id: str,
        key: Made,
        *headers: Header,
        method: str = LIST,
        params: Json | None = None,
    ) -> None:
        self._front, self._wire = front, wire
        self._asked: Json = {"method": method, "params": params or {}}
        self._path = b"/servers/%b/mcp" % server_id.encode()
        self._headers = ((b"X-API-Key", key.secret), JSON, ACCEPT, *headers)
        self._number = 10

    def post(self, message: dict[str, Any], meanwhile: Callable[[], None] | None = None) -> Answer:
        """The answer; ``meanwhile`` happens when all but the end of the body is there."""
        # All bodies have the same length, or it would be another head.
        body = json.dumps({"jsonrpc": "2.0"} | message).encode().ljust(400)
        raw = request(self._path, *self._headers, method=b"POST", body=body)
        if meanwhile is not None:
            self._wire.send(raw[:-5])
            self._front.until(self._head_was_read)
            meanwhile()
            raw = raw[-5:]
        self._wire.send(raw)
        return self._wire.receive()

    def _head_was_read(self) -> bool:
        return any(one.intake.reading is not None for one in self._front.connections())

    def ask(self, meanwhile: Callable[[], None] | None = None) -> int:
        """The status of the answer to a request."""
        self._number += 1
        answer = self.post({"id": self._number} | self._asked, meanwhile)
        if answer.status == 200:
            assert json.loads(answer.body)["id"] == self._number
            assert "result" in json.loads(answer.body)
        return answer.status


def in_session(front: Face, wire: Wire, client: Client, key: Made) -> Repeater:
    assert client.session is not None
    session = (b"Mcp-Session-Id", client.session.encode())
    found = Repeater(front, wire, "legacy", key, session, (b"MCP-Protocol-Version", b"2025-11-25"))
    assert [found.ask() for _ in range(3)] == [200] * 3
    return found


STATELESS: Final = {"_meta": {VERSION: MODERN, CAPABILITIES: {}}}
Stateless: TypeAlias = Callable[[Wire], Repeater]
CALLED: Final = {"name": "echo", "arguments": {}, **STATELESS}
VERSION_LINE: Final = (b"MCP-Protocol-Version", MODERN.encode())


@pytest.fixture(params=[LIST, CALL])
def stateless(request: pytest.FixtureRequest, front: Face, key: Made) -> Stateless:
    """Of a method whose requests are each checked in full, or of one where others are measured by
    the first."""

    method: str = request.param

    def repeater(wire: Wire) -> Repeater:
        named: tuple[Header, ...]
        params: Json
        named, params = (), STATELESS
        if method == CALL:
            named, params = ((b"Mcp-Name", b"echo"),), CALLED
        headers = VERSION_LINE, (b"Mcp-Method", method.encode()), *named
        found = Repeater(front, wire, "modern", key, *headers, method=method, params=params)
        assert [found.ask() for _ in range(3)] == [200] * 3
        (connection,) = front.connections()
        assert connection.intake._known is not None
        kept = connection.intake._known.admitted.arrival.readings.values()
        (posts,) = [one.serve.__self__ for one in kept if hasattr(one, "serve")]
        assert (posts._precedent is not None) is (method == CALL)
        return found

    return repeater


@pytest.fixture
def wire(front: Face) -> Iterator[Wire]:
    with front.connect() as found:
        yield found


def core_of(front: Face, client: Client) -> ClientSession:
    assert client.session is not None
    return front.gateway.sessions._sessions[client.session].core


def apply(front: Face, after: Snapshot) -> None:
    gateway, before = front.gateway, front.gateway.snapshot
    front.inside(lambda: gateway.apply(gateway.config, after, diff(before, after)))


def redefine(front: Face, server_id: str, **changes: Any) -> None:
    """Reload the catalog with another definition of the server."""
    entries = front.gateway.snapshot.entries
    entry = entries[ServerId(server_id)]
    spec = replace(entry.spec, **changes)
    apply(front, Snapshot({**entries, spec.id: replace(entry, spec=spec, shown=spec)}))


def remove(front: Face, server_id: str) -> None:
    entries = front.gateway.snapshot.entries
    apply(front, Snapshot({name: one for name, one in entries.items() if name != server_id}))


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("change", [move, remove])
def test_a_server_that_is_out_of_reach_is_not_there(
    front: Face,
    wire: Wire,
    stateless: Stateless,
    change: Callable[[Face, str], None],
    *,
    late: bool,
) -> None:
    """Also where the head came before that, and only the body after it."""
    one = stateless(wire)
    if late:
        assert one.ask(lambda: change(front, "modern")) == 404
    else:
        change(front, "modern")
        assert one.ask() == 404


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (lambda office, key: office.revoke(key), 403),
        (lambda office, key: office.patch(key, role="viewer"), 403),
        (lambda office, key: office.patch(key, scope={"servers": ["own"]}), 404),
        (lambda office, _key: office.change_tenant("acme", namespaces=["stage"]), 404),
    ],
    ids=["revoked", "lowered", "narrowed", "moved"],
)
def test_rights_that_are_gone_are_gone(
    front: Face,
    office: Office,
    key: Made,
    stateless: Stateless,
    change: Callable[[Office, Made], Any],
    status: int,
) -> None:
    with front.connect() as wire:
        one = stateless(wire)
        change(office, key)
        assert one.ask() == status


def test_a_session_that_ended_is_not_there(
    front: Face, wire: Wire, client: MakeClient, key: Made
) -> None:
    other = client(front, "legacy", key=key.secret).initialize()
    one = in_session(front, wire, other, key)
    assert one.post({"method": "notifications/vendor"}).status == 202
    assert other.end() == 204
    assert one.post({"method": "notifications/vendor"}).status == 404
    assert one.ask() == 404


@pytest.mark.parametrize("late", [False, True])
def test_a_session_goes_by_the_definition_in_force(
    front: Face, wire: Wire, client: MakeClient, key: Made, *, late: bool
) -> None:
    other = client(front, "legacy", key=key.secret).initialize()
    one = in_session(front, wire, other, key)

    def change() -> None:
        redefine(front, "legacy", display_name="another")

    if not late:
        change()
    assert one.ask(meanwhile=change if late else None) == 200
    in_force = front.gateway.snapshot.entries[ServerId("legacy")]
    assert core_of(front, other).permit.entry is in_force


def test_sessions_are_told_apart(front: Face, client: MakeClient, key: Made) -> None:
    with ExitStack() as stack:
        wire = stack.enter_context(front.connect())
        clients = [client(front, "legacy", key=key.secret).initialize() for _ in range(2)]
        both = [in_session(front, wire, each, key) for each in clients]
        assert clients[0].end() == 204
        assert [one.ask() for one in both] == [404, 200]


def test_calls_go_to_the_process_that_serves(
    front: Face, wire: Wire, client: MakeClient, key: Made
) -> None:
    other = client(front, "legacy", key=key.secret).initialize()
    one = in_session(front, wire, other, key)
    # Keeps the old process alive, which finishes its calls.
    held = other.call("gated_progress", gate="regroup")
    front.until(lambda: front.used("legacy") == (1, 1))
    old = core_of(front, other).attachment.lease
    redefine(front, "legacy", isolation=Isolation.KEY)
    assert one.ask() == 200
    assert old is not None
    assert (old.peer.inflight, core_of(front, other).attachment.lease is old) == (1, False)
    assert other.end() == 204
    # On the stream that was opened to say that the lists of the other process may differ.
    assert held.error["data"]["code"] == "session_ended"


def test_stateless_calls_go_to_the_process_that_serves(
    front: Face, wire: Wire, client: MakeClient, key: Made, stateless: Stateless
) -> None:
    one = stateless(wire)
    held = client(front, "modern", key=key.secret).tool("gated_progress", gate="regroup")
    front.until(lambda: front.used("modern") == (1, 1))

    def regroup() -> None:
        redefine(front, "modern", isolation=Isolation.KEY)

    assert one.ask(regroup) == 200
    keeper = front.gateway.fleet._keepers[ServerId("modern")]
    assert front.inside(lambda: sum(each.is_open for each in keeper._site.instances)) == 2
    held.leave()


def test_a_notification_of_nobody_is_passed_over(wire: Wire, stateless: Stateless) -> None:
    one = stateless(wire)
    message = {"method": "notifications/vendor", "params": STATELESS}
    answer = one.post(message)
    assert (answer.status, answer.body) == (202, b"")


ANSWERS: Final[dict[str, object]] = {
    "another tool": CALLED | {"name": "meta"},
    "no tool": {"arguments": {}, **STATELESS},
    "another revision": CALLED | {"_meta": {VERSION: "2025-11-25", CAPABILITIES: {}}},
    "no capabilities": CALLED | {"_meta": {VERSION: MODERN}},
    "no _meta": {"name": "echo", "arguments": {}},
    "a task of nobody": CALLED | {"_meta": STATELESS["_meta"] | {RELATED: {"taskId": "t"}}},
    "a state of nobody": CALLED | {"requestState": "s"},
    "another spelling of _meta": CALLED | {"_META": {}},
    "the same in another order": {**STATELESS, "arguments": {}, "name": "echo"},
    "arguments that are none": CALLED | {"arguments": 7},
    "what is no object": [],
}


@pytest.mark.parametrize("params", ANSWERS.values(), ids=ANSWERS.keys())
def test_after_others_a_request_is_answered_as_alone(
    front: Face, key: Made, params: object
) -> None:
    """By the same head as those that passed."""
    headers = VERSION_LINE, (b"Mcp-Method", CALL.encode()), (b"Mcp-Name", b"echo")
    message = {"id": 1, "method": CALL, "params": params}
    answers = []
    for before in (0, 3):
        with front.connect() as wire:
            one = Repeater(front, wire, "modern", key, *headers, method=CALL, params=CALLED)
            assert [one.ask() for _ in range(before)] == [200] * before
            answer = one.post(message)
            said = json.loads(answer.body)
            said.get("error", {}).pop("data", None)  # has the id of the HTTP request
            answers.append((answer.status, said))
    assert answers[0] == answers[1]
