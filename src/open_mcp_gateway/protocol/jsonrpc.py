"""JSON-RPC 2.0 messages as MCP uses them: read without looking into payloads, written as bytes.

Payloads stay ``msgspec.Raw``: what nobody must look into is never decoded, and reaches the other
side byte for byte. What was authorized is what is sent: envelope and ``params`` are written anew
from what was read, and a member that is read must not appear twice, because parsers differ on
which of the two counts.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TypeAlias

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from open_mcp_gateway.errors import MalformedMessage
from open_mcp_gateway.protocol.surrogates import Lenient, again

Params: TypeAlias = dict[str, Raw]
"""The members of a ``params`` object, each value as its own JSON text."""


class Call(Struct, frozen=True):
    """A request or notification on its way to one server.

    ``id`` is the raw JSON of the caller's id (``1``, ``"a"``), restored byte for byte in the reply;
    None marks a notification. Connection-owned ``_meta`` members (version, client capabilities,
    client info, progress token) were already taken out of ``params``.
    """

    method: str
    id: bytes | None
    params: Params | None = None
    progress_token: Raw | None = None
    """The caller's own, as raw JSON; None when it wants no progress."""

    capabilities: bytes | None = None
    """What a stateless caller says it can be asked for, as raw JSON; None: nothing."""

    log_level: Raw | None = None
    """From which level on a stateless caller wants log messages; None: none at all."""


class Incoming(Struct, frozen=True):
    """One message from a server: a response, a request or a notification, by its members."""

    jsonrpc: str | UnsetType = UNSET
    id: int | str | UnsetType | None = UNSET
    method: str | UnsetType = UNSET
    params: Raw | UnsetType = UNSET
    result: Raw | UnsetType = UNSET
    error: Raw | UnsetType = UNSET


_incoming = msgspec.json.Decoder(Incoming)
_members = Lenient(dict[str, Raw])
_encoder = msgspec.json.Encoder()

encode = _encoder.encode
"""Any JSON-able value as compact JSON; ``Raw`` goes through verbatim."""


def decode_incoming(line: bytes | bytearray | memoryview) -> Incoming:
    """One message from a server, validated as JSON as a whole.

    Raises:
        MalformedMessage: not a JSON object of JSON-RPC shape, or nested too deeply.
    """
    try:
        try:
            return _incoming.decode(line)
        except msgspec.DecodeError as error:
            return again(_incoming, line, error)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedMessage(f"not a JSON-RPC message: {error}") from error
    except RecursionError as error:
        raise MalformedMessage("JSON nested too deeply") from error


def encode_params(params: Params | None) -> bytes | None:
    """``params`` as JSON text, None when there are none."""
    return None if params is None else _encoder.encode(params)


@lru_cache(256)  # callers use the same few
def _quoted(method: str) -> bytes:
    return _encoder.encode(method)


def request(upstream_id: int, method: str, params: bytes | None) -> bytes:
    """A request as one line of JSON, without the line end."""
    name = _quoted(method)
    if params is None:
        return b'{"jsonrpc":"2.0","id":%d,"method":%b}' % (upstream_id, name)
    return b'{"jsonrpc":"2.0","id":%d,"method":%b,"params":%b}' % (upstream_id, name, params)


def notification(method: str, params: bytes | None) -> bytes:
    """A notification as one line of JSON, without the line end."""
    name = _encoder.encode(method)
    if params is None:
        return b'{"jsonrpc":"2.0","method":%b}' % name
    return b'{"jsonrpc":"2.0","method":%b,"params":%b}' % (name, params)


def response(raw_id: bytes, result: bytes) -> bytes:
    """A successful response around the raw JSON ``result``."""
    return b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (raw_id, result)


def error_response(raw_id: bytes | None, code: int, text: str, data: object = None) -> bytes:
    """An error response; ``raw_id`` None becomes ``null`` (JSON-RPC 2.0 section 5)."""
    error: dict[str, object] = {"code": code, "message": text}
    if data is not None:
        error["data"] = data
    return b'{"jsonrpc":"2.0","id":%b,"error":%b}' % (raw_id or b"null", _encoder.encode(error))


def restore_id(message: bytes, upstream_id: int, raw_id: bytes) -> bytes:
    """``message``, a valid response with ``upstream_id``, with the caller's own id in its place.

    Nothing else changes. The two common places of the id are spliced without decoding: right after
    ``jsonrpc`` at the front, and as the last member. Both are sound for valid JSON: the front is
    outside any nested value, and only the outermost object can end right after a bare number.
    """
    front = b'{"jsonrpc":"2.0","id":%d' % upstream_id
    size = len(front)
    if message.startswith(front) and message[size : size + 1] in (b",", b"}"):
        return b'{"jsonrpc":"2.0","id":' + raw_id + message[size:]
    back = b',"id":%d}' % upstream_id
    if message.endswith(back):
        return message[: -len(back)] + b',"id":' + raw_id + b"}"
    members = _members.decode(message)
    members["id"] = Raw(raw_id)
    return _encoder.encode(members)
