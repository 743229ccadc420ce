"""What the log says about requests, and what it never says."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.gateway import DEMO, Gateway, start_gateway
from tests.rawhttp import Answer, connect, request, send
from tests.wire.faces import KEY as FACE_KEY
from tests.wire.faces import call, face, new_store, server
from tests.wire.stored_keys import Office
from tests.wire.tenants import ALPHA, OFF, TENANTS, get, key

KEY: Final = b"test-key-access-log-31c5"
CANARY: Final = "canary-7d1f0a"
AUTH: Final = (b"X-API-Key", KEY)
JSON: Final = (b"Content-Type", b"application/json")


def run(directory: Path, **settings: Any) -> Any:
    return start_gateway(directory, {"api_key": KEY.decode(), **settings}, {"servers": [DEMO]})


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with run(tmp_path_factory.mktemp("all"), access_log="all", log_level="debug") as gateway:
        yield gateway


def ask(gateway: Gateway, raw: bytes) -> Answer:
    return send(gateway.host, gateway.port, raw)


def lines(gateway: Gateway, answer: Answer) -> list[dict[str, Any]]:
    """The lines about one request that have been read so far."""
    wanted = answer.all("x-request-id")[0]
    return [
        line
        for line in gateway.log()
        if line["logger"] == "open_mcp_gateway.access" and line["request_id"] == wanted
    ]


def flush(gateway: Gateway) -> None:
    """Wait until all that was written about earlier requests has been read."""
    last = ask(gateway, request(b"/servers"))
    ends = time.perf_counter() + 60
    while not lines(gateway, last):
        assert time.perf_counter() < ends, "no line about the last request"
        threading.Event().wait(0.005)


@pytest.mark.parametrize("mode", ["errors", "all", "off"])
def test_which_requests_get_a_line(tmp_path: Path, mode: str) -> None:
    with run(tmp_path, access_log=mode) as gateway:
        answers = [
            ask(gateway, request(b"/health")),
            ask(gateway, request(b"/servers", AUTH)),
            ask(gateway, request(b"/servers")),
            ask(gateway, request(b"/servers", (b"X-API-Key", b"test-key-wrong"))),
            ask(gateway, request(b"/nowhere", AUTH)),
            ask(gateway, b"nonsense\r\n\r\n"),
            ask(gateway, request(b"/health?" + b"a" * 100_000)),
        ]
        expected = [200, 200, 401, 403, 404, 400, 431]
        assert [answer.status for answer in answers] == expected
    for answer in answers:
        wanted = mode == "all" or (mode == "errors" and answer.status >= 400)
        assert len(lines(gateway, answer)) == (1 if wanted else 0), answer


def test_what_a_line_says(everything: Gateway) -> None:
    given = (b"X-Request-Id", b"trace-1.a:B_c-9")
    with connect(everything.host, everything.port) as wire:
        host, port = wire.connection.getsockname()
        wire.send(request(b"/servers/demo?tag=x", AUTH, given))
        answer = wire.receive()
    flush(everything)
    (line,) = lines(everything, answer)
    assert line["request_id"] == "trace-1.a:B_c-9"
    assert (line["method"], line["path"], line["status"]) == ("GET", "/servers/demo", 200)
    assert line["client"] == f"{host}:{port}"
    assert line["key_id"]
    assert 0 <= line["duration_ms"] < 20_000
    answer = ask(everything, request(b"/servers"))
    flush(everything)
    (stranger,) = lines(everything, answer)
    assert "key_id" not in stranger


def test_a_known_key_that_does_not_open_is_named(tmp_path: Path) -> None:
    """So that it can be seen who still uses a key that was meant to be gone."""
    key = "test-key-elsewhere-5b0e"
    elsewhere = {"name": "ci", "api_key": key, "ip_allow": []}
    tenant = {"id": "a", "namespaces": [], "keys": [elsewhere]}
    with run(tmp_path, tenants=[tenant]) as gateway:
        refused = [ask(gateway, request(b"/servers", (b"X-API-Key", key.encode())))]
        refused.append(ask(gateway, request(b"/servers", (b"X-API-Key", b"test-key-wrong"))))
        flush(gateway)
        known, unknown = [lines(gateway, answer)[0] for answer in refused]
    assert [answer.status for answer in refused] == [403, 403]
    assert (known["key_id"], known["reason"]) == ("config:a:ci", "ip_not_allowed")
    assert not {"key_id", "reason"} & set(unknown)


def test_the_line_of_a_refused_key_says_why(caplog: pytest.LogCaptureFixture) -> None:
    """Who is called at night sees whether somebody's key has run out or a revoked one is tried."""
    caplog.set_level("INFO", "open_mcp_gateway.access")
    dead = {
        "expired": key("old", ALPHA, "caller", expires_at=1.0),
        "revoked": key("taken", ALPHA, "caller", revoked_at=1.0),
        "disabled": key("off", ALPHA, "caller", disabled_at=1.0),
        "not_yet_valid": key("soon", ALPHA, "caller", not_before=time.time() + 9_000),
        "tenant_disabled": key("blocked", OFF, "caller"),
    }
    with face("hot", keys=tuple(dead.values()), tenants=TENANTS) as front:
        for record in dead.values():
            assert get(front, record.id, "/whoami").status == 403
    said = [
        (line.__dict__["reason"], line.__dict__["key_id"])
        for line in caplog.records
        if line.name == "open_mcp_gateway.access"
    ]
    assert said == [(reason, record.id) for reason, record in dead.items()]


def test_a_call_that_a_revocation_cut_off_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "open_mcp_gateway.access")
    with (
        new_store(tmp_path) as store,
        face("hot", server("held", "never_answers"), store=store) as front,
    ):
        office = Office(front.ask)
        made = office.key("caller")
        with front.connect() as wire:
            wire.send(call("held").replace(FACE_KEY, made.secret))
            front.until(lambda: front.used("held")[0] == 1)
            office.revoke(made)
            answer = wire.receive()
    assert (answer.status, answer.all("x-auth-reason")) == (403, ["revoked"])
    (line,) = [one for one in caplog.records if one.__dict__.get("path") == "/mcp"]
    assert (line.__dict__["key_id"], line.__dict__["reason"]) == (made.id, "revoked")


def test_nobody_writes_lines_of_his_own(everything: Gateway) -> None:
    """Neither with line ends nor with sheer length."""
    odd = b'/a%0a{"level":"error"}' + b"\\n" + b"b" * 5_000
    answer = ask(everything, request(odd, AUTH))
    flush(everything)
    (line,) = lines(everything, answer)
    assert line["path"] == odd[:256].decode()
    for raw in everything.lines:
        assert len(raw) < 2_000
        assert not raw.startswith("{") or json.loads(raw)


@pytest.mark.parametrize(
    "raw",
    [
        request(b"/mcp", AUTH, JSON, method=b"POST", body=body)
        for body in (
            b'{"server_id":"demo","id":"%b","method":"tools/list"}',
            b'{"server_id":"demo","id":1,"method":"tools/call","params":{"name":"echo",'
            b'"arguments":{"text":"%b"}}}',
            b'{"server_id":"demo","id":1,"method":"tools/call","params":{"name":"%b"}}',
            b'{"server_id":"demo","id":1,"method":"tools/call","params":"%b"}',
            b'{"server_id":"demo","id":1,"method":"%b"}',
            b'{"server_id":"demo","id":1,"method":"tools/list","%b":1}',
            b'{"server_id":"demo","%b',
            b"%b",
        )
    ],
    ids=range(8),
)
def test_payloads_stay_out(everything: Gateway, raw: bytes) -> None:
    filled = raw.replace(b"%b", CANARY.encode())
    head, _, body = filled.partition(b"\r\n\r\n")
    length = b"Content-Length: %d" % len(body)
    head = b"\r\n".join(
        length if line.startswith(b"Content-Length") else line for line in head.split(b"\r\n")
    )
    answer = ask(everything, head + b"\r\n\r\n" + body)
    assert answer.status in (200, 400)
    flush(everything)
    assert len(lines(everything, answer)) == 1
    assert CANARY not in "\n".join(everything.lines)


@pytest.mark.parametrize(
    "header",
    [
        (b"X-API-Key", CANARY.encode()),
        (b"Authorization", b"Bearer " + CANARY.encode()),
        (b"Authorization", b"Basic " + CANARY.encode()),
        (b"Cookie", CANARY.encode()),
        (b"X-Request-Id", CANARY.encode() + b" x"),
        (b"X-Request-Id", b"<" + CANARY.encode() + b">"),
        (b"X-Server-ID", CANARY.encode()),
        (b"Content-Type", CANARY.encode()),
        (b"Origin", b"https://" + CANARY.encode() + b".example"),
        (b"User-Agent", CANARY.encode()),
        (b"Host", CANARY.encode() + b".example"),
    ],
    ids=lambda pair: pair[0].decode(),
)
def test_headers_stay_out(everything: Gateway, header: tuple[bytes, bytes]) -> None:
    for raw in (
        request(b"/servers?key=" + CANARY.encode(), header),
        request(b"/rpc", AUTH, header, method=b"POST", body=b'{"method":"ping"}'),
        request(b"/servers", header, (b"Bad Name", b"x")),
    ):
        ask(everything, raw)
    flush(everything)
    said = "\n".join(everything.lines)
    assert CANARY not in said
    assert KEY.decode() not in said


def test_trace_is_the_level_for_content_and_not_for_keys(tmp_path: Path) -> None:
    body = b'{"server_id":"demo","id":"%b","method":"ping"}' % CANARY.encode()
    raw = request(b"/mcp", AUTH, JSON, method=b"POST", body=body)
    with run(tmp_path, log_level="trace", access_log="all") as gateway:
        answer = ask(gateway, raw)
        assert answer.status == 200
    asked, told = [line for line in gateway.log() if line.get("content")]
    assert asked["content"] == body.decode()
    assert told["content"] == answer.body.decode()
    assert asked["request_id"] == told["request_id"] == answer.all("x-request-id")[0]
    assert KEY.decode() not in "\n".join(gateway.lines)
