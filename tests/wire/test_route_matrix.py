"""Every method and route against every way to present a key, over real sockets, byte for byte."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import pytest

from open_mcp_gateway.inbound.routes import Open
from tests.gateway import DEMO, Gateway, start_gateway
from tests.rawhttp import Answer, connect, request, send
from tests.wire.surface import METHODS, NEEDS, needs_of, router

KEY: Final = b"test-key-route-matrix-2b7e1516"
WRONG: Final = b"test-key-route-matrix-2b7e1517"

NO_KEY: Final = b'{"error":"Unauthorized","message":"API key required"}'
WRONG_KEY: Final = b'{"error":"Forbidden","message":"Invalid API key"}'

Headers = tuple[tuple[bytes, bytes], ...]


ROUTER: Final = router()
FILLED: Final = {"{id}": "demo", "{key}": "key_4fTz9QpLm2Xa", "{tenant}": "somebody"}


def filled(path: str) -> str:
    for place, name in FILLED.items():
        path = path.replace(place, name)
    return path


SURFACE: Final = [
    (method, filled(route.path), isinstance(route.permission, Open))
    for method, route in ROUTER.surface()
]
CLOSED: Final = [(method, path) for method, path, is_open in SURFACE if not is_open]
PATHS: Final = sorted({path for _, path, _ in SURFACE})
BEYOND: Final = [
    (method, path)
    for path in PATHS
    for method in METHODS
    if (method, path) not in {(m, p) for m, p, _ in SURFACE}
]
"""Known paths, other methods."""

UNKNOWN: Final = [
    (method, path)
    for method in METHODS
    for path in (
        *("/", "/nowhere", "/docs", "/openapi.yaml", "/admin", "/servers/demo/env", "/.env"),
        *("/admin/keys/", "/admin/keys/x", "/admin/tenants/a/b", "/metrics", "/auth/token"),
    )
]

BEARER: Final = b"Authorization"
HEADER: Final = b"X-API-Key"

MISSING: Final[dict[str, Headers]] = {
    "none": (),
    "empty bearer": ((BEARER, b"Bearer "),),
    "bearer alone": ((BEARER, b"bearer"),),
    "empty header": ((HEADER, b""),),
    "blank header": ((HEADER, b" \t "),),
    "both empty": ((BEARER, b"Bearer"), (HEADER, b"")),
    "another scheme": ((BEARER, b"Basic dXNlcjp0ZXN0"),),
    "no scheme": ((BEARER, KEY),),
    "underscore twin": ((b"X_API_Key", KEY),),
    "another header": ((b"Proxy-Authorization", b"Bearer " + KEY),),
    "cookie": ((b"Cookie", b"api_key=" + KEY),),
}
REFUSED: Final[dict[str, Headers]] = {
    "wrong bearer": ((BEARER, b"Bearer " + WRONG),),
    "wrong header": ((HEADER, WRONG),),
    "cut": ((HEADER, KEY[:-1]),),
    "longer": ((HEADER, KEY + b"0"),),
    "other case": ((HEADER, KEY.upper()),),
    "garbage": ((BEARER, b"Bearer \xff\xfe\xe9"),),
    "space within": ((BEARER, b"Bearer " + KEY[:5] + b" " + KEY[5:]),),
    "endless": ((HEADER, b"k" * 20_000),),
    "both wrong and the same": ((BEARER, b"Bearer " + WRONG), (HEADER, WRONG)),
}
AMBIGUOUS: Final[dict[str, Headers]] = {
    "both, different": ((BEARER, b"Bearer " + KEY), (HEADER, WRONG)),
    "both, different, other order": ((HEADER, KEY), (BEARER, b"Bearer " + WRONG)),
    "bearer twice": ((BEARER, b"Bearer " + KEY), (BEARER, b"Bearer " + KEY)),
    "wrong, then right": ((BEARER, b"Bearer " + WRONG), (BEARER, b"Bearer " + KEY)),
    "header twice": ((HEADER, KEY), (HEADER, KEY)),
    "joined": ((BEARER, b"Bearer " + KEY + b", Bearer " + KEY),),
}
RIGHT: Final[dict[str, Headers]] = {
    "bearer": ((BEARER, b"Bearer " + KEY),),
    "bearer in lower case": ((b"authorization", b"bearer \t" + KEY + b" "),),
    "header": ((HEADER, KEY),),
    "both the same": ((BEARER, b"BEARER " + KEY), (HEADER, KEY)),
    "header beside basic": ((BEARER, b"Basic dXNlcjp0ZXN0"), (HEADER, KEY)),
}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    directory = tmp_path_factory.mktemp("gateway")
    config: dict[str, Any] = {"api_key": KEY.decode(), "access_log": "all", "log_level": "debug"}
    with start_gateway(directory, config, {"servers": [DEMO]}) as running:
        yield running


def ask(gateway: Gateway, method: str, target: str, *headers: tuple[bytes, bytes]) -> Answer:
    verb = method.encode()
    raw = request(target.encode(), *headers, method=verb)
    return send(gateway.host, gateway.port, raw, method=verb)


def head_of(gateway: Gateway, method: str, target: str, *headers: tuple[bytes, bytes]) -> Answer:
    """An answer without its body, which may be a stream that does not end."""
    with connect(gateway.host, gateway.port) as wire:
        wire.send(request(target.encode(), *headers, method=method.encode()))
        return wire.receive(b"HEAD")


def assert_refusal(answer: Answer, method: str, status: int, body: bytes, challenge: str) -> None:
    assert answer.status == status
    assert answer.body == (b"" if method == "HEAD" else body)
    assert answer.all("content-type") == ["application/json"]
    assert answer.all("content-length") == [str(len(body))]
    assert answer.all("www-authenticate") == [challenge]
    assert answer.all("cache-control") == ["no-store"]
    assert answer.listed("vary") == {"authorization", "x-api-key"}
    assert len(answer.all("x-request-id")) == 1
    assert answer.all("x-request-id")[0]
    assert answer.all("server") == []


def test_the_surface_is_the_one_written_down() -> None:
    """Adding a route means adding it there, with what it needs."""
    assert {(method, route.path): needs_of(route) for method, route in ROUTER.surface()} == NEEDS


@pytest.mark.parametrize("headers", MISSING.values(), ids=MISSING)
def test_no_key(gateway: Gateway, headers: Headers) -> None:
    for method, path in CLOSED + BEYOND + UNKNOWN:
        answer = ask(gateway, method, path, *headers)
        assert_refusal(answer, method, 401, NO_KEY, 'Bearer realm="mcp-gateway"')


@pytest.mark.parametrize("headers", REFUSED.values(), ids=REFUSED)
def test_wrong_key(gateway: Gateway, headers: Headers) -> None:
    challenge = 'Bearer realm="mcp-gateway", error="invalid_token"'
    for method, path in CLOSED + BEYOND + UNKNOWN:
        answer = ask(gateway, method, path, *headers)
        assert_refusal(answer, method, 403, WRONG_KEY, challenge)


@pytest.mark.parametrize("headers", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_more_than_one_key(gateway: Gateway, headers: Headers) -> None:
    for method, path in CLOSED + BEYOND + UNKNOWN:
        answer = ask(gateway, method, path, *headers)
        assert answer.status == 400
        assert answer.all("cache-control") == ["no-store"]
        if method != "HEAD":
            body = json.loads(answer.body)
            assert body["error"] == "Bad Request"
            assert body["code"] == "ambiguous_credentials"
            assert body["request_id"] == answer.all("x-request-id")[0]


EXPECTED: Final = {
    "/servers": 200,
    "/servers/demo": 200,
    "/servers/demo/start": 200,
    "/servers/demo/restart": 200,
    "/servers/demo/stop": 200,
    "/servers/demo/mcp": 400,
    "/servers/demo/sse": 200,
    "/servers/demo/messages": 404,
    "/stats": 200,
    "/admin/reload": 200,
    "/admin/roles": 200,
    "/admin/keys": 200,
    "/admin/keys/verify": 400,
    "/admin/keys/import": 400,
    "/admin/keys/key_4fTz9QpLm2Xa": 404,
    "/admin/tenants": 200,
    "/admin/tenants/somebody": 404,
    "/mcp": 400,
    "/rpc": 400,
    "/whoami": 200,
    "/openapi.json": 200,
    "/auth/explain": 400,
}
"""With the key and no body: those that need one say so."""

WITHOUT_A_BODY: Final = {
    ("POST", "/admin/keys"): 400,
    ("POST", "/admin/tenants"): 400,
    ("PATCH", "/admin/keys/key_4fTz9QpLm2Xa"): 400,
    ("PATCH", "/admin/tenants/somebody"): 400,
    ("DELETE", "/admin/keys/key_4fTz9QpLm2Xa"): 501,
    ("DELETE", "/admin/tenants/somebody"): 501,
}
"""Where one method of a path differs from the others."""


@pytest.mark.parametrize("headers", RIGHT.values(), ids=RIGHT)
def test_the_right_key(gateway: Gateway, headers: Headers) -> None:
    assert set(EXPECTED) == {path for _, path in CLOSED}
    for method, path in CLOSED:
        answer = head_of(gateway, method, path, *headers)
        expected = WITHOUT_A_BODY.get((method, path), EXPECTED[path])
        assert answer.status == expected, (method, path, answer)
        assert answer.all("www-authenticate") == []
        assert answer.all("cache-control") == ["no-store"]
        assert len(answer.all("x-request-id")) == 1


def test_with_a_key_other_methods_are_named(gateway: Gateway) -> None:
    for method, path in BEYOND:
        answer = ask(gateway, method, path, *RIGHT["header"])
        assert answer.status == 405, (method, path)
        known = {m for m, p, _ in SURFACE if p == path}
        assert {name.upper() for name in answer.listed("allow")} == known


def test_with_a_key_unknown_paths_are_unknown(gateway: Gateway) -> None:
    for method, path in UNKNOWN:
        answer = ask(gateway, method, path, *RIGHT["header"])
        assert answer.status == 404, (method, path)
        if method != "HEAD":
            assert json.loads(answer.body)["error"] == "Not Found"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/servers/missing"),
        ("POST", "/servers/missing/start"),
        ("POST", "/servers/missing/stop"),
        ("POST", "/servers/missing/restart"),
    ],
)
def test_a_missing_server(gateway: Gateway, method: str, path: str) -> None:
    answer = ask(gateway, method, path, *RIGHT["header"])
    assert answer.status == 404
    body = json.loads(answer.body)
    assert body["error"] == "Not Found"
    assert body["message"] == "Server 'missing' not found"


@pytest.mark.parametrize(
    "headers",
    [*MISSING.values(), *REFUSED.values(), *AMBIGUOUS.values(), *RIGHT.values()],
    ids=[*MISSING, *REFUSED, *AMBIGUOUS, *RIGHT],
)
def test_open_routes_ask_for_nothing(gateway: Gateway, headers: Headers) -> None:
    for method in ("GET", "HEAD"):
        health = ask(gateway, method, "/health", *headers)
        assert health.status == 200
        assert health.body == (b"" if method == "HEAD" else b'{"status":"ok"}')
        assert ask(gateway, method, "/ready", *headers).status == 200


@pytest.mark.parametrize(
    "query", ["api_key={}", "key={}", "token={}", "access_token={}", "X-API-Key={}", "{}"]
)
def test_no_key_is_taken_from_the_url(gateway: Gateway, query: str) -> None:
    for method, path in CLOSED:
        target = f"{path}?{query.format(KEY.decode())}"
        answer = ask(gateway, method, target)
        assert_refusal(answer, method, 401, NO_KEY, 'Bearer realm="mcp-gateway"')


def test_no_key_is_taken_from_the_body_or_a_trailer(gateway: Gateway) -> None:
    body = b'{"server_id":"demo","method":"ping","api_key":"%b"}' % KEY
    raw = request(b"/mcp", method=b"POST", body=body)
    assert send(gateway.host, gateway.port, raw).body == NO_KEY
    chunked = request(
        b"/mcp",
        (b"Transfer-Encoding", b"chunked"),
        (b"Trailer", b"X-API-Key"),
        (b"Content-Type", b"application/json"),
        method=b"POST",
    )
    raw = chunked + b"%x\r\n%b\r\n0\r\nX-API-Key: %b\r\n\r\n" % (len(body), body, KEY)
    assert send(gateway.host, gateway.port, raw).body == NO_KEY


def test_a_trailer_names_no_server(gateway: Gateway) -> None:
    """With a key: what comes after the body is no part of what was authorized."""
    head = request(
        b"/rpc",
        (b"Transfer-Encoding", b"chunked"),
        (b"Content-Type", b"application/json"),
        (b"X-API-Key", KEY),
        method=b"POST",
    )
    body = b'{"jsonrpc":"2.0","id":1,"method":"ping"}'
    raw = head + b"%x\r\n%b\r\n0\r\nX-Server-ID: demo\r\n\r\n" % (len(body), body)
    assert send(gateway.host, gateway.port, raw).status == 400


@pytest.mark.parametrize("expect", [(), ((b"Expect", b"100-continue"),)], ids=["plain", "expect"])
@pytest.mark.parametrize(
    "framing",
    [(b"Content-Length", b"10000000"), (b"Transfer-Encoding", b"chunked")],
    ids=["length", "chunked"],
)
def test_without_a_key_no_body_is_waited_for(
    gateway: Gateway, framing: tuple[bytes, bytes], expect: Headers
) -> None:
    """The answer comes though not one byte of the body was sent, and none is asked for."""
    for path in (b"/mcp", b"/rpc", b"/nowhere"):
        with connect(gateway.host, gateway.port) as wire:
            wire.send(request(path, framing, *expect, method=b"POST"))
            answer = wire.receive()
            assert_refusal(answer, "POST", 401, NO_KEY, 'Bearer realm="mcp-gateway"')


def test_a_key_on_one_request_does_not_open_the_next(gateway: Gateway) -> None:
    """Two requests in one packet on one connection."""
    keyed = request(b"/stats", *RIGHT["bearer"])
    bare = request(b"/stats")
    with connect(gateway.host, gateway.port) as wire:
        wire.send(keyed + bare + keyed)
        statuses = [wire.receive().status for _ in range(3)]
    assert statuses == [200, 401, 200]


def test_request_ids(gateway: Gateway) -> None:
    given = ask(gateway, "GET", "/servers", (b"X-Request-Id", b"trace-42.a:B_c"))
    assert given.all("x-request-id") == ["trace-42.a:B_c"]
    for odd in (b"", b"a b", b"x" * 65, b'"><script>', b"\xe9"):
        made = ask(gateway, "GET", "/servers", (b"X-Request-Id", odd)).all("x-request-id")
        assert len(made) == 1
        assert made[0].encode("latin-1") != odd


def test_no_key_in_the_log(gateway: Gateway) -> None:
    """Runs after all of the above: whatever was sent as a key, right or wrong, is not in there."""
    ask(gateway, "GET", "/servers?tag=" + KEY.decode())
    ask(gateway, "GET", "/servers", *RIGHT["bearer"])
    text = "\n".join(gateway.lines)
    assert '"path": "/servers"' in text
    for secret in (KEY, WRONG, KEY[:-1]):
        assert secret.decode() not in text
        assert secret.hex() not in text
