"""The URL of a remote server, taken apart once."""

from __future__ import annotations

import base64
import re
from urllib.parse import SplitResult, quote, unquote, urljoin, urlsplit

from msgspec import Struct

_PORTS = {"http": 80, "https": 443}
_KEPT = "/%:@!$&'()*+,;=~-._?"
_HOST = re.compile(r"[A-Za-z0-9._:%-]+")


class BadUrl(ValueError):
    """The URL cannot be used; the text says why and never quotes credentials."""


class Origin(Struct, frozen=True):
    """Scheme, host and port: what credentials are bound to (RFC 6454)."""

    scheme: str
    host: str
    """Without brackets, in its ASCII form."""

    port: int

    @property
    def authority(self) -> str:
        """``host``, with the port where it is not the scheme's own."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def place(self) -> str:
        """``host:port``, for people."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return f"{self.scheme}://{self.authority}"


class Endpoint(Struct, frozen=True):
    """Where requests go."""

    origin: Origin
    target: str
    """Path and query as sent."""

    basic: bytes | None = None
    """``user:password`` from the URL, base64-coded for an Authorization header."""

    def __str__(self) -> str:
        """For people: without userinfo and query, which may hold secrets."""
        return f"{self.origin}{self.target.partition('?')[0]}"

    def beside(self, reference: str) -> Endpoint:
        """What ``reference``, absolute or relative to here, stands for; without our credentials.

        Raises:
            BadUrl: it is not a usable URL.
        """
        try:
            return parse(urljoin(f"{self.origin}{self.target}", reference))
        except ValueError as error:
            raise BadUrl(str(error)) from error


def parse(url: str) -> Endpoint:
    """
    Raises:
        BadUrl: not an ``http(s)://`` URL with a host.
    """
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError as error:
        raise BadUrl("not a URL (check the host and the port)") from error
    if parts.scheme not in _PORTS:
        raise BadUrl("the URL must start with http:// or https://")
    origin = Origin(parts.scheme, _ascii_host(parts), port or _PORTS[parts.scheme])
    target = quote(parts.path or "/", safe=_KEPT)
    if parts.query:
        target += "?" + quote(parts.query, safe=_KEPT)
    return Endpoint(origin, target, _basic(parts))


def _ascii_host(parts: SplitResult) -> str:
    host = parts.hostname or ""
    if not host.isascii():
        try:
            host = host.encode("idna").decode()
        except UnicodeError as error:
            raise BadUrl("the host name is not valid") from error
    if not _HOST.fullmatch(host):
        raise BadUrl("the URL has no valid host name")
    return host


def _basic(parts: SplitResult) -> bytes | None:
    if parts.username is None and parts.password is None:
        return None
    pair = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    return base64.b64encode(pair.encode())
