"""Making a connection: addresses raced, proxies tunnelled through, TLS on top."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable

from open_mcp_gateway.outbound.connection import Connection
from open_mcp_gateway.outbound.endpoint import Origin
from open_mcp_gateway.outbound.pool import DialError
from open_mcp_gateway.outbound.proxy import Proxy

STAGGER_S = 0.25
"""Head start of one address over the next. Source: RFC 8305 section 5."""

SILENCE_S = 30
"""After so long without a byte the other end is asked whether it is there."""

ASK_EVERY_S = 15
ASK_TIMES = 4
"""Without an answer the connection is given up."""

_KEEPALIVE = (
    (("TCP_KEEPIDLE", "TCP_KEEPALIVE"), SILENCE_S),  # Linux and Windows; macOS
    (("TCP_KEEPINTVL",), ASK_EVERY_S),
    (("TCP_KEEPCNT",), ASK_TIMES),
)

_MAX_TUNNEL_HEAD_BYTES = 16 * 1024


class Dialer:
    """Connections to one origin, directly or through a proxy."""

    def __init__(
        self,
        origin: Origin,
        proxy: Proxy | None,
        context: ssl.SSLContext | None,
        connect_timeout_s: float,
    ) -> None:
        self._origin = origin
        self._proxy = proxy
        self._context = context
        self._timeout_s = connect_timeout_s
        self._place = origin.place if proxy is None else f"the proxy {proxy.place}"

    async def __call__(self, make: Callable[[], Connection]) -> Connection:
        """
        Raises:
            DialError: why there is no connection, and what to look at.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                return await self._dial(make)
        except TimeoutError as error:
            raise DialError(
                f"cannot be reached: no connection to {self._place} within {self._timeout_s:g} s"
            ) from error
        except OSError as error:
            raise DialError(f"cannot be reached: {self._why(error)}") from error

    def _why(self, error: OSError) -> str:
        if isinstance(error, ssl.SSLCertVerificationError):
            return (
                f"the certificate of {self._place} was not accepted: {error.verify_message}; "
                "check `url`, or name its authority in `tls.ca`"
            )
        if isinstance(error, ssl.SSLError):
            return f"TLS with {self._place} failed: {error.reason or 'connection closed'}"
        if isinstance(error, ConnectionRefusedError):
            return f"connection refused at {self._place}; is the server running?"
        if isinstance(error, socket.gaierror):
            return f"no address for {self._place} ({error.strerror}); check `url`"
        if isinstance(error, ConnectionError) and self._context is not None:
            return f"TLS with {self._place} failed: connection closed"
        return f"no connection to {self._place}: {error.strerror or type(error).__name__}"

    async def _dial(self, make: Callable[[], Connection]) -> Connection:
        host, port = self._origin.host, self._origin.port
        if self._proxy is not None:
            host, port = self._proxy.host, self._proxy.port
        connected = await _connect(host, port)
        try:
            if self._proxy is not None and self._context is not None:
                await self._tunnel(connected, self._proxy)
            _, connection = await asyncio.get_running_loop().create_connection(
                make,
                sock=connected,
                ssl=self._context,
                server_hostname=None if self._context is None else self._origin.host,
            )
        except BaseException:
            connected.close()
            raise
        return connection

    async def _tunnel(self, connected: socket.socket, proxy: Proxy) -> None:
        """Ask for a tunnel. Source: RFC 9110 section 9.3.6."""
        loop = asyncio.get_running_loop()
        place = self._origin.place.encode()
        request = b"CONNECT %b HTTP/1.1\r\nHost: %b\r\n" % (place, place)
        if proxy.authorization is not None:
            request += b"Proxy-Authorization: %b\r\n" % proxy.authorization
        await loop.sock_sendall(connected, request + b"\r\n")
        head = b""
        while b"\r\n\r\n" not in head:
            piece = await loop.sock_recv(connected, 4096)
            head += piece
            if not piece or len(head) > _MAX_TUNNEL_HEAD_BYTES:
                raise DialError(f"cannot be reached: {self._place} broke off")
        words = head.split(b"\r\n", 1)[0].split(b" ", 2)
        if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].startswith(b"2"):
            status = words[1][:3].decode("latin-1") if len(words) > 1 else "no status"
            raise DialError(f"cannot be reached: {self._place} refused the tunnel (HTTP {status})")


_Address = tuple[int, object]


async def _connect(host: str, port: int) -> socket.socket:
    """A connected socket; addresses of both families are tried in turn, without waiting for the
    slow to fail (RFC 8305)."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    addresses = _interleaved([(family, address) for family, _, _, _, address in found])
    if len(addresses) == 1:
        return await _attempt(*addresses[0])
    attempts: set[asyncio.Task[socket.socket]] = set()
    errors: list[OSError] = []
    try:
        while addresses or attempts:
            if addresses:
                attempts.add(loop.create_task(_attempt(*addresses.pop(0))))
            done, attempts = await asyncio.wait(
                attempts,
                timeout=STAGGER_S if addresses else None,
                return_when=asyncio.FIRST_COMPLETED,
            )
            winner = _winner(done, errors)
            if winner is not None:
                return winner
    finally:
        await _abandon(attempts)
    raise next((e for e in errors if isinstance(e, ConnectionRefusedError)), errors[0])


def _interleaved(addresses: list[_Address]) -> list[_Address]:
    """The families alternate, the one the resolver preferred first (RFC 8305 section 4)."""
    first = [a for a in addresses if a[0] == addresses[0][0]]
    second = [a for a in addresses if a[0] != addresses[0][0]]
    mixed: list[_Address] = []
    while first or second:
        mixed += first[:1] + second[:1]
        first, second = first[1:], second[1:]
    return mixed


async def _attempt(family: int, address: object) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _notice_silence(sock)
        await asyncio.get_running_loop().sock_connect(sock, address)  # type: ignore[arg-type]
    except BaseException:
        sock.close()
        raise
    return sock


def _notice_silence(sock: socket.socket) -> None:
    """Have the system find out when the other end is gone without a word, as after a power cut or
    when something in between has forgotten the connection: who only listens never would."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for names, value in _KEEPALIVE:
        option = next((getattr(socket, name) for name in names if hasattr(socket, name)), None)
        if option is not None:
            sock.setsockopt(socket.IPPROTO_TCP, option, value)


def _winner(done: set[asyncio.Task[socket.socket]], errors: list[OSError]) -> socket.socket | None:
    winner: socket.socket | None = None
    for task in done:
        error = task.exception()
        if error is None and winner is None:
            winner = task.result()
        elif error is None:
            task.result().close()
        elif isinstance(error, OSError):
            errors.append(error)
        else:
            raise error
    return winner


async def _abandon(attempts: set[asyncio.Task[socket.socket]]) -> None:
    for task in attempts:
        task.cancel()
    for outcome in await asyncio.gather(*attempts, return_exceptions=True):
        if isinstance(outcome, socket.socket):
            outcome.close()
