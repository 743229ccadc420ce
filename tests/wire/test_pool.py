"""Connections to servers: kept alive, shared, bounded, found by address, proxy and TLS."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import sys
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trustme

from open_mcp_gateway.catalog.model import ClientTls
from open_mcp_gateway.errors import Busy, UpstreamBroken, UpstreamTimeout, UpstreamUnavailable
from open_mcp_gateway.outbound.dial import SILENCE_S
from open_mcp_gateway.outbound.http import HttpPeer
from open_mcp_gateway.outbound.pool import LOOK_FIRST_AFTER_S
from open_mcp_gateway.outbound.settings import OutboundSettings
from tests.wire.remotes import (
    DISCOVERED,
    Line,
    Request,
    ask,
    free_port,
    modern,
    open_at,
    raw_server,
    start,
)

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["uvloop", "asyncio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, bool]]:
    return "asyncio", {"use_uvloop": request.param == "uvloop" and sys.platform != "win32"}


async def plain(request: Request, line: Line) -> None:
    await line.result(request)


async def goodbye_arrived(peer: object) -> None:
    async with asyncio.timeout(5):
        while pool_of(peer):  # noqa: ASYNC110 - the pool tells nobody, and need not
            await asyncio.sleep(0)


def pool_of(peer: object) -> int:
    assert isinstance(peer, HttpPeer)
    return peer.link.pool.open_connections


def timers_towards(port: int) -> list[tuple[str, float]]:
    """What timer of the system runs for each connection to ``port``, and when it is due."""
    lines = Path("/proc/net/tcp").read_text("ascii").splitlines()
    there = [line.split() for line in lines if f" 0100007F:{port:04X} 01 " in line]
    timers = [one[5].split(":") for one in there]
    return [(kind, int(hundredths, 16) / 100) for kind, hundredths in timers]


@pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux says of its sockets")
async def test_the_system_watches_over_silent_connections() -> None:
    async with raw_server(modern(plain)) as server:
        peer = await open_at(server.url)
        [(kind, due_s)] = timers_towards(server.port)
        assert kind == "02"  # of keep-alive
        assert due_s <= SILENCE_S
        await peer.aclose()


async def test_one_connection_serves_call_after_call() -> None:
    async with raw_server(modern(plain)) as server:
        peer = await open_at(server.url)
        for _ in range(5):
            await ask(peer, "tools/list")
        assert server.connections == 1
        await peer.aclose()


async def test_calls_at_once_get_a_connection_each_up_to_the_bound() -> None:
    gate = asyncio.Event()

    async def held(request: Request, line: Line) -> None:
        await gate.wait()
        await line.result(request)

    async with raw_server(modern(held)) as server:
        settings = OutboundSettings(max_connections_per_origin=3)
        peer = await open_at(server.url, settings=settings)
        calls = [start(peer, "tools/list")[1] for _ in range(8)]
        await server.saw(lambda: server.methods().count("tools/list") == 3)
        assert server.connections == 3
        assert peer.inflight == 8
        gate.set()
        for call in calls:
            await call.message()
        assert server.connections == 3
        assert peer.inflight == 0
        await peer.aclose()


async def test_a_call_that_waits_for_a_connection_keeps_its_deadline() -> None:
    async def never(_request: Request, line: Line) -> None:
        await line.gone()

    async with raw_server(modern(never)) as server:
        peer = await open_at(server.url, settings=OutboundSettings(max_connections_per_origin=1))
        _, first = start(peer, "tools/list")
        _, second = start(peer, "tools/list", within_s=0.1)
        with pytest.raises(UpstreamTimeout):
            await second.message()
        assert not first.settled
        assert server.methods().count("tools/list") == 1
        await peer.aclose()
        with pytest.raises(UpstreamBroken):
            await first.message()


async def test_too_much_waiting_is_refused() -> None:
    async def never(_request: Request, line: Line) -> None:
        await line.gone()

    async with raw_server(modern(never)) as server:
        settings = OutboundSettings(max_connections_per_origin=1, max_send_buffer_bytes=1500)
        peer = await open_at(server.url, settings=settings)
        calls = [start(peer, "tools/list")[1] for _ in range(2)]
        with pytest.raises(Busy):
            calls.extend(start(peer, "tools/list")[1] for _ in range(10))
        assert peer.inflight == len(calls)
        await peer.aclose()


async def test_an_unused_connection_is_closed() -> None:
    closed = asyncio.Event()

    async def watched(request: Request, line: Line) -> None:
        await line.result(request)
        if request.method == "tools/list":
            await line.gone()
            closed.set()

    async with raw_server(modern(watched)) as server:
        peer = await open_at(server.url, settings=OutboundSettings(pool_idle_s=0.2))
        await ask(peer, "tools/list")
        await asyncio.wait_for(closed.wait(), 60)
        assert pool_of(peer) == 0
        await peer.aclose()


@pytest.mark.parametrize("polite", [True, False])
async def test_a_server_that_closes_after_each_response(polite: bool) -> None:
    async def closing(request: Request, line: Line) -> None:
        await line.result(request, extra="Connection: close\r\n" if polite else "")
        line.writer.close()
        await line.gone()

    async with raw_server(modern(closing)) as server:
        peer = await open_at(server.url)
        for _ in range(3):
            await ask(peer, "tools/call", b'{"name":"x"}')
            if not polite:  # until the goodbye has arrived, sending would be a gamble
                await goodbye_arrived(peer)
        await peer.aclose()


async def test_a_call_cut_before_the_answer_is_not_repeated() -> None:
    async def cutting(_request: Request, line: Line) -> None:
        await line.cut()

    async with raw_server(modern(cutting)) as server:
        peer = await open_at(server.url)
        with pytest.raises(UpstreamBroken, match="may have taken effect"):
            await ask(peer, "tools/call", b'{"name":"x"}')
        assert server.methods().count("tools/call") == 1
        await peer.aclose()


async def test_reading_again_on_a_stale_connection_is_safe_and_happens_once() -> None:
    seen = 0

    async def first_time_cut(request: Request, line: Line) -> None:
        nonlocal seen
        seen += 1
        if seen == 1:
            await line.cut()
        else:
            await line.result(request)

    async with raw_server(modern(first_time_cut)) as server:
        peer = await open_at(server.url)
        await ask(peer, "tools/list")
        assert server.methods() == ["server/discover", "tools/list", "tools/list"]
        assert server.connections == 2
        await peer.aclose()


def serve_in_turn(listener: socket.socket, closed: threading.Event) -> None:
    """Discovery and then a goodbye on the first connection; one answer on the second."""
    for answer in (DISCOVERED, b"{}"):
        connection, _ = listener.accept()
        with connection:
            request = b""
            while b'"id":' not in request:
                request += connection.recv(65536)
            found = re.search(rb'"id":(\d+)', request)
            assert found is not None
            body = b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (found[1], answer)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            if answer is DISCOVERED:
                time.sleep(LOOK_FIRST_AFTER_S + 0.1)  # long enough for the pool to look first
        closed.set()


async def test_a_goodbye_that_the_loop_had_no_time_to_read_is_seen() -> None:
    closed = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = threading.Thread(target=serve_in_turn, args=(listener, closed), daemon=True)
        server.start()
        peer = await open_at(f"http://127.0.0.1:{listener.getsockname()[1]}/mcp")
        closed.wait(10)  # blocks the loop on purpose
        await ask(peer, "tools/call", b'{"name":"x"}')
        await peer.aclose()
        server.join(10)


async def test_bytes_nobody_asked_for_end_the_connection() -> None:
    async def chatty(request: Request, line: Line) -> None:
        body = b'{"jsonrpc":"2.0","id":%b,"result":{}}' % request.id
        answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        await line.send((answer % len(body) + body) * 2)

    async with raw_server(modern(chatty)) as server:
        peer = await open_at(server.url)
        await ask(peer, "tools/list")
        await ask(peer, "tools/list")
        assert server.connections == 2
        await peer.aclose()


async def test_interim_responses_are_skipped() -> None:
    async def interim(request: Request, line: Line) -> None:
        await line.send(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n")
        await line.result(request)

    async with raw_server(modern(interim)) as server:
        peer = await open_at(server.url)
        for _ in range(2):
            assert b'"result":{}' in await ask(peer, "tools/list")
        assert server.connections == 1
        await peer.aclose()


async def test_nobody_listening_is_said_clearly() -> None:
    port = free_port()
    with pytest.raises(UpstreamUnavailable, match=rf"connection refused at 127.0.0.1:{port}; is"):
        await open_at(f"http://127.0.0.1:{port}/mcp")


async def test_an_unknown_host_is_said_clearly() -> None:
    with pytest.raises(UpstreamUnavailable, match=r"no address for nowhere\.invalid:80"):
        await open_at("http://nowhere.invalid/mcp")


async def test_ipv6() -> None:
    async with raw_server(modern(plain), host="::1") as server:
        peer = await open_at(f"http://[::1]:{server.port}/mcp")
        await ask(peer, "tools/list")
        assert server.requests[0].headers["host"] == f"[::1]:{server.port}"
        await peer.aclose()


async def test_a_name_with_two_addresses_of_which_one_listens() -> None:
    async with raw_server(modern(plain)) as server:
        peer = await open_at(f"http://localhost:{server.port}/mcp")
        await ask(peer, "tools/list")
        await peer.aclose()


# TLS


class Pki:
    """An authority, a server certificate for localhost, and a client certificate."""

    def __init__(self, directory: Path) -> None:
        self.authority = trustme.CA()
        self.ca = str(directory / "ca.pem")
        self.client = str(directory / "client.pem")
        self.authority.cert_pem.write_to_path(self.ca)
        identity = self.authority.issue_cert("client@example.test")
        identity.private_key_and_cert_chain_pem.write_to_path(self.client)

    def server(self, *, names: tuple[str, ...] = ("localhost",)) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self.authority.issue_cert(*names).configure_cert(context)
        return context


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


async def test_tls_with_an_authority_of_our_own(pki: Pki) -> None:
    async with raw_server(modern(plain), context=pki.server()) as server:
        peer = await open_at(f"https://localhost:{server.port}/mcp", tls=ClientTls(ca=pki.ca))
        for _ in range(3):
            await ask(peer, "tools/list")
        assert server.connections == 1
        await peer.aclose()


async def test_an_unknown_authority_is_refused(pki: Pki) -> None:
    async with raw_server(modern(plain), context=pki.server()) as server:
        with pytest.raises(UpstreamUnavailable, match=r"certificate.*not accepted.*`tls.ca`"):
            await open_at(f"https://localhost:{server.port}/mcp")
        assert not server.requests


async def test_a_certificate_for_another_name_is_refused(pki: Pki) -> None:
    async with raw_server(modern(plain), context=pki.server(names=("other.test",))) as server:
        with pytest.raises(UpstreamUnavailable, match="not accepted"):
            await open_at(f"https://localhost:{server.port}/mcp", tls=ClientTls(ca=pki.ca))
        assert not server.requests


async def test_old_tls_is_refused(pki: Pki) -> None:
    context = pki.server()
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    async with raw_server(modern(plain), context=context) as server:
        with pytest.raises(UpstreamUnavailable, match="TLS with"):
            await open_at(f"https://localhost:{server.port}/mcp", tls=ClientTls(ca=pki.ca))


async def test_a_client_certificate(pki: Pki) -> None:
    context = pki.server()
    context.verify_mode = ssl.CERT_REQUIRED
    pki.authority.configure_trust(context)
    async with raw_server(modern(plain), context=context) as server:
        url = f"https://localhost:{server.port}/mcp"
        with pytest.raises(UpstreamUnavailable):
            await open_at(url, tls=ClientTls(ca=pki.ca))
        peer = await open_at(url, tls=ClientTls(ca=pki.ca, cert=pki.client, key=pki.client))
        await ask(peer, "tools/list")
        await peer.aclose()


@pytest.mark.parametrize(
    ("tls", "text"),
    [
        (ClientTls(ca="/nowhere/ca.pem"), "`tls.ca`: no such file: /nowhere/ca.pem"),
        (ClientTls(ca=__file__), "`tls.ca`: not a usable PEM file"),
        (ClientTls(cert="/nowhere/c.pem"), "no such file: /nowhere/c.pem"),
        (ClientTls(cert=__file__), "not a usable PEM file"),
        (ClientTls(key=__file__), "`tls.key` needs `tls.cert`"),
    ],
)
async def test_unusable_tls_files_are_named(tls: ClientTls, text: str) -> None:
    with pytest.raises(UpstreamUnavailable, match=text):
        await open_at("https://localhost:1/mcp", tls=tls)


async def test_plain_http_where_tls_is_expected() -> None:
    def refuse(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(UpstreamUnavailable, match="TLS with"):
            await open_at(f"https://localhost:{port}/mcp")


async def test_a_handshake_that_never_ends_is_cut_off() -> None:
    async with raw_server(modern(plain)) as server:  # waits for the end of a head that never comes
        settings = OutboundSettings(connect_timeout_s=0.2)
        with pytest.raises(UpstreamUnavailable, match=r"no connection to .* within 0\.2 s"):
            await open_at(f"https://localhost:{server.port}/mcp", settings=settings)


# Proxies. What is asked of them is a name that only they could resolve.


class TunnelProxy:
    """Tunnels every CONNECT to one port of this machine."""

    def __init__(self, port: int, status: bytes) -> None:
        self._target = port
        self._status = status
        self.heads: list[str] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self.port = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.heads.append((await reader.readuntil(b"\r\n\r\n")).decode())
        writer.write(b"HTTP/1.1 " + self._status + b"\r\n\r\n")
        try:
            if self._status.startswith(b"200"):
                there, back = await asyncio.open_connection("127.0.0.1", self._target)
                await asyncio.gather(_pump(reader, back), _pump(there, writer))
        finally:
            writer.close()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[TunnelProxy]:
        def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            self._tasks.add(asyncio.ensure_future(self._serve(reader, writer)))

        server = await asyncio.start_server(accept, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            server.close()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
    except ConnectionError:
        pass
    finally:
        writer.close()


async def test_https_goes_through_a_tunnel(pki: Pki) -> None:
    context = pki.server(names=("far.test",))
    async with (
        raw_server(modern(plain), context=context) as server,
        TunnelProxy(server.port, b"200 OK").listening() as proxy,
    ):
        environ = {"HTTPS_PROXY": f"http://us:test-key@127.0.0.1:{proxy.port}"}
        peer = await open_at(
            "https://far.test/mcp",
            tls=ClientTls(ca=pki.ca),
            environ=environ,
            headers={"Authorization": "Bearer test-key-upstream"},
        )
        await ask(peer, "tools/list")
        assert proxy.heads[0].startswith("CONNECT far.test:443 HTTP/1.1\r\nHost: far.test:443\r\n")
        assert "Proxy-Authorization: Basic dXM6dGVzdC1rZXk=" in proxy.heads[0]
        assert "test-key-upstream" not in proxy.heads[0]
        assert server.requests[0].headers["host"] == "far.test"
        assert server.requests[0].headers["accept-encoding"] == "gzip"
        assert "proxy-authorization" not in server.requests[0].headers
        await peer.aclose()


async def test_a_refused_tunnel_is_said_clearly() -> None:
    async with TunnelProxy(1, b"407 Proxy Authentication Required").listening() as proxy:
        environ = {"https_proxy": f"http://us:test-key@127.0.0.1:{proxy.port}"}
        with pytest.raises(UpstreamUnavailable, match=r"refused the tunnel \(HTTP 407\)") as caught:
            await open_at("https://far.test/mcp", environ=environ)
        assert "test-key" not in str(caught.value)


async def test_http_goes_through_a_proxy_in_absolute_form() -> None:
    async with raw_server(modern(plain)) as proxy:
        environ = {"HTTP_PROXY": f"http://us:test-key@127.0.0.1:{proxy.port}"}
        peer = await open_at("http://far.test:8080/mcp?a=1", environ=environ)
        await ask(peer, "tools/list")
        assert proxy.requests[1].target == "http://far.test:8080/mcp?a=1"
        assert proxy.requests[1].headers["host"] == "far.test:8080"
        assert proxy.requests[1].headers["proxy-authorization"] == "Basic dXM6dGVzdC1rZXk="
        await peer.aclose()


async def test_loopback_does_not_go_through_a_proxy() -> None:
    async with raw_server(modern(plain)) as server:
        environ = {"HTTP_PROXY": f"http://127.0.0.1:{free_port()}"}
        peer = await open_at(server.url, environ=environ)
        assert "accept-encoding" not in server.requests[0].headers
        await peer.aclose()


async def test_a_head_that_comes_again_means_what_it_meant() -> None:
    """The second response has the head of the first, byte for byte, and is not parsed again."""
    answers = iter([b'{"a":1}', b'{"b":2}', b'"\\r\\n\\r\\n"', b'{"c":3}'])

    async def plain_answers(request: Request, line: Line) -> None:
        await line.result(request, next(answers))

    async with raw_server(modern(plain_answers)) as server:
        peer = await open_at(server.url)
        seen = [await ask(peer, "tools/list") for _ in range(4)]
        assert [b'{"a":1}' in seen[0], b'{"b":2}' in seen[1]] == [True, True]
        assert [b"\\r\\n\\r\\n" in seen[2], b'{"c":3}' in seen[3]] == [True, True]
        assert server.connections == 1
        await peer.aclose()


@pytest.mark.parametrize(
    ("tail", "text"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", ""),  # a second answer, unasked
        (None, "broke off in the middle"),
    ],
)
async def test_lengths_are_not_taken_on_trust(tail: bytes | None, text: str) -> None:
    """Neither more nor less than the head says is taken for one response."""
    count = 0

    async def odd(request: Request, line: Line) -> None:
        nonlocal count
        count += 1
        body = b'{"jsonrpc":"2.0","id":%b,"result":{}}' % request.id
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        whole = head % len(body) + body
        if count < 3:
            await line.send(whole)
        elif tail is None:
            await line.send(whole[:-4])
            await line.cut()
        else:
            await line.send(whole + tail)

    async with raw_server(modern(odd)) as server:
        peer = await open_at(server.url)
        for _ in range(2):
            await ask(peer, "tools/call", b'{"name":"x"}')
        if tail is None:
            with pytest.raises(UpstreamBroken, match=text):
                await ask(peer, "tools/call", b'{"name":"x"}')
        else:
            assert b'"result":{}' in await ask(peer, "tools/call", b'{"name":"x"}')
        count = 0
        assert b'"result":{}' in await ask(peer, "tools/call", b'{"name":"x"}')
        assert server.connections == 2  # the odd one is not used again
        await peer.aclose()
