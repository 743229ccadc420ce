"""The grammar of ``Host`` and ``Origin`` values, brought to one form for comparison. Pure.

Sources: RFC 9110 section 7.2 (Host), RFC 3986 section 3.2.2 (host), RFC 6454 section 7 (Origin).
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Final

from msgspec import Struct

MAX_AUTHORITY_BYTES: Final = 300
"""A DNS name has at most 253 characters; a longer value is refused unread."""

_AUTHORITY: Final = re.compile(
    r"(?:\[(?P<v6>[0-9A-Fa-f:.]+)\]|(?P<name>[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*)\.?)"
    r"(?::(?P<port>[0-9]{0,5}))?"
)
_SCHEME: Final = re.compile(r"[a-z][a-z0-9+.-]*")
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
_MAX_PORT: Final = 65535


class Authority(Struct, frozen=True):
    """A host and perhaps a port, normalised: ``LOCALHOST.:80`` is ``("localhost", 80)``."""

    name: str
    """Lower case, no trailing dot; an IPv6 address in brackets and in its shortest form."""

    port: int | None
    """None if none was given."""

    @property
    def is_address(self) -> bool:
        return self.name.startswith("[") or _ipv4(self.name) is not None


class WebOrigin(Struct, frozen=True):
    """A normalised origin; the port is the scheme's default where none was given."""

    scheme: str
    host: Authority

    @property
    def is_web(self) -> bool:
        """Whether a web page can have it: not an application's own scheme."""
        return self.scheme in _DEFAULT_PORTS


def parse_authority(value: bytes) -> Authority | None:
    """``host[:port]`` as in a URL without user information; None for anything else."""
    if len(value) > MAX_AUTHORITY_BYTES or not value.isascii():
        return None
    match = _AUTHORITY.fullmatch(value.decode("ascii"))
    if match is None:
        return None
    port = int(match["port"]) if match["port"] else None
    if port is not None and not 0 < port <= _MAX_PORT:
        return None
    if match["v6"] is None:
        return Authority(match["name"].lower(), port)
    try:
        return Authority(f"[{IPv6Address(match['v6'])}]", port)
    except AddressValueError:
        return None


def parse_origin(value: bytes) -> WebOrigin | None:
    """``scheme://host[:port]``; None for anything else, ``null`` too."""
    scheme, found, rest = value.lower().partition(b"://")
    host = parse_authority(rest) if found else None
    if host is None or not scheme.isascii() or not _SCHEME.fullmatch(scheme.decode("ascii")):
        return None
    name = scheme.decode("ascii")
    return WebOrigin(name, Authority(host.name, host.port or _DEFAULT_PORTS.get(name)))


def is_loopback(host: Authority) -> bool:
    """``localhost``, names under it (RFC 6761 section 6.3), 127.0.0.0/8 and ``[::1]``."""
    if host.name == "localhost" or host.name.endswith(".localhost") or host.name == "[::1]":
        return True
    address = _ipv4(host.name)
    return address is not None and address.is_loopback


def _ipv4(name: str) -> IPv4Address | None:
    try:
        return IPv4Address(name)
    except AddressValueError:
        return None
