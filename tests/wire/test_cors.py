"""Host, Origin and CORS at the door of the running program."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Final

import pytest

from tests.gateway import Gateway, start_gateway
from tests.rawhttp import Answer, request, send

KEY: Final = b"test-key-cors-4d2e01"
PAGE: Final = (b"Origin", b"https://app.example")
LOCAL_PAGE: Final = (b"Origin", b"http://localhost:6274")
ASKED: Final = (
    (b"Access-Control-Request-Method", b"POST"),
    (b"Access-Control-Request-Headers", b"authorization, content-type"),
)


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Authentication on, nothing else set."""
    directory = tmp_path_factory.mktemp("locked")
    with start_gateway(directory, {"api_key": KEY.decode()}, {"servers": []}) as running:
        yield running


@pytest.fixture(scope="module")
def silent(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Authentication on, CORS headers off."""
    directory = tmp_path_factory.mktemp("silent")
    config = {"api_key": KEY.decode(), "cors_enabled": False, "cors_origins": ["https://a.example"]}
    with start_gateway(directory, config, {"servers": []}) as running:
        yield running


@pytest.fixture(scope="module")
def unlocked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """Authentication off, nothing set at all."""
    with start_gateway(tmp_path_factory.mktemp("unlocked"), {}, {"servers": []}) as running:
        yield running


def ask(
    gateway: Gateway, target: bytes, *headers: tuple[bytes, bytes], method: bytes = b"GET"
) -> Answer:
    raw = request(target, *headers, method=method)
    return send(gateway.host, gateway.port, raw, method=method)


@pytest.mark.parametrize("target", [b"/mcp", b"/servers", b"/health", b"/nowhere", b"*", b"/%2f"])
def test_preflights_come_before_authentication(locked: Gateway, target: bytes) -> None:
    answer = ask(locked, target, PAGE, *ASKED, method=b"OPTIONS")
    assert answer.status == 204
    assert answer.body == b""
    assert answer.all("content-length") == []
    assert answer.all("access-control-allow-origin") == ["https://app.example"]
    assert answer.listed("access-control-allow-methods") >= {"get", "post", "delete"}
    assert answer.listed("access-control-allow-headers") == {"authorization", "content-type"}
    assert answer.all("access-control-max-age") == ["600"]
    assert answer.all("access-control-allow-credentials") == []
    assert "origin" in answer.listed("vary")


@pytest.mark.parametrize(
    "headers", [(), (PAGE,), ASKED, (PAGE, ASKED[1])], ids=["plain", "origin", "asked", "no method"]
)
def test_a_plain_options_needs_a_key(
    locked: Gateway, headers: tuple[tuple[bytes, bytes], ...]
) -> None:
    assert ask(locked, b"/mcp", *headers, method=b"OPTIONS").status == 401
    keyed = ask(locked, b"/mcp", *headers, (b"X-API-Key", KEY), method=b"OPTIONS")
    assert keyed.status == 405
    assert keyed.all("allow") == ["POST"]


@pytest.mark.parametrize(
    ("target", "key", "status"),
    [
        (b"/health", None, 200),
        (b"/servers", None, 401),
        (b"/servers", b"test-key-cors-wrong", 403),
        (b"/servers", KEY, 200),
        (b"/nowhere", KEY, 404),
        (b"/mcp", KEY, 405),
    ],
)
def test_every_answer_may_be_read_by_the_page(
    locked: Gateway, target: bytes, key: bytes | None, status: int
) -> None:
    keys = [] if key is None else [(b"X-API-Key", key)]
    answer = ask(locked, target, PAGE, *keys)
    assert answer.status == status
    assert answer.all("access-control-allow-origin") == ["https://app.example"]
    assert answer.listed("access-control-expose-headers") == {
        "etag",
        "location",
        "mcp-session-id",
        "retry-after",
        "www-authenticate",
        "x-auth-reason",
        "x-request-id",
    }
    assert "origin" in answer.listed("vary")
    without = ask(locked, target, *keys)
    assert without.status == status
    assert not [name for name, _ in without.headers if name.startswith("access-control-")]


def test_without_cors_nothing_is_said_and_the_check_stays(silent: Gateway) -> None:
    allowed = (b"Origin", b"https://a.example")
    for method, headers in ((b"OPTIONS", (allowed, *ASKED)), (b"GET", (allowed,))):
        answer = ask(silent, b"/servers", *headers, method=method)
        assert answer.status == 401
        assert not [name for name, _ in answer.headers if name.startswith("access-control-")]
    assert_foreign(ask(silent, b"/servers", PAGE, (b"X-API-Key", KEY)))


def assert_foreign(answer: Answer) -> None:
    assert answer.status == 403
    body = json.loads(answer.body)
    assert body["error"] == "Forbidden"
    assert body["code"] == "origin_not_allowed"
    assert answer.all("www-authenticate") == []
    assert answer.all("access-control-allow-origin") == []


@pytest.mark.parametrize("target", [b"/health", b"/servers", b"/mcp", b"/nowhere"])
@pytest.mark.parametrize(
    "header",
    [
        PAGE,
        (b"Origin", b"null"),
        (b"Origin", b"http://localhost.evil.example"),
        (b"Host", b"evil.example"),
        (b"Host", b"evil.example:4444"),
        (b"Host", b"localhost.evil.example"),
        (b"Host", b"192.168.1.2"),
    ],
    ids=lambda pair: b" ".join(pair).decode(),
)
def test_a_web_page_cannot_drive_an_open_gateway(
    unlocked: Gateway, target: bytes, header: tuple[bytes, bytes]
) -> None:
    for method in (b"GET", b"POST", b"OPTIONS"):
        answer = ask(unlocked, target, header, *ASKED, method=method)
        assert_foreign(answer)


@pytest.mark.parametrize(
    "header",
    [
        LOCAL_PAGE,
        (b"Origin", b"http://127.0.0.1:3000"),
        (b"Host", b"127.0.0.1:4444"),
        (b"Host", b"[::1]:4444"),
        (b"Host", b"LOCALHOST."),
        (b"Host", b"app.localhost:80"),
    ],
    ids=lambda pair: b" ".join(pair).decode(),
)
def test_a_local_caller_can(unlocked: Gateway, header: tuple[bytes, bytes]) -> None:
    assert ask(unlocked, b"/servers", header).status == 200


def test_the_open_gateway_says_so(unlocked: Gateway) -> None:
    warnings = [line for line in unlocked.log() if line["level"] in ("warn", "warning")]
    about = [line for line in warnings if "authentication is off" in line["message"]]
    assert len(about) == 1
    assert about[0]["address"] == f"{unlocked.host}:{unlocked.port}"


@pytest.mark.parametrize(
    "hosts",
    [(), (b"a", b"b"), (b"localhost", b"localhost"), (b"a b",), (b"a/b",), (b"",)],
    ids=repr,
)
def test_exactly_one_host(locked: Gateway, unlocked: Gateway, hosts: tuple[bytes, ...]) -> None:
    lines = b"".join(b"Host: %b\r\n" % host for host in hosts)
    for gateway in (locked, unlocked):
        raw = b"GET /health HTTP/1.1\r\n" + lines + b"\r\n"
        assert send(gateway.host, gateway.port, raw).status == 400


def test_http_1_0_may_leave_it_out_only_where_any_host_may_come(
    locked: Gateway, unlocked: Gateway
) -> None:
    raw = b"GET /health HTTP/1.0\r\n\r\n"
    assert send(locked.host, locked.port, raw).status == 200
    assert send(unlocked.host, unlocked.port, raw).status == 403
