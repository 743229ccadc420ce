"""What a caller sends about itself stays here: a server behind the gateway gets the catalog's."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar, Final

import pytest

from open_mcp_gateway.catalog.model import EraChoice, Remote, ServerSpec
from open_mcp_gateway.names import ServerId
from tests.rawhttp import request
from tests.wire.faces import ALL, JSON, KEY, Face, face

CALLERS_OWN: Final = (
    (b"X-API-Key", KEY),
    (b"Authorization", b"Bearer " + KEY),
    (b"Cookie", b"session=cookie-of-the-caller"),
    (b"X-Tenant", b"tenant-of-the-caller"),
    (b"X-User", b"user-of-the-caller"),
    (b"Proxy-Authorization", b"Basic proxy-of-the-caller"),
    (b"X-Forwarded-For", b"203.0.113.77"),
)
CATALOGS: Final = {"X-Token": "token-of-the-catalog"}


class Recorder(BaseHTTPRequestHandler):
    """A server of sessions that agrees to everything and remembers what it was sent."""

    protocol_version = "HTTP/1.1"
    heard: ClassVar[list[bytes]]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        type(self).heard.append(f"{self.requestline}\n{self.headers}\n".encode() + body)
        message = json.loads(body)
        if "id" not in message:
            self._answer(202, b"")
            return
        result: dict[str, Any] = {"tools": []}
        if message["method"] == "initialize":
            result = {
                "protocolVersion": "2025-06-18",
                "capabilities": {},
                "serverInfo": {"name": "recorder", "version": "1"},
            }
        told = {"jsonrpc": "2.0", "id": message["id"], "result": result}
        self._answer(200, json.dumps(told).encode())

    def do_GET(self) -> None:
        type(self).heard.append(f"{self.requestline}\n{self.headers}\n".encode())
        self._answer(405, b"")

    def do_DELETE(self) -> None:
        self.do_GET()

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def recording() -> Iterator[tuple[str, list[bytes]]]:
    class Own(Recorder):
        heard: ClassVar[list[bytes]] = []

    with ThreadingHTTPServer(("127.0.0.1", 0), Own) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/mcp", Own.heard
        finally:
            server.shutdown()
            thread.join()


def ask(front: Face, path: bytes, message: dict[str, Any], *more: tuple[bytes, bytes]) -> int:
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/list", **message}).encode()
    return front.ask(request(path, *CALLERS_OWN, JSON, *more, method=b"POST", body=body)).status


@pytest.mark.parametrize("name", ALL)
def test_nothing_of_the_callers_own_is_sent_on(name: str) -> None:
    with recording() as (url, heard):
        far = ServerSpec(
            id=ServerId("far"),
            runtime=Remote(url=url, headers=CATALOGS),
            display_name="far",
            era=EraChoice.LEGACY,
        )
        with face(name, far) as front:
            assert ask(front, b"/mcp", {"server_id": "far"}) == 200
            assert ask(front, b"/rpc", {}, (b"X-Server-ID", b"far")) == 200
            opening = {
                "method": "initialize",
                "params": {
                    "protocolVersion": "2025-06-18",
                    "capabilities": {},
                    "clientInfo": {"name": "c", "version": "1"},
                },
            }
            assert ask(front, b"/servers/far/mcp", opening) == 200
    assert len([one for one in heard if b"tools/list" in one]) == 2
    said = b"\n".join(heard).lower()
    assert said.count(b"token-of-the-catalog") == len(heard)
    for header, value in CALLERS_OWN:
        assert value.lower().split(b" ")[-1] not in said, header
    assert b"of-the-caller" not in said
