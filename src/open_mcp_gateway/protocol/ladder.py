"""The checks on a stateless request, in order; the first that fails is the answer.

Spec: 2026-07-28 basic/transports#request-headers, basic/versioning and basic#_meta. Rungs 5
(``Mcp-Param-*``, needs the tool's schema) and 6 (client capabilities, the server's own business)
come later on the way.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec
from msgspec import Raw, Struct

from open_mcp_gateway.errors import (
    HeaderMismatch,
    InvalidParams,
    InvalidRequest,
    UnknownMethod,
    UnsupportedVersion,
)
from open_mcp_gateway.protocol.eras import MODERN_VERSIONS
from open_mcp_gateway.protocol.headers import NAMED_BY, decode_value
from open_mcp_gateway.protocol.jsonrpc import Call, Params
from open_mcp_gateway.protocol.meta import (
    CLIENT_CAPABILITIES,
    LOG_LEVEL,
    PROGRESS_TOKEN,
    PROTOCOL_VERSION,
    read_meta,
    without_connection_owned,
)
from open_mcp_gateway.protocol.surrogates import Lenient

REMOVED: Final = frozenset(
    {
        "initialize",
        "ping",
        "logging/setLevel",
        "resources/subscribe",
        "resources/unsubscribe",
        "tasks/list",
        "tasks/result",
    }
)
"""Methods of the session era that no stateless server may know."""

_LEVELS: Final = frozenset(
    {"debug", "info", "notice", "warning", "error", "critical", "alert", "emergency"}
)
_VERSION_HEADER: Final = b"mcp-protocol-version"
_METHOD_HEADER: Final = b"mcp-method"
_NAME_HEADER: Final = b"mcp-name"
_OWS: Final = b" \t"

_text = msgspec.json.Decoder(str)
_object = Lenient(dict[str, Raw])


class ModernRequest(Struct, frozen=True):
    """A request that passed; ``call`` carries what is sent on, without connection-owned members."""

    call: Call
    version: str


def climb(call: Call, headers: Iterable[tuple[bytes, bytes]] | None) -> ModernRequest:
    """Check one request; ``headers`` is None on stdio, where there are none to compare.

    Raises:
        InvalidParams, HeaderMismatch, UnsupportedVersion, UnknownMethod: rungs 1 to 4.
    """
    meta = _rung_1_meta(call)
    version = _version(meta)
    if headers is not None:
        _rung_2_headers(call, version, headers)
    if version not in MODERN_VERSIONS:
        raise UnsupportedVersion(
            "Unsupported protocol version", supported=MODERN_VERSIONS, requested=version
        )
    if call.method in REMOVED:
        raise UnknownMethod(f"Method not found: {call.method}")
    sent = Call(
        call.method,
        call.id,
        without_connection_owned(call.params),
        progress_token=meta.get(PROGRESS_TOKEN),
        capabilities=meta[CLIENT_CAPABILITIES],
        log_level=_log_level(meta),
    )
    return ModernRequest(sent, version)


def _rung_1_meta(call: Call) -> Params:
    try:
        meta = read_meta(call.params or {})
    except InvalidRequest as error:
        raise InvalidParams(error.public) from error
    for name in (PROTOCOL_VERSION, CLIENT_CAPABILITIES):
        if name not in meta:
            raise InvalidParams(f"params._meta lacks '{name}'")
    try:
        _object.decode(meta[CLIENT_CAPABILITIES])
    except msgspec.DecodeError as error:
        raise InvalidParams(f"'{CLIENT_CAPABILITIES}' must be an object") from error
    return meta


def _version(meta: Params) -> str:
    try:
        return _text.decode(meta[PROTOCOL_VERSION])
    except msgspec.DecodeError as error:
        raise InvalidParams(f"'{PROTOCOL_VERSION}' must be a string") from error


def _log_level(meta: Params) -> Raw | None:
    raw = meta.get(LOG_LEVEL)
    if raw is None:
        return None
    try:
        known = _text.decode(raw) in _LEVELS
    except msgspec.DecodeError:
        known = False
    if not known:
        raise InvalidParams(f"'{LOG_LEVEL}' must be one of {', '.join(sorted(_LEVELS))}")
    return raw


def _rung_2_headers(call: Call, version: str, headers: Iterable[tuple[bytes, bytes]]) -> None:
    sent = _routing_headers(headers)
    _compare(sent, _VERSION_HEADER, version)
    _compare(sent, _METHOD_HEADER, call.method)
    member = NAMED_BY.get(call.method)
    if member is None:
        return
    raw = (call.params or {}).get(member)
    if raw is None:
        if _NAME_HEADER in sent:
            raise HeaderMismatch(f"Mcp-Name is there, but params.{member} is not")
        return
    try:
        name = _text.decode(raw)
    except msgspec.DecodeError as error:
        raise InvalidParams(f"'params.{member}' must be a string") from error
    _compare(sent, _NAME_HEADER, name)


def _routing_headers(headers: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    sent: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in (_VERSION_HEADER, _METHOD_HEADER, _NAME_HEADER):
            if name in sent:
                raise HeaderMismatch(f"{_shown(name)} is there twice")
            sent[name] = value.strip(_OWS)
    return sent


def _compare(sent: dict[bytes, bytes], name: bytes, expected: str) -> None:
    value = sent.get(name)
    if value is None:
        raise HeaderMismatch(f"{_shown(name)} is required")
    text = value.decode("latin-1")
    if name == _NAME_HEADER:
        try:
            text = decode_value(text)
        except ValueError as error:
            raise HeaderMismatch(f"{_shown(name)} is {error}") from error
    if text != expected:
        raise HeaderMismatch(f"{_shown(name)} does not match the body")


def _shown(name: bytes) -> str:
    return {_VERSION_HEADER: "MCP-Protocol-Version", _METHOD_HEADER: "Mcp-Method"}.get(
        name, "Mcp-Name"
    )
