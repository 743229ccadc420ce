"""Which ``Host`` and ``Origin`` may pass the door, and the CORS headers that follow from it. Pure.

Against DNS rebinding and web pages that drive a gateway on their visitor's machine: the check is
made on every request, whether CORS headers are sent or not. The grammar of both headers is in
``inbound/authority.py``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final, NewType, TypeAlias, final

from msgspec import Struct

from open_mcp_gateway.errors import ForeignOrigin, InvalidRequest
from open_mcp_gateway.inbound.authority import (
    MAX_AUTHORITY_BYTES,
    Authority,
    WebOrigin,
    is_loopback,
    parse_authority,
    parse_origin,
)

HeaderPairs: TypeAlias = tuple[tuple[bytes, bytes], ...]

AllowedOrigin = NewType("AllowedOrigin", bytes)
"""The ``Origin`` of a request exactly as sent, after ``OriginPolicy.check`` let it pass."""

_EXPOSED: Final = (
    b"ETag, Location, Mcp-Session-Id, Retry-After, WWW-Authenticate, X-Auth-Reason, X-Request-Id"
)
_METHODS: Final = b"GET, HEAD, POST, PUT, PATCH, DELETE"
_ASKED: Final = b"access-control-request-"
_MAX_AGE_S: Final = b"600"
_PREFLIGHT_VARY: Final = b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers"
_FIELD_NAMES: Final = re.compile(
    rb"[A-Za-z0-9!#$%&'*+.^_`|~-]+([ \t]*,[ \t]*[A-Za-z0-9!#$%&'*+.^_`|~-]+)*"
)
_MAX_FIELD_NAMES_BYTES: Final = 4096
_NULL: Final = b"null"
_MAX_ORIGIN_BYTES: Final = MAX_AUTHORITY_BYTES + 50
"""Room for a scheme before the host."""

_REMEMBERED: Final = 256
"""Distinct header values whose verdict is kept; each is at most a few hundred bytes long."""


class HostRule(Struct, frozen=True):
    """One entry of ``allowed_hosts``."""

    name: str
    """Normalised; with ``subdomains`` the parent domain, which itself is not meant."""

    port: int | None
    """None is any port."""

    subdomains: bool = False

    def admits(self, host: Authority, default_port: int) -> bool:
        if self.port is not None and self.port != (host.port or default_port):
            return False
        if self.subdomains:
            return host.name.endswith("." + self.name)
        return host.name == self.name


ANY: Final = "*"
"""As an entry of ``allowed_hosts`` or ``cors_origins``: all of them, in writing."""


def host_rule(text: str) -> HostRule:
    """An entry of ``allowed_hosts`` but ``*``: ``name``, ``name:port``, ``[::1]``, ``*.domain``.

    ValueError, with a text for the user, if it is none of these.
    """
    subdomains = text.startswith("*.")
    host = parse_authority(text[2:].encode() if subdomains else text.encode())
    if host is None or (subdomains and host.is_address):
        raise ValueError(
            f"{text!r} is not a host name; write it as in a URL, without scheme or path"
        )
    return HostRule(host.name, host.port, subdomains)


def origin_rule(text: str) -> WebOrigin | None:
    """An entry of ``cors_origins`` but ``*``: ``scheme://host[:port]``; None stands for ``null``.

    ValueError, with a text for the user, if it is none of these.
    """
    if text == "null":
        return None
    origin = parse_origin(text.encode())
    if origin is None:
        raise ValueError(f"{text!r} is not an origin; write scheme://host[:port] without a path")
    return origin


def public_origin(url: str) -> WebOrigin:
    """The origin of ``public_url``; ValueError, with a text for the user, if it has none."""
    scheme, _, rest = url.partition("://")
    origin = parse_origin(f"{scheme}://{rest.partition('/')[0]}".encode())
    if origin is None or not origin.is_web:
        raise ValueError(f"{url!r} is not a URL; write https://host[:port] and perhaps a path")
    return origin


@final
class OriginPolicy:
    """The rules of one configuration; immutable, a reload makes a new one.

    Where ``cors_origins`` or ``allowed_hosts`` is None the default depends on authentication: any
    while it is on, loopback only while it is off. An empty one allows none. ``public_url``, the
    address the operator gives out, is always allowed. ``scheme`` is that of the listener.
    """

    __slots__ = (
        "_any_host",
        "_any_origin",
        "_cors",
        "_default_port",
        "_host_verdict",
        "_hosts",
        "_loopback_hosts",
        "_loopback_origins",
        "_null",
        "_origin_verdict",
        "_origins",
    )

    def __init__(
        self,
        *,
        cors_enabled: bool,
        cors_origins: tuple[str, ...] | None,
        allowed_hosts: tuple[str, ...] | None,
        auth_enabled: bool,
        public_url: str | None,
        scheme: str = "http",
    ) -> None:
        origins = cors_origins or ()
        hosts = allowed_hosts or ()
        rules = [origin_rule(text) for text in origins if text != ANY]
        self._cors = cors_enabled
        self._any_origin = ANY in origins or (cors_origins is None and auth_enabled)
        self._any_host = ANY in hosts or (allowed_hosts is None and auth_enabled)
        self._loopback_origins = cors_origins is None
        self._loopback_hosts = allowed_hosts is None
        self._null = None in rules
        self._origins = {rule for rule in rules if rule is not None}
        self._hosts = [host_rule(text) for text in hosts if text != ANY]
        self._default_port = 443 if scheme == "https" else 80
        if public_url is not None:
            origin = public_origin(public_url)
            self._origins.add(origin)
            self._hosts.append(HostRule(origin.host.name, None))
        # A verdict depends on nothing but the value, and browsers and clients repeat theirs.
        self._host_verdict = lru_cache(_REMEMBERED)(self._host_allowed)
        self._origin_verdict = lru_cache(_REMEMBERED)(self._origin_allowed)

    def check(
        self, headers: Iterable[tuple[bytes, bytes]], *, http_version: str = "1.1"
    ) -> AllowedOrigin | None:
        """The allowed ``Origin`` of a request, None if it has none.

        Raises:
            ForeignOrigin: ``Host`` or ``Origin`` is not allowed.
            InvalidRequest: no proper ``Host``, or more than one (RFC 9112 section 3.2).
        """
        host: bytes | None = None
        origin: bytes | None = None
        for name, value in headers:
            if name == b"host":
                if host is not None:
                    raise InvalidRequest("More than one Host header")
                host = value
            elif name == b"origin":
                if origin is not None:
                    raise ForeignOrigin("More than one Origin header")
                origin = value
        self._check_host(host, http_version)
        if origin is None:
            return None
        if len(origin) > _MAX_ORIGIN_BYTES or not self._origin_verdict(origin):
            raise ForeignOrigin("Origin not allowed")
        return AllowedOrigin(origin)

    def preflight(
        self, method: bytes, headers: Iterable[tuple[bytes, bytes]], origin: AllowedOrigin | None
    ) -> HeaderPairs | None:
        """The headers of the 204 that answers a CORS preflight; None if this is not one.

        Source: Fetch standard, "CORS-preflight fetch". A plain OPTIONS is an ordinary request.
        """
        if method != b"OPTIONS" or origin is None or not self._cors:
            return None
        asked = {name: value for name, value in headers if name.startswith(_ASKED)}
        if not asked.get(b"access-control-request-method"):
            return None
        reply = [
            (b"access-control-allow-origin", bytes(origin)),
            (b"access-control-allow-methods", _METHODS),
        ]
        names = asked.get(b"access-control-request-headers", b"")
        if len(names) <= _MAX_FIELD_NAMES_BYTES and _FIELD_NAMES.fullmatch(names):
            reply.append((b"access-control-allow-headers", names))
        reply.append((b"access-control-max-age", _MAX_AGE_S))
        reply.append((b"vary", _PREFLIGHT_VARY))
        return tuple(reply)

    def cors_headers(self, origin: AllowedOrigin | None) -> HeaderPairs:
        """What every other answer carries, refusals included. Never ``*``, never credentials."""
        if origin is None or not self._cors:
            return ()
        return (
            (b"access-control-allow-origin", origin),
            (b"access-control-expose-headers", _EXPOSED),
            (b"vary", b"Origin"),
        )

    def _check_host(self, host: bytes | None, http_version: str) -> None:
        if host is None:
            if http_version != "1.0":
                raise InvalidRequest("Host header required")
            if not self._any_host:
                raise ForeignOrigin("Host header required")
            return
        verdict = None if len(host) > MAX_AUTHORITY_BYTES else self._host_verdict(host)
        if verdict is None:
            raise InvalidRequest("Invalid Host header")
        if not verdict:
            raise ForeignOrigin("Host not allowed")

    def _host_allowed(self, value: bytes) -> bool | None:
        """None if ``value`` is not a host at all."""
        host = parse_authority(value)
        if host is None:
            return None
        if self._any_host or (self._loopback_hosts and is_loopback(host)):
            return True
        return any(rule.admits(host, self._default_port) for rule in self._hosts)

    def _origin_allowed(self, value: bytes) -> bool:
        if value == _NULL:
            return self._any_origin or self._null
        origin = parse_origin(value)
        if origin is None:
            return False
        if self._any_origin or origin in self._origins:
            return True
        return self._loopback_origins and origin.is_web and is_loopback(origin.host)
