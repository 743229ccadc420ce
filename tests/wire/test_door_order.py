"""Two mistakes in one request: the one that comes first in the order of the door is told."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.rawhttp import Answer, request
from tests.wire.faces import JSON, Face, face
from tests.wire.tenants import KEYS, SERVERS, TENANTS, secret

TEXT = (b"Content-Type", b"text/plain")
GOOD = b'{"jsonrpc":"2.0","id":1,"method":"ping","x":"\\ud83d"}'
BAD = b'{"jsonrpc":'


@pytest.fixture(scope="module")
def front() -> Iterator[Face]:
    with face("hot", *SERVERS, keys=KEYS, tenants=TENANTS) as running:
        yield running


def send(
    front: Face, path: str, media: tuple[bytes, bytes], body: bytes, method: bytes = b"POST"
) -> Answer:
    who = (b"X-API-Key", secret("caller"))
    return front.ask(request(path.encode(), who, media, method=method, body=body), method)


@pytest.mark.parametrize(
    ("method", "path", "at_last"),
    [
        (b"POST", "/nope", 404),
        (b"PUT", "/mcp", 405),
        (b"POST", "/servers", 405),
        (b"POST", "/admin/keys", 403),
        (b"PATCH", "/admin/keys/key_000000000000", 403),
        (b"POST", "/servers/nowhere/mcp", 404),
        (b"POST", "/servers/web/mcp", 404),
    ],
)
def test_media_type_and_syntax_come_before_route_and_permission(
    front: Face, method: bytes, path: str, at_last: int
) -> None:
    tried = [(TEXT, BAD), (TEXT, GOOD), (JSON, BAD), (JSON, b'"\xff"'), (JSON, GOOD)]
    answers = [send(front, path, media, body, method) for media, body in tried]
    assert [answer.status for answer in answers] == [415, 415, 400, 400, at_last]
    if not path.endswith("/mcp"):  # which takes no request without a body
        assert send(front, path, TEXT, b"", method).status == at_last


def test_what_is_hidden_and_what_is_missing_fail_alike(front: Face) -> None:
    for media, body in ((TEXT, GOOD), (JSON, BAD)):
        hidden, missing = (
            re.sub(rb'"request_id":"[^"]*"', b"", answer.body)
            for name in ("web", "nowhere")
            for answer in (send(front, f"/servers/{name}/mcp", media, body),)
        )
        assert hidden == missing


def test_a_body_that_no_route_reads_is_not_looked_at(front: Face) -> None:
    assert send(front, "/servers", TEXT, BAD, b"GET").status == 200
    assert send(front, "/nope", TEXT, BAD, b"DELETE").status == 404
