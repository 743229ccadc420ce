"""What a server says of a call that was given up, and goes on with: it reaches nobody else."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from tests.rawhttp import request
from tests.wire.conftest import MakeClient
from tests.wire.faces import Face, face
from tests.wire.mcp_client import LOG_LEVEL, OTHER_KEY, TWO_KEYS, Client, talker


@pytest.fixture
def front() -> Iterator[Face]:
    servers = talker("legacy", "legacy"), talker("modern", "modern")
    with face("hot", *servers, keys=TWO_KEYS) as running:
        yield running
        running.at_rest()


def cancelled(front: Face, other: Client) -> None:
    other.initialize().call("gated_progress", gate="g", id=9)
    front.until(lambda: front.used("legacy")[1] == 1)
    other.notify("notifications/cancelled", {"requestId": 9})


def ended_with_its_session(front: Face, other: Client) -> None:
    other.initialize().call("gated_progress", gate="g")
    front.until(lambda: front.used("legacy")[1] == 1)
    assert other.end() == 204


def enveloped(front: Face, other: Client) -> None:
    """By a caller that vanishes."""
    body = {"server_id": "legacy", "id": 1, "method": "tools/call"}
    body["params"] = {"name": "gated_progress", "arguments": {"gate": "g"}}
    headers = (b"X-API-Key", other.key), (b"Content-Type", b"application/json")
    with front.connect() as wire:
        wire.send(request(b"/mcp", *headers, method=b"POST", body=json.dumps(body).encode()))
        front.until(lambda: front.used("legacy")[1] == 1)


@pytest.mark.parametrize("give_up", [cancelled, ended_with_its_session, enveloped])
def test_in_sessions(
    front: Face, client: MakeClient, give_up: Callable[[Face, Client], None]
) -> None:
    one = client(front, "legacy").initialize()
    assert one.call("log", level="info", data="mine").is_stream
    give_up(front, client(front, "legacy", key=OTHER_KEY))
    front.at_rest()
    # The server is told to stop and does not. What it says now could be about either.
    assert not one.call("log", level="info", data="whose?").is_stream
    assert not one.call("notify", method="notifications/vendor").is_stream
    # The late answer of the other call says that the server is done with it.
    assert one.call("open", gate="g").text() == "opened"
    assert one.call("log", level="info", data="mine").is_stream
    one.end()


def test_a_session_alone_goes_on_to_hear(front: Face, client: MakeClient) -> None:
    one = client(front, "legacy")
    cancelled(front, one)
    front.at_rest()
    assert one.call("log", level="info", data="mine").is_stream
    one.end()


def test_without_sessions(front: Face, client: MakeClient) -> None:
    one, other = client(front, "modern"), client(front, "modern", key=OTHER_KEY)
    wants = {LOG_LEVEL: "debug"}
    assert one.tool("log", level="info", data="mine", meta=wants).is_stream
    held = other.tool("gated_progress", gate="m", meta=wants | {"progressToken": 1})
    assert held.next()["params"]["message"] == "m"
    held.leave()
    front.at_rest()
    assert not one.tool("log", level="info", data="whose?", meta=wants).is_stream
    assert other.tool("log", level="info", data="its own", meta=wants).is_stream
    assert one.tool("open", gate="m").text() == "opened"
    assert one.tool("log", level="info", data="mine", meta=wants).is_stream
