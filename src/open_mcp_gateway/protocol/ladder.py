"""The checks on a stateless request, in order; the first that fails is the answer.

Spec: 2026-07-28 basic/transports#request-headers, basic/versioning and basic#_meta. Rungs 5
(``Mcp-Param-*``, needs the tool's schema) and 6 (client capabilities, the server's own business)
come later on the way.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Raw, Struct

from open_mcp_gateway.errors import (
    GatewayError,
    HeaderMismatch,
    InvalidParams,
    InvalidRequest,
    UnknownMethod,
    UnsupportedVersion,
)
from open_mcp_gateway.protocol.eras import MODERN_VERSIONS
from open_mcp_gateway.protocol.headers import METHOD, NAME, NAMED_BY
from open_mcp_gateway.protocol.headers import PROTOCOL_VERSION as VERSION
from open_mcp_gateway.protocol.jsonrpc import Call
from open_mcp_gateway.protocol.meta import (
    CLIENT_CAPABILITIES,
    LOG_LEVEL,
    PROGRESS_TOKEN,
    PROTOCOL_VERSION,
    members_of,
    not_owned,
)
from open_mcp_gateway.protocol.repeated import remembered
from open_mcp_gateway.protocol.routing import Routing
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

_text = msgspec.json.Decoder(str)
_object = Lenient(dict[str, Raw])


class _Claims(Struct, frozen=True, kw_only=True):
    """What a request says of itself and its sender in ``_meta``."""

    version: str
    capabilities: bytes
    progress_token: Raw | None
    log_level: Raw | None
    level_known: bool
    rest: Raw | None
    """What of ``_meta`` is sent on."""


def climb(call: Call, sent: Routing | None) -> Call:
    """Check one request; ``sent`` is None on stdio, where there are no headers to compare.

    Gives what is sent on, without connection-owned members.

    Raises:
        InvalidParams, HeaderMismatch, UnsupportedVersion, UnknownMethod: rungs 1 to 4.
    """
    params = call.params or {}
    claims = _claims(bytes(params.get("_meta", b"{}")))
    if sent is not None:
        if sent.twice is not None:
            raise HeaderMismatch(f"{sent.twice} is there twice")
        if sent.version != claims.version:
            raise _mismatch(VERSION, sent.version)
        if sent.method != call.method:
            raise _mismatch(METHOD, sent.method)
        member = NAMED_BY.get(call.method)
        if member is not None:
            raw = params.get(member)
            if raw is None or bytes(raw) != sent.raw_name:  # another spelling may be the same name
                _check_name(raw, member, sent)
    known = claims.version in MODERN_VERSIONS and claims.level_known
    if not known or call.method in REMOVED:
        raise _beyond_headers(call.method, claims)
    params = {**params}
    if claims.rest is None:
        params.pop("_meta", None)
    else:
        params["_meta"] = claims.rest
    return Call(
        call.method,
        call.id,
        params,
        progress_token=claims.progress_token,
        capabilities=claims.capabilities,
        log_level=claims.log_level,
    )


@remembered
def _claims(meta: bytes) -> _Claims:
    """Rung 1. Raises InvalidParams."""
    try:
        members = members_of(meta)
    except InvalidRequest as error:
        raise InvalidParams(error.public) from error
    for name in (PROTOCOL_VERSION, CLIENT_CAPABILITIES):
        if name not in members:
            raise InvalidParams(f"params._meta lacks '{name}'")
    try:
        _object.decode(members[CLIENT_CAPABILITIES])
    except msgspec.DecodeError as error:
        raise InvalidParams(f"'{CLIENT_CAPABILITIES}' must be an object") from error
    try:
        version = _text.decode(members[PROTOCOL_VERSION])
    except msgspec.DecodeError as error:
        raise InvalidParams(f"'{PROTOCOL_VERSION}' must be a string") from error
    level = members.get(LOG_LEVEL)
    return _Claims(
        version=version,
        capabilities=bytes(members[CLIENT_CAPABILITIES]),
        progress_token=members.get(PROGRESS_TOKEN),
        log_level=level,
        level_known=level is None or _is_level(level),
        rest=not_owned(members),
    )


def _is_level(raw: Raw) -> bool:
    try:
        return _text.decode(raw) in _LEVELS
    except msgspec.DecodeError:
        return False


def _beyond_headers(method: str, claims: _Claims) -> GatewayError:
    """Which of rungs 3 and 4 it was."""
    if claims.version not in MODERN_VERSIONS:
        return UnsupportedVersion(
            "Unsupported protocol version", supported=MODERN_VERSIONS, requested=claims.version
        )
    if method in REMOVED:
        return UnknownMethod(f"Method not found: {method}")
    return InvalidParams(f"'{LOG_LEVEL}' must be one of {', '.join(sorted(_LEVELS))}")


def _check_name(raw: Raw | None, member: str, sent: Routing) -> None:
    if raw is None:
        if sent.name is not None or sent.bad_name is not None:
            raise HeaderMismatch(f"{NAME} is there, but params.{member} is not")
        return
    try:
        name = _text.decode(raw)
    except msgspec.DecodeError as error:
        raise InvalidParams(f"'params.{member}' must be a string") from error
    if sent.bad_name is not None:
        raise HeaderMismatch(f"{NAME} is {sent.bad_name}")
    if sent.name != name:
        raise _mismatch(NAME, sent.name)


def _mismatch(header: str, value: str | None) -> HeaderMismatch:
    return HeaderMismatch(
        f"{header} {'is required' if value is None else 'does not match the body'}"
    )
