"""HTTP by hand: bytes out, a parsed answer back, for requests that no client library would send."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Answer:
    """What came back. ``status`` is 0 if the connection was closed without a word."""

    status: int
    headers: tuple[tuple[str, str], ...]
    """Names in lower case, in the order received."""

    body: bytes

    def all(self, name: str) -> list[str]:
        """Every value of a header, in order."""
        return [value for each, value in self.headers if each == name]

    def listed(self, name: str) -> set[str]:
        """The members of a list header, over all its lines, in lower case."""
        return {part.strip().lower() for part in ",".join(self.all(name)).split(",") if part}


def request(
    target: bytes,
    *headers: tuple[bytes, bytes],
    method: bytes = b"GET",
    body: bytes = b"",
    version: bytes = b"1.1",
) -> bytes:
    """A whole request. ``Host`` and, for a body, ``Content-Length`` are added; nothing else is."""
    lines = [b"%b %b HTTP/%b" % (method, target, version)]
    if not any(name.lower() == b"host" for name, _ in headers):
        lines.append(b"Host: localhost")
    lines += [name + b": " + value for name, value in headers]
    if body:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([*lines, b"", body])


class Wire:
    """One connection."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self._stream: BinaryIO = connection.makefile("rb")

    def send(self, raw: bytes) -> None:
        # Refused before all of it was read: the answer is there to read all the same.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.connection.sendall(raw)

    def receive(self, method: bytes = b"GET") -> Answer:
        """The next answer; ``method`` is that of its request and says if a body follows."""
        try:
            line = self._stream.readline()
            if not line:
                return Answer(0, (), b"")
            status = int(line.split(b" ", 2)[1])
            headers = tuple(self._headers())
            return Answer(status, headers, self._body(method, status, dict(headers)))
        except ConnectionResetError:
            return Answer(0, (), b"")

    def ended(self) -> bool:
        """Waits until the other side closes; False if it says something more instead."""
        try:
            return self._stream.read(1) == b""
        except ConnectionResetError:
            return True

    def _headers(self) -> Iterator[tuple[str, str]]:
        while line := self._stream.readline().rstrip(b"\r\n"):
            name, _, value = line.decode("latin-1").partition(":")
            yield name.lower(), value.strip()

    def _body(self, method: bytes, status: int, headers: dict[str, str]) -> bytes:
        if method == b"HEAD" or status < 200 or status in (204, 304):
            return b""
        if headers.get("transfer-encoding") == "chunked":
            return b"".join(self._chunks())
        if "content-length" in headers:
            return self._stream.read(int(headers["content-length"]))
        return self._stream.read()

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self._stream.readline(), 16):
            yield self._stream.read(size)
            self._stream.readline()
        self._stream.readline()

    def close(self) -> None:
        self._stream.close()
        self.connection.close()


@contextlib.contextmanager
def connect(host: str, port: int) -> Iterator[Wire]:
    """A connection to send on as one likes."""
    wire = Wire(socket.create_connection((host, port), TIMEOUT_S))
    try:
        yield wire
    finally:
        wire.close()


def send(host: str, port: int, raw: bytes, *, method: bytes = b"GET") -> Answer:
    """The first answer to ``raw`` on a connection of its own."""
    with connect(host, port) as wire:
        wire.send(raw)
        return wire.receive(method)
