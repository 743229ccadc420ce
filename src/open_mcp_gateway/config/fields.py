"""The settings of ``config.yaml`` that can be checked one by one."""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Iterable
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from msgspec import Meta, Struct, inspect
from msgspec.structs import replace

from open_mcp_gateway.catalog.check import BOUNDS_S, DAY_S, wrong_url
from open_mcp_gateway.config.model import ListenAddress, LogFormat, LogLevel, ServerTls
from open_mcp_gateway.document.convert import Reader, Special
from open_mcp_gateway.document.paths import unreadable
from open_mcp_gateway.document.texts import Pair
from open_mcp_gateway.document.tree import Kind, Mapping, Scalar, Sequence, Tree
from open_mcp_gateway.errors import Problem
from open_mcp_gateway.inbound.access_log import AccessLog
from open_mcp_gateway.inbound.origin import ANY, host_rule, origin_rule

_LISTEN = re.compile(r"(?:\[(?P<v6>[^\[\]]*)\]|(?P<host>[A-Za-z0-9._-]+)):(?P<port>[0-9]{1,5})")
_HIGHEST_PORT = 65_535
_SMALLEST_BODY_BYTES = 1024
_LARGEST_BODY_BYTES = 1024**3

BOOL = inspect.BoolType()
COUNT = inspect.IntType(ge=1)

_IdleS = Annotated[int, Meta(ge=0, le=BOUNDS_S["idle_timeout_seconds"][1])]
_RequestS = Annotated[int, Meta(ge=1, le=BOUNDS_S["request_timeout_seconds"][1])]
_StartS = Annotated[int, Meta(ge=1, le=BOUNDS_S["start_timeout_seconds"][1])]
_HealthS = Annotated[int, Meta(ge=0, le=BOUNDS_S["health_check_interval_seconds"][1])]


class Plain(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The settings whose type and bounds are all there is to check; named as in ``Config``."""

    log_level: LogLevel = LogLevel.INFO
    log_format: LogFormat | None = None
    access_log: AccessLog = AccessLog.ERRORS
    idle_timeout_seconds: _IdleS = 300
    health_check_interval_seconds: _HealthS = 30
    start_timeout_seconds: _StartS = 60
    request_timeout_seconds: _RequestS = 30
    max_request_seconds: Annotated[int, Meta(ge=1, le=DAY_S)] = 600
    max_connections_per_server: Annotated[int, Meta(ge=1, le=10_000)] = 10
    max_body_bytes: Annotated[int, Meta(ge=_SMALLEST_BODY_BYTES, le=_LARGEST_BODY_BYTES)] = (
        8 * 1024 * 1024
    )
    cors_enabled: bool = True
    hot_reload: bool = True


def listen_address(text: str) -> ListenAddress | str:
    """``host:port`` or ``[address]:port``; a text says what is wrong."""
    match = _LISTEN.fullmatch(text)
    if match is None:
        return _wrong_listen(text)
    port = int(match["port"])
    if port > _HIGHEST_PORT:
        return f"has a port above {_HIGHEST_PORT}; write one from 0 to {_HIGHEST_PORT}"
    if match["host"] is None:
        return _v6_address(match["v6"], port)
    host = match["host"]
    if host.replace(".", "").isdigit():
        try:
            IPv4Address(host)
        except AddressValueError:
            return "has no valid IPv4 address; write e.g. 127.0.0.1:4444"
    return ListenAddress(host, port)


def _v6_address(host: str, port: int) -> ListenAddress | str:
    try:
        IPv6Address(host)
    except AddressValueError:
        return "has no valid IPv6 address in its brackets; write e.g. [::1]:4444"
    return ListenAddress(host, port)


def _wrong_listen(text: str) -> str:
    if text.isdigit():
        return "is a port without a host; write e.g. 127.0.0.1:4444"
    if "://" in text:
        return "is a URL; write host:port without a scheme, e.g. 127.0.0.1:4444"
    if text.count(":") > 1 and not text.startswith("["):
        return "has an IPv6 address without brackets; write e.g. [::1]:4444"
    if text.startswith((":", "*:")):
        return "has no host; write 127.0.0.1:4444, or 0.0.0.0:4444 for every interface"
    if ":" not in text.rpartition("]")[2]:
        return "has no port; write e.g. 127.0.0.1:4444"
    return "is not host:port; write e.g. 127.0.0.1:4444 or [::1]:4444"


def read_listen_address(node: Tree, reader: Reader) -> ListenAddress | None:
    if isinstance(node, Scalar) and node.kind is Kind.INT:
        reader.problem(node, _wrong_listen("0"))
        return None
    found = reader.text(node)
    if found is None:
        return None
    address = listen_address(found.real)
    if isinstance(address, str):
        reader.problem(node, address)
        return None
    return address


def read_origins(node: Tree, reader: Reader) -> tuple[str, ...] | None:
    return _entries(node, reader, _wrong_origin)


def read_hosts(node: Tree, reader: Reader) -> tuple[str, ...] | None:
    return _entries(node, reader, _wrong_host)


def _entries(
    node: Tree, reader: Reader, rule: Callable[[str], str | None]
) -> tuple[str, ...] | None:
    """A list that must be written as one: nothing at all could be read as none or as any."""
    if not isinstance(node, Sequence):
        message = f'must be a list, but is {node.called}; write [] for none, or ["*"] for any'
        reader.problem(node, message)
        return None
    pairs = [reader.ruled(item, rule) for item in node.items]
    good = tuple(pair.real for pair in pairs if pair is not None)
    return good if len(good) == len(pairs) else None


def _wrong_origin(text: str) -> str | None:
    return _refused(text, origin_rule, "is not an origin; write scheme://host[:port], or '*'")


def _wrong_host(text: str) -> str | None:
    return _refused(text, host_rule, "is not a host; write name or name:port, or '*'")


def _refused(text: str, rule: Callable[[str], object], mistake: str) -> str | None:
    try:
        if text != ANY:
            rule(text)
    except ValueError:
        return mistake
    return None


def wrong_public_url(text: str) -> str | None:
    mistake = wrong_url(text)
    if mistake is not None:
        return mistake
    split = urlsplit(text)
    if split.username is not None or split.query:
        return "holds a user or a query; write scheme, host and path alone"
    return None


class _TlsFiles(Struct, frozen=True, kw_only=True):
    cert: str
    key: str


def read_tls(node: Tree, reader: Reader, base: Path) -> ServerTls | None:
    """Both files, readable and fitting each other."""

    def read_file(child: Tree) -> Pair | None:
        pair = reader.path(child, base)
        reason = unreadable(Path(pair.real)) if pair else None
        if reason is not None:
            reader.problem(child, f"the file {reason}; mend the path or its permissions")
            return None
        return pair

    def required(name: str) -> Special:
        return lambda child, around: (
            read_file(child) if child is not None else reader.missing(around, name)
        )

    special = {name: required(name) for name in _TlsFiles.__struct_fields__}
    pair = reader.struct(node, _TlsFiles, special)
    if pair is None:
        return None
    tls = ServerTls(Path(pair.real.cert), Path(pair.real.key))
    _check_pair(tls, node, reader)
    return tls


def _check_pair(tls: ServerTls, node: Tree, reader: Reader) -> None:
    """That the listener will be able to use them; without asking for a passphrase."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(tls.cert, tls.key, password=lambda: "")
    except (OSError, ValueError):
        message = "certificate and key do not work together; give a PEM chain and its own key"
        reader.problem(node, f"{message}, the key without a passphrase")


def supported(node: Mapping, later: Iterable[str], problems: list[Problem]) -> Mapping:
    """``node`` without what is for a ``later`` version, and a problem for each of those that is
    there, whatever its value: no message about what may be written is to name them."""
    key_lines, entries = node.key_lines.copy(), node.entries.copy()
    for name in later:
        if key_lines.pop(name, None) is not None:
            entries.pop(name, None)
            dotted = f"{node.path}.{name}".removeprefix(".")
            message = (
                f"'{dotted}' is not supported by this version of the gateway yet; remove the block"
            )
            problems.append(Problem(node.key_where(name), message))
    return replace(node, key_lines=key_lines, entries=entries)
