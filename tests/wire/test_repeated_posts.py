"""What the head of a POST to the MCP endpoint decides is decided once, and holds no longer than
what it rests on."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Final

import pytest
from msgspec.structs import replace

from open_mcp_gateway.access.policy import ROLES, holding_of, platform_admin
from open_mcp_gateway.auth.apikeys import digest_of
from open_mcp_gateway.auth.identify import Identifier
from open_mcp_gateway.catalog.model import Snapshot
from open_mcp_gateway.inbound.mcp_post import Posts
from open_mcp_gateway.names import KeyId
from tests.rawhttp import Answer, Wire, request
from tests.wire.faces import AUTH, HOT, JSON, KEY, Face, face, server

PATH: Final = b"/servers/echo/mcp"
OPENING: Final = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {}}


@pytest.fixture(params=HOT)
def hot(request: pytest.FixtureRequest) -> Iterator[Face]:
    with face(request.param, server("echo", "echo")) as running:
        yield running
        running.at_rest()


class Client:
    """One session, all of whose requests have the same head, on one connection."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        opened = self._post("initialize", OPENING)
        assert opened.status == 200
        self.session = (b"Mcp-Session-Id", opened.all("mcp-session-id")[0].encode())

    def _post(self, method: str, params: object, *headers: tuple[bytes, bytes]) -> Answer:
        message = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        body = json.dumps(message).encode()
        self.wire.send(request(PATH, AUTH, JSON, *headers, method=b"POST", body=body))
        return self.wire.receive()

    def echo(self, text: str = "once more") -> Answer:
        params = {"name": "echo", "arguments": {"text": text}}
        return self._post("tools/call", params, self.session)


@pytest.fixture
def client(hot: Face) -> Iterator[Client]:
    """With a head that is known."""
    with hot.connect() as wire:
        made = Client(wire)
        for number in range(3):
            assert made.echo(f"text {number}").status == 200
        assert len({id(one) for one in ways(hot)}) == 1
        assert made.echo().status == 200
        assert len({id(one) for one in ways(hot)}) == 1
        yield made


def ways(front: Face) -> list[Posts]:
    """What the one connection there is keeps with the head it saw last."""
    (connection,) = front.connections()
    assert connection.intake._known is not None
    kept = connection.intake._known.admitted.arrival.readings.values()
    return [one.serve.__self__ for one in kept if hasattr(one, "serve")]


def test_an_ended_session_is_not_there(hot: Face, client: Client) -> None:
    ending = request(PATH, AUTH, client.session, method=b"DELETE")
    assert hot.ask(ending, b"DELETE").status == 204
    for _ in range(2):
        answer = client.echo()
        assert answer.status == 404
        assert json.loads(answer.body)["error"]["message"] == "Session not found"


def test_a_server_that_is_gone_is_not_there(hot: Face, client: Client) -> None:
    """By the catalog alone, with whatever else says so left as it was."""
    forwarder = hot.gateway.forwarder
    before = forwarder.snapshot
    hot.inside(lambda: setattr(forwarder, "snapshot", Snapshot()))
    for _ in range(2):
        answer = client.echo()
        assert answer.status == 404
        assert json.loads(answer.body)["error"]["message"] == "Server 'echo' not found"
    hot.inside(lambda: setattr(forwarder, "snapshot", before))
    assert client.echo().status == 200


def test_a_session_goes_on_by_the_definition_in_force(hot: Face, client: Client) -> None:
    forwarder = hot.gateway.forwarder
    (entry,) = forwarder.snapshot.entries.values()
    again = replace(entry)
    after = Snapshot({again.spec.id: again})
    hot.inside(lambda: setattr(forwarder, "snapshot", after))
    assert client.echo().status == 200
    session = hot.gateway.sessions._sessions[client.session[1].decode()]
    assert session.core.permit.entry is again


@pytest.mark.parametrize("key", [KEY, b"test-key-other-55d0"])
def test_rights_that_are_gone_open_nothing(hot: Face, client: Client, key: bytes) -> None:
    digest = digest_of(key)
    record = replace(platform_admin(digest, KeyId("test")), role="viewer")
    holding = (digest, holding_of(record, {}, ROLES))
    dispatcher = hot.gateway.dispatcher
    before = dispatcher.authenticator
    hot.inside(lambda: setattr(dispatcher, "authenticator", Identifier([holding], time.time)))
    for _ in range(2):
        assert client.echo().status == 403
    hot.inside(lambda: setattr(dispatcher, "authenticator", before))
    assert client.echo().status == 200


def test_what_others_open_is_theirs(client: Client) -> None:
    """Another session on the same connection, in turns."""
    other = Client(client.wire)
    for number in range(4):
        for one in (client, other):
            answer = one.echo(f"{one.session} {number}")
            assert answer.status == 200
            assert str(number).encode() in answer.body
    assert client.session != other.session
