"""What is open to everybody is what is meant to be; with more than that nothing starts."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pytest

from open_mcp_gateway.auth.principal import Permission
from open_mcp_gateway.inbound.handlers import Handler, OnGateway, Probe
from open_mcp_gateway.inbound.management import Management
from open_mcp_gateway.inbound.routes import OPEN, Route
from open_mcp_gateway.pipeline.reply import Reply
from tests.rawhttp import Answer, request
from tests.wire.faces import Face, face
from tests.wire.surface import METHODS, NEEDS, NOBODY, router
from tests.wire.tenants import KEYS, SERVERS, TENANTS

OPEN_TO_ALL: Final = {
    ("GET", "/health"),
    ("HEAD", "/health"),
    ("GET", "/ready"),
    ("HEAD", "/ready"),
}
NAMES: Final = {"{id}": ("pg", "missing"), "{key}": ("key_1", "config:x"), "{tenant}": ("alpha",)}
ELSEWHERE: Final = (
    *("/", "/docs", "/redoc", "/metrics", "/favicon.ico", "/robots.txt", "/health/", "/healthz"),
    *("/.well-known/oauth-protected-resource", "/.well-known/openid-configuration"),
    *("/admin", "/auth/token", "/static/x", "/sse", "/messages", "/servers/pg/logs"),
)
MORE_METHODS: Final = ("TRACE", "PROPFIND", "SEARCH", "LINK")


def paths() -> Iterator[str]:
    yield from ELSEWHERE
    for path in sorted({path for _, path in NEEDS}):
        place = next((one for one in NAMES if one in path), None)
        for name in NAMES[place] if place else ("",):
            yield path.replace(place, name) if place else path


PATHS: Final = [*paths()]


@pytest.fixture(scope="module", params=["hot", "asgi-httptools", "asgi-h11"])
def front(request: pytest.FixtureRequest) -> Iterator[Face]:
    with face(request.param, *SERVERS, keys=KEYS, tenants=TENANTS) as running:
        yield running


def ask(front: Face, method: str, path: str, *headers: tuple[bytes, bytes]) -> Answer:
    verb = method.encode()
    return front.ask(request(path.encode(), *headers, method=verb), verb)


def test_what_is_written_down_is_open() -> None:
    assert {where for where, needs in NEEDS.items() if needs == NOBODY} == OPEN_TO_ALL
    found = {
        (method, path) for method, path in NEEDS if router().public(method.encode(), path.encode())
    }
    assert found == OPEN_TO_ALL


def test_without_a_key_that_is_open_and_nothing_else(front: Face) -> None:
    answered = set()
    for path in PATHS:
        for method in (*METHODS, *MORE_METHODS):
            answer = ask(front, method, path)
            assert answer.status in {200, 401}, (method, path, answer)
            if answer.status == 200:
                answered.add((method, path))
    assert answered == OPEN_TO_ALL


def test_a_preflight_says_the_same_of_every_path(front: Face) -> None:
    """So it tells nothing of what there is."""
    headers = (
        (b"Origin", b"https://app.example"),
        (b"Access-Control-Request-Method", b"DELETE"),
        (b"Access-Control-Request-Headers", b"authorization, x-api-key"),
    )
    said = set()
    for path in PATHS:
        answer = ask(front, "OPTIONS", path, *headers)
        assert answer.status == 204, (path, answer)
        said.add(tuple(pair for pair in answer.headers if pair[0] not in {"date", "x-request-id"}))
        # One that asks nothing is a request like any other, and so is one from nowhere.
        assert ask(front, "OPTIONS", path, headers[0]).status == 401
        assert ask(front, "OPTIONS", path, headers[1]).status == 401
        assert ask(front, "GET", path, *headers).status == (
            200 if ("GET", path) in OPEN_TO_ALL else 401
        )
    assert len(said) == 1


async def _nothing(*_: object) -> Reply:
    return Reply(200)


BARE: Final = OnGateway(_nothing)
MISTAKES: Final[dict[str, dict[str, Any]]] = {
    "no permission": {"permission": None},
    "an empty permission": {"permission": ""},
    "no permission that there is": {"permission": "servers:list"},
    "open, and no probe to be read": {"permission": OPEN, "methods": ("POST",)},
    "open, with a place for an id": {"permission": OPEN, "path": "/bare/{id}"},
    "in the way of another": {"permission": Permission.MCP_CALL, "path": "/servers/pg"},
    "for the second time": {"permission": Permission.MCP_CALL, "path": "/whoami"},
    "of no path": {"permission": Permission.MCP_CALL, "path": "bare"},
    "of every path": {"permission": OPEN, "path": "/*"},
}


@pytest.mark.parametrize("mistake", MISTAKES.values(), ids=MISTAKES)
def test_with_such_a_route_the_gateway_does_not_start(
    mistake: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {"methods": ("GET",), "path": "/bare", "handler": BARE, **mistake}
    handler: Handler = Probe(lambda: Reply(200)) if wanted["permission"] is OPEN else BARE
    own = Management.routes

    def more(self: Management) -> list[Route[Handler]]:
        return [*own(self), Route(**{**wanted, "handler": handler})]

    monkeypatch.setattr(Management, "routes", more)
    refused = pytest.RaisesExc((TypeError, ValueError), match=r"route|request")
    with pytest.RaisesGroup(refused, flatten_subgroups=True):
        router()
