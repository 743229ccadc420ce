"""What the gateway says in a handshake and how it reads the answers: ``server/discover`` and
``initialize``.

Spec: 2026-07-28 basic/versioning and server/discover; 2025-11-25 basic/lifecycle#initialization.
"""

from __future__ import annotations

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from open_mcp_gateway import __version__
from open_mcp_gateway.outbound.peer import Handshake
from open_mcp_gateway.protocol.eras import (
    LATEST_LEGACY,
    LATEST_MODERN,
    LEGACY_VERSIONS,
    MODERN_VERSIONS,
    Era,
)
from open_mcp_gateway.protocol.jsonrpc import Params, encode
from open_mcp_gateway.protocol.meta import modern_meta, modern_params
from open_mcp_gateway.protocol.surrogates import Lenient

DISCOVER = "server/discover"
INITIALIZE = "initialize"
INITIALIZED = "notifications/initialized"

CLIENT_INFO: bytes = encode({"name": "open-mcp-gateway", "version": __version__})
NO_CAPABILITIES: bytes = b"{}"
"""A session opened with these may be shared: the server has nothing to ask its client."""

HEADER_MISMATCH = -32020
MISSING_CLIENT_CAPABILITY = -32021
UNSUPPORTED_VERSION = -32022

_QUOTED_CHARS = 300
_VERSION_CHARS = 32
_MOST_VERSIONS = 16


class AskAgain(Struct, frozen=True):
    """The server is modern but wants the question put differently."""

    version: str


class NotModern(Struct, frozen=True):
    """The server is to be opened with ``initialize``."""


class NoWay(Struct, frozen=True):
    """The server answered, but there is no way to speak with it."""

    reason: str
    """Reads on after ``Server 'x'``; may quote the server, so scrub it before it is shown."""


class _Error(Struct):
    code: int
    message: str = ""
    data: Raw | UnsetType = UNSET


class _Answer(Struct):
    result: Raw | UnsetType = UNSET
    error: Raw | UnsetType = UNSET


class _Supported(Struct):
    supported: list[str]


class _Discovered(Struct):
    versions: list[str] = msgspec.field(name="supportedVersions")


class _Initialized(Struct):
    version: str = msgspec.field(name="protocolVersion")


_answer = Lenient(_Answer)
_error = Lenient(_Error)
_supported = Lenient(_Supported)
_discovered = Lenient(_Discovered)
_initialized = Lenient(_Initialized)


def discover_params(version: str = LATEST_MODERN, capabilities: bytes = NO_CAPABILITIES) -> Params:
    """What ``server/discover`` is asked with. ``capabilities`` is the raw JSON of an object."""
    return modern_params(None, modern_meta(version, capabilities, CLIENT_INFO))


def initialize_params(
    capabilities: bytes = NO_CAPABILITIES, version: str = LATEST_LEGACY
) -> Params:
    """What ``initialize`` is sent with. ``capabilities`` is the raw JSON of an object."""
    return {
        "protocolVersion": Raw(encode(version)),
        "capabilities": Raw(capabilities),
        "clientInfo": Raw(CLIENT_INFO),
    }


def judge_discovery(answer: bytes) -> Handshake | AskAgain | NotModern | NoWay:
    """What the response to ``server/discover`` says about the server's era.

    Never keyed on one code: whatever is not a modern answer means ``initialize``.
    """
    read = _answer.decode(answer)
    if read.result is not UNSET:
        try:
            versions = _discovered.decode(read.result).versions
        except msgspec.DecodeError:
            return NotModern()
        chosen = _newest(versions)
        if chosen is not None:
            return Handshake(era=Era.MODERN, version=chosen, result=bytes(read.result))
        return _not_in_common(versions)
    error = _read_error(read)
    if error.code == UNSUPPORTED_VERSION:
        return _other_version(error)
    if error.code == HEADER_MISMATCH:
        return AskAgain(LATEST_MODERN)
    if error.code == MISSING_CLIENT_CAPABILITY:
        return NoWay(f"wants client capabilities the gateway does not have: {_quote(error)}")
    return NotModern()


def read_initialize(answer: bytes) -> Handshake | NoWay:
    """What the response to ``initialize`` agreed on."""
    read = _answer.decode(answer)
    if read.result is UNSET:
        return NoWay(f"refused initialize: {_quote(_read_error(read))}")
    try:
        version = _initialized.decode(read.result).version
    except msgspec.DecodeError:
        return NoWay("answered initialize without a protocolVersion")
    if version not in LEGACY_VERSIONS:
        return NoWay(
            f"answered initialize with protocol version '{version[:_QUOTED_CHARS]}'; "
            f"the gateway speaks {', '.join(LEGACY_VERSIONS)}"
        )
    return Handshake(era=Era.LEGACY, version=version, result=bytes(read.result))


def versions_of(handshake: Handshake) -> tuple[str, ...]:
    """The revisions of its era that a server is known to speak by its handshake; the one agreed on
    comes first, and what it says of others is bounded."""
    others: list[str] = []
    if handshake.era is Era.MODERN:
        listed = _discovered.decode(handshake.result).versions
        agreed = (handshake.version, *LEGACY_VERSIONS)
        others = [one for one in listed if one not in agreed and len(one) <= _VERSION_CHARS]
    return handshake.version, *others[:_MOST_VERSIONS]


def _newest(versions: list[str]) -> str | None:
    return next((known for known in reversed(MODERN_VERSIONS) if known in versions), None)


def _not_in_common(versions: list[str]) -> NotModern | NoWay:
    if not versions or any(version in LEGACY_VERSIONS for version in versions):
        return NotModern()
    return NoWay(
        f"speaks only protocol versions {', '.join(versions)[:_QUOTED_CHARS]}; "
        f"the gateway speaks {', '.join(LEGACY_VERSIONS + MODERN_VERSIONS)}"
    )


def _other_version(error: _Error) -> AskAgain | NotModern | NoWay:
    try:
        supported = _supported.decode(error.data or b"null").supported
    except msgspec.DecodeError:
        return NotModern()
    chosen = _newest(supported)
    return _not_in_common(supported) if chosen is None else AskAgain(chosen)


def _read_error(read: _Answer) -> _Error:
    try:
        return _error.decode(read.error or b"null")
    except msgspec.DecodeError:
        return _Error(code=0, message="an error of no known shape")


def _quote(error: _Error) -> str:
    return f"{error.message[:_QUOTED_CHARS]} (code {error.code})"
