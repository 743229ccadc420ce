"""The listener's own TLS: the same answers, encrypted, to clients good and bad."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest
import trustme

from open_mcp_gateway.config.model import ServerTls
from tests.rawhttp import TIMEOUT_S, Wire, request
from tests.wire.faces import ALL, AUTH, JSON, Face, call, echo, echoed, face, server

LIMIT = 3_000_000


class Secured:
    """A face that speaks TLS, and a client that trusts it."""

    def __init__(self, front: Face, authority: trustme.CA) -> None:
        self.front = front
        self.client = ssl.create_default_context()
        authority.configure_trust(self.client)

    @contextlib.contextmanager
    def connect(self) -> Iterator[Wire]:
        plain = socket.create_connection((self.front.host, self.front.port), TIMEOUT_S)
        wire = Wire(self.client.wrap_socket(plain, server_hostname="localhost"))
        try:
            yield wire
        finally:
            wire.close()


@pytest.fixture(scope="module", params=ALL)
def secured(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Secured]:
    directory = tmp_path_factory.mktemp("tls")
    authority = trustme.CA()
    tls = certify(authority, directory)
    servers = (server("echo", "echo"), server("mute", "never_answers"))
    with face(request.param, *servers, tls=tls, max_body_bytes=LIMIT) as front:
        yield Secured(front, authority)
        front.at_rest()


def certify(authority: trustme.CA, directory: Path) -> ServerTls:
    issued = authority.issue_cert("localhost", "127.0.0.1")
    tls = ServerTls(cert=directory / "cert.pem", key=directory / "key.pem")
    issued.private_key_pem.write_to_path(str(tls.key))
    for number, part in enumerate(issued.cert_chain_pems):
        part.write_to_path(str(tls.cert), append=number > 0)
    return tls


def test_one_connection_many_requests(secured: Secured) -> None:
    with secured.connect() as wire:
        for number in range(10):
            wire.send(echo(f"text {number}", message_id=number))
            assert echoed(wire.receive()) == (number, f"text {number}")
        wire.send(b"".join(echo("x" * 10_000, message_id=number) for number in range(30)))
        assert [echoed(wire.receive())[0] for _ in range(30)] == list(range(30))


def test_large_both_ways(secured: Secured) -> None:
    text = "x" * (LIMIT - 1_000)
    with secured.connect() as wire:
        wire.send(echo(text) + request(b"/health"))
        assert echoed(wire.receive()) == (1, text)
        assert wire.receive().status == 200


@pytest.mark.parametrize("key", [True, False], ids=["key", "no key"])
def test_a_refused_body_is_not_waited_for(secured: Secured, key: bool) -> None:
    headers = ((AUTH,) if key else ()) + (JSON, (b"Content-Length", b"%d" % (LIMIT + 1)))
    with secured.connect() as wire:
        wire.send(request(b"/mcp", *headers, method=b"POST"))
        assert wire.receive().status == (413 if key else 401)


@pytest.mark.parametrize("key", [True, False], ids=["key", "no key"])
def test_the_refusal_arrives_though_the_client_first_sends_everything(
    secured: Secured, key: bool
) -> None:
    if not secured.front.is_hot:
        return
    size = 2 * LIMIT
    headers = ((AUTH,) if key else ()) + (JSON, (b"Content-Length", b"%d" % size))
    raw = request(b"/mcp", *headers, method=b"POST") + b" " * size
    with secured.connect() as wire:
        for start in range(0, len(raw), 100_000):
            wire.connection.sendall(raw[start : start + 100_000])
        answer = wire.receive()
        assert answer.status == (413 if key else 401)
        assert answer.all("connection") == ["close"]
        assert wire.ended()


def test_a_caller_that_is_gone(secured: Secured) -> None:
    with secured.connect() as wire:
        wire.send(call("mute", params={"name": "x"}))
        secured.front.until(lambda: secured.front.used("mute") == (1, 1))
    secured.front.at_rest()


def test_old_versions_are_refused(secured: Secured) -> None:
    with secured.connect() as wire:
        assert isinstance(wire.connection, ssl.SSLSocket)
        assert wire.connection.version() in ("TLSv1.2", "TLSv1.3")
    assert secured.front.server.config.ssl is not None
    assert secured.front.server.config.ssl.minimum_version == ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize(
    "raw", [request(b"/health"), b"\0" * 500, b"\x16\x03\x01\0\x05hello"], ids=["http", "0", "tls"]
)
def test_who_does_not_speak_tls_gets_no_http(secured: Secured, raw: bytes) -> None:
    front = secured.front
    with socket.create_connection((front.host, front.port), TIMEOUT_S) as plain:
        plain.sendall(raw)
        said = b""
        with contextlib.suppress(ConnectionResetError):
            while more := plain.recv(4096):
                said += more
    assert b"HTTP" not in said
    with secured.connect() as wire:
        wire.send(request(b"/health"))
        assert wire.receive().status == 200


def test_a_client_that_trusts_somebody_else(secured: Secured) -> None:
    stranger = ssl.create_default_context()
    trustme.CA().configure_trust(stranger)
    plain = socket.create_connection((secured.front.host, secured.front.port), TIMEOUT_S)
    with plain, pytest.raises(ssl.SSLCertVerificationError):
        stranger.wrap_socket(plain, server_hostname="localhost")
