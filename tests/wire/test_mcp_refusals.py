"""What a caller is told who may not use a server: as a JSON-RPC error with the id that it sent."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import pytest

from tests.rawhttp import request
from tests.wire.faces import JSON, Face, face
from tests.wire.tenants import KEYS, SERVERS, TENANTS, get, post, secret

ENDPOINTS: Final = ("/servers/pg/mcp", "/servers/pg/messages?sessionId=x")
CHALLENGE: Final = 'Bearer realm="mcp-gateway", error="insufficient_scope", scope="mcp:call"'
REFUSED: Final = [("viewer", 403, [CHALLENGE]), ("other", 404, [])]


@pytest.fixture(scope="module", params=["hot", "asgi-httptools"])
def front(request: pytest.FixtureRequest) -> Iterator[Face]:
    with face(request.param, *SERVERS, keys=KEYS, tenants=TENANTS) as found:
        yield found


def message(message_id: object) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": message_id, "method": "tools/list"}


@pytest.mark.parametrize("path", ENDPOINTS)
@pytest.mark.parametrize(("who", "status", "challenge"), REFUSED)
@pytest.mark.parametrize("message_id", [7, "a", "", -1, 12345678901234567890])
def test_the_id_is_the_callers_own(
    front: Face, path: str, who: str, status: int, challenge: list[str], message_id: object
) -> None:
    answer = post(front, who, path, message(message_id))
    assert answer.status == status
    assert json.loads(answer.body)["id"] == message_id
    assert answer.all("www-authenticate") == challenge


@pytest.mark.parametrize("path", ENDPOINTS)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"7",
        b'"id"',
        json.dumps([message(7)]).encode(),
        json.dumps(message(None)).encode(),
        json.dumps(message([7])).encode(),
        json.dumps(message(7.5)).encode(),
        b'{"jsonrpc":"2.0","id":7,"id":8,"method":"tools/list"}',
        b'{"jsonrpc":"2.0","method":"tools/list"}',
    ],
)
def test_where_there_is_no_id_none_is_made_up(front: Face, path: str, body: bytes) -> None:
    for who, status, challenge in REFUSED:
        answer = post(front, who, path, body)
        assert (answer.status, answer.all("www-authenticate")) == (status, challenge)
        assert json.loads(answer.body)["id"] is None


def test_nothing_tells_a_hidden_server_from_a_missing_one(front: Face) -> None:
    told = []
    for path in ("/servers/pg/mcp", "/servers/none/mcp"):
        error = json.loads(post(front, "other", path, message("x")).body)
        del error["error"]["data"]["request_id"]
        told.append(json.dumps(error).replace("pg", "none"))
    assert told[0] == told[1]


def test_the_challenge_is_on_every_path(front: Face) -> None:
    enveloped = {"server_id": "pg", **message(7)}
    named = (b"X-Server-ID", b"pg"), (b"X-API-Key", secret("viewer")), JSON
    answers = [
        post(front, "viewer", "/mcp", enveloped),
        front.ask(request(b"/rpc", *named, method=b"POST", body=json.dumps(message(7)).encode())),
    ]
    for answer in answers:
        assert (answer.status, json.loads(answer.body)["id"]) == (403, 7)
        assert answer.all("www-authenticate") == [CHALLENGE]
    for path in ("/servers/pg/mcp", "/servers/pg/sse"):
        answer = get(front, "viewer", path)
        assert (answer.status, json.loads(answer.body)["id"]) == (403, None)
        assert answer.all("www-authenticate") == [CHALLENGE]


def test_what_is_refused_before_it_is_read_has_its_id_too(front: Face) -> None:
    headers = (b"X-API-Key", secret("caller")), (b"Accept", b"text/plain"), JSON
    body = json.dumps(message(7)).encode()
    answer = front.ask(request(b"/servers/pg/mcp", *headers, method=b"POST", body=body))
    assert (answer.status, json.loads(answer.body)["id"]) == (406, 7)


@pytest.mark.parametrize("path", ENDPOINTS)
@pytest.mark.parametrize("body", [b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_json_is_told_so_first(front: Face, path: str, body: bytes) -> None:
    for who, _, _ in REFUSED:
        answer = post(front, who, path, body)
        assert (answer.status, answer.all("www-authenticate")) == (400, [])
        assert json.loads(answer.body)["id"] is None
