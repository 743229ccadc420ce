"""Which proxy a URL goes through, by the environment variables that curl and others read."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from msgspec import Struct

from open_mcp_gateway.outbound.endpoint import BadUrl, Origin, parse


class Proxy(Struct, frozen=True):
    """An HTTP proxy: tunnels for https, absolute-form for http (RFC 9112 section 3.2.2)."""

    host: str
    port: int
    authorization: bytes | None = None
    """The value of Proxy-Authorization."""

    @property
    def place(self) -> str:
        """``host:port``, for people."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def proxy_for(origin: Origin, environ: Mapping[str, str]) -> Proxy | None:
    """The proxy for ``origin``, None for a direct connection.

    Loopback addresses never go through a proxy: they mean this machine, not the proxy's.

    Raises:
        BadUrl: the variable holds something that is not the URL of an HTTP proxy.
    """
    url = _first(environ, f"{origin.scheme}_proxy") or _first(environ, "all_proxy")
    if not url or is_loopback(origin.host) or _excepted(origin, _first(environ, "no_proxy")):
        return None
    try:
        endpoint = parse(url if "://" in url else f"http://{url}")
    except BadUrl as error:
        raise BadUrl(f"the proxy in {origin.scheme.upper()}_PROXY: {error}") from error
    if endpoint.origin.scheme != "http":
        raise BadUrl(f"the proxy in {origin.scheme.upper()}_PROXY must be an http:// URL")
    authorization = None if endpoint.basic is None else b"Basic " + endpoint.basic
    return Proxy(endpoint.origin.host, endpoint.origin.port, authorization)


def is_loopback(host: str) -> bool:
    """``host`` means this machine by its name or address alone."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _first(environ: Mapping[str, str], name: str) -> str:
    """The variable in lower case, else in upper case; as curl prefers them."""
    return (environ.get(name) or environ.get(name.upper()) or "").strip()


def _excepted(origin: Origin, no_proxy: str) -> bool:
    return any(_matches(origin, entry) for entry in no_proxy.replace(",", " ").split())


def _matches(origin: Origin, entry: str) -> bool:
    if entry == "*":
        return True
    if "/" in entry:
        return _in_network(origin.host, entry)
    name, port = _split_port(entry.lower())
    if port is not None and port != origin.port:
        return False
    name = name.strip("[]").removeprefix("*").strip(".")
    host = origin.host.lower().rstrip(".")
    return bool(name) and (host == name or host.endswith("." + name))


def _split_port(entry: str) -> tuple[str, int | None]:
    head, colon, tail = entry.rpartition(":")
    plain = entry.count(":") == 1 or head.endswith("]")
    return (head, int(tail)) if colon and plain and tail.isdigit() else (entry, None)


def _in_network(host: str, entry: str) -> bool:
    try:
        return ipaddress.ip_address(host) in ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return False
