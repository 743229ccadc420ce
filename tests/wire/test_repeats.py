"""A head that comes again byte for byte is not parsed again, and means exactly what it meant."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import pytest
from msgspec.structs import replace

from open_mcp_gateway.access.policy import ROLES, holding_of, platform_admin
from open_mcp_gateway.auth.apikeys import digest_of
from open_mcp_gateway.auth.identify import Identifier
from open_mcp_gateway.names import KeyId
from tests.rawhttp import Wire
from tests.wire.faces import HOT, KEY, Face, echo, echoed, face, server


@pytest.fixture(params=HOT)
def hot(request: pytest.FixtureRequest) -> Iterator[Face]:
    with face(request.param, server("echo", "echo")) as running:
        yield running
        running.at_rest()


def kept(front: Face) -> int:
    """How many heads the one connection there is remembers."""
    (connection,) = front.connections()
    return len(connection.intake._heads)


def ask(wire: Wire, text: str, number: int) -> None:
    wire.send(echo(text, message_id=number))
    assert echoed(wire.receive()) == (number, text)


def test_each_gets_its_own_answer(hot: Face) -> None:
    with hot.connect() as wire:
        for number in range(10, 40):
            ask(wire, f"text {number}", number)
        assert kept(hot) == 1
        for text in ("a", "bb", "a", "ccc", "bb", "a"):
            ask(wire, text, 7)
        ask(wire, "a line end \r\n\r\n and more", 12)


def test_lengths_are_not_taken_on_trust(hot: Face) -> None:
    """What does not end where the remembered request ended goes to the parser."""
    with hot.connect() as wire:
        ask(wire, "one", 1)
        ask(wire, "two", 2)
        wire.send(echo("six", message_id=3) + echo("ten", message_id=4))
        assert echoed(wire.receive()) == (3, "six")
        assert echoed(wire.receive()) == (4, "ten")
        whole = echo("cut", message_id=5)
        for piece in (whole[:-5], whole[-5:]):
            wire.send(piece)
        assert echoed(wire.receive()) == (5, "cut")
        for cut in (1, 40, whole.index(b"\r\n\r\n") + 2, whole.index(b"\r\n\r\n") + 4):
            wire.send(whole[:cut])
            wire.send(whole[cut:])
            assert echoed(wire.receive()) == (5, "cut")


def test_many_lengths_are_forgotten_again(hot: Face) -> None:
    with hot.connect() as wire:
        for size in range(1, 40):
            ask(wire, "x" * size, 1)
            assert kept(hot) <= 8
        for size in range(1, 40):
            ask(wire, "y" * size, 1)


@pytest.mark.parametrize("again", [1, 3])
def test_a_key_that_is_gone_opens_nothing(hot: Face, again: int) -> None:
    with hot.connect() as wire:
        for number in range(again):
            ask(wire, "one", number)
        digest = digest_of(b"test-key-other-19c2")
        other = (digest, holding_of(platform_admin(digest, KeyId("other")), {}, ROLES))

        def turn() -> None:
            hot.gateway.dispatcher.authenticator = Identifier([other], time.time)

        hot.inside(turn)
        wire.send(echo("one", message_id=9))
        answer = wire.receive()
        assert (answer.status, answer.body) == (
            403,
            b'{"error":"Forbidden","message":"Invalid API key"}',
        )


def test_limits_that_were_lowered_hold(hot: Face) -> None:
    with hot.connect() as wire:
        ask(wire, "one", 1)
        ask(wire, "two", 2)
        front = hot.gateway.dispatcher
        hot.inside(lambda: setattr(front, "max_body_bytes", 10))
        wire.send(echo("six", message_id=3))
        assert wire.receive().status == 413
        hot.inside(lambda: setattr(front, "max_body_bytes", 1000))


def test_request_ids_stay_apart(hot: Face) -> None:
    with hot.connect() as wire:
        seen = set()
        for number in range(5):
            wire.send(echo("same", message_id=number))
            seen.add(dict(wire.receive().headers)["x-request-id"])
        assert len(seen) == 5


@pytest.mark.parametrize("name", HOT)
def test_a_refusal_is_a_request_of_its_own(name: str) -> None:
    ends_s = time.time() + 3600
    record = replace(platform_admin(digest_of(KEY), KeyId("dying")), expires_at=ends_s)
    with face(name, server("echo", "echo"), keys=(record,)) as front, front.connect() as wire:
        seen = []
        for number in range(3):
            wire.send(echo("same", message_id=number))
            seen.append(wire.receive())
        dispatcher = front.gateway.dispatcher
        front.inside(lambda: setattr(dispatcher, "max_body_bytes", 10))
        wire.send(echo("same", message_id=3))
        seen.append(wire.receive())
        front.inside(lambda: setattr(dispatcher, "now", lambda: ends_s))
        for number in range(2):
            wire.send(echo("same", message_id=number))
            seen.append(wire.receive())
        assert [one.status for one in seen] == [200, 200, 200, 413, 403, 403]
        ids = [one.all("x-request-id")[0] for one in seen]
        assert len(set(ids)) == len(ids)


def test_what_is_refused_is_not_remembered(hot: Face) -> None:
    with hot.connect() as wire:
        wire.send(echo("one", message_id=1).replace(KEY, KEY[:-1] + b"!"))
        assert wire.receive().status == 403
        assert kept(hot) == 0
        bad = echo("one", message_id=1).replace(b'"jsonrpc"', b"'jsonrpc'")
        for _ in range(3):
            wire.send(bad)
            answer = wire.receive()
            assert answer.status == 400
            assert json.loads(answer.body)["error"]["code"] == -32700
        ask(wire, "one", 1)


def test_a_draining_gateway_closes_after_the_answer(hot: Face) -> None:
    with hot.connect() as wire:
        ask(wire, "one", 1)
        ask(wire, "two", 2)
        (connection,) = hot.connections()
        assert kept(hot) == 1
        hot.inside(lambda: setattr(connection.intake, "draining", True))
        wire.send(echo("six", message_id=3))
        assert echoed(wire.receive()) == (3, "six")
        assert wire.receive().status == 0
