"""JSON-RPC 2.0 messages as MCP uses them: read without looking into payloads, written as bytes.

Payloads stay ``msgspec.Raw``: what nobody must look into is never decoded, and reaches the other
side byte for byte. What was authorized is what is sent: envelope and ``params`` are written anew
from what was read, and a member that is read must not appear twice, because parsers differ on
which of the two counts.
"""

from __future__ import annotations

import itertools
import re
from functools import lru_cache
from typing import Final, TypeAlias

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from open_mcp_gateway.errors import InvalidRequest, MalformedMessage
from open_mcp_gateway.protocol.members import repeated
from open_mcp_gateway.protocol.nesting import nested_deeper
from open_mcp_gateway.protocol.surrogates import Lenient, again

MAX_DEPTH: Final = 512
"""How deep arrays and objects of a client's message may be nested."""

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


class Message(Struct, frozen=True):
    """One message from a client, members unread. ``server_id`` makes it the gateway's envelope.

    ``result`` and ``error`` are in answers to a server's question.
    """

    server_id: Raw | UnsetType = UNSET
    jsonrpc: Raw | UnsetType = UNSET
    id: Raw | UnsetType = UNSET
    method: Raw | UnsetType = UNSET
    params: Raw | UnsetType = UNSET
    result: Raw | UnsetType = UNSET
    error: Raw | UnsetType = UNSET


_TOP_LEVEL = frozenset({"server_id", "jsonrpc", "id", "method", "params", "result", "error"})
_ID = frozenset({"id"})
_IN_PARAMS = frozenset({"name", "uri", "ref", "notifications", "taskId", "cursor", "_meta"})
_INTEGER = re.compile(rb"-?(0|[1-9][0-9]*)")

_incoming = msgspec.json.Decoder(Incoming)
_message = msgspec.json.Decoder(Message)
_params = msgspec.json.Decoder(dict[str, Raw])
_members = Lenient(dict[str, Raw])
_text = msgspec.json.Decoder(str)
_encoder = msgspec.json.Encoder()
_made_ids = itertools.count(1)

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


def decode_message(body: bytes) -> Message:
    """One message from a client; syntax, depth and duplicate members checked, nothing else.

    Raises:
        MalformedMessage: not JSON, not UTF-8, or nested too deeply.
        InvalidRequest: JSON but not an object, or a member that counts is there twice; carries the
            id where there is one.
    """
    try:
        if not body.isascii():
            body.decode()  # msgspec skips over strings without checking their UTF-8
        try:
            message = _message.decode(body)
        except msgspec.DecodeError as error:
            message = again(_message, body, error)
    except msgspec.ValidationError as error:
        raise InvalidRequest("the body must be one JSON object") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedMessage(f"the body is not valid JSON: {error}") from error
    except RecursionError as error:
        raise MalformedMessage("the JSON is nested too deeply") from error
    # Each level takes two bytes.
    if len(body) > 2 * MAX_DEPTH and nested_deeper(body, MAX_DEPTH):
        raise MalformedMessage(f"the JSON is nested too deeply, over {MAX_DEPTH} levels")
    if _compact_size(message) != len(body):
        try:
            _refuse_duplicates(body, _TOP_LEVEL, "")
        except InvalidRequest as error:
            error.request_id = None if repeated(body, _ID) else raw_id_of(message)
            raise
    return message


def _compact_size(message: Message) -> int:
    """The size of ``message`` written without blanks, unknown members or duplicates.

    A body of exactly this size holds nothing else; any other needs a closer look.
    """
    # Two braces, and for each member its name in quotes, a colon and, but for one, a comma.
    size = 1
    if message.server_id is not UNSET:
        size += 13 + len(message.server_id)
    if message.jsonrpc is not UNSET:
        size += 11 + len(message.jsonrpc)
    if message.id is not UNSET:
        size += 6 + len(message.id)
    if message.method is not UNSET:
        size += 10 + len(message.method)
    if message.params is not UNSET:
        size += 10 + len(message.params)
    return size


def _refuse_duplicates(text: bytes | Raw, names: frozenset[str], prefix: str) -> None:
    """Refuse an object in which one of ``names`` appears twice."""
    try:
        name = repeated(text, names)
    except msgspec.DecodeError as error:
        raise MalformedMessage(f"the body is not valid JSON: {error}") from error
    if name is not None:
        raise InvalidRequest(f"member '{prefix}{name}' appears twice; send it once")


def text_of(raw: Raw, member: str) -> str:
    """The string in ``raw``.

    Raises:
        InvalidRequest: it is not a non-empty string; the text names ``member``.
    """
    try:
        text = _text.decode(raw)
    except msgspec.DecodeError:
        text = ""
    if not text:
        raise InvalidRequest(f"'{member}' must be a non-empty string")
    return text


def call_of(message: Message, *, enveloped: bool = False) -> Call:
    """The request or notification in ``message``; a request without ``id`` is given one.

    ``enveloped`` ones may leave ``jsonrpc`` out.

    Raises:
        InvalidRequest: what is missing or of the wrong type; carries the id where that is known.
    """
    raw_id = None if message.id is UNSET else _checked_id(message.id)
    try:
        if message.jsonrpc is UNSET:
            if not enveloped:
                raise InvalidRequest('\'jsonrpc\' is missing; send "jsonrpc":"2.0"')
        elif bytes(message.jsonrpc) != b'"2.0"':
            raise InvalidRequest("'jsonrpc' must be \"2.0\"")
        if message.method is UNSET:
            raise InvalidRequest('\'method\' is missing; send {"method": "tools/list"} or another')
        method = text_of(message.method, "method")
        params = None if message.params is UNSET else _params_of(message.params)
    except InvalidRequest as error:
        error.request_id = raw_id
        raise
    if method.startswith("notifications/"):
        return Call(method, None, params)
    if raw_id is None:
        raw_id = b'"req-%d"' % next(_made_ids)
    return Call(method, raw_id, params)


def raw_id_of(message: Message | None) -> bytes | None:
    """The id to answer ``message`` with when it cannot be acted on; None where none is usable."""
    if message is None or message.id is UNSET:
        return None
    try:
        return _checked_id(message.id)
    except InvalidRequest:
        return None


def _checked_id(raw: Raw) -> bytes:
    """The raw id; MCP allows strings and integers only (2025-11-25 basic#requests)."""
    text = bytes(raw)
    if text[:1] != b'"' and not text.isdigit() and not _INTEGER.fullmatch(text):
        raise InvalidRequest("'id' must be a string or an integer")
    return text


def _params_of(raw: Raw) -> Params | None:
    if len(raw) == 4 and bytes(raw) == b"null":
        return None
    try:
        try:
            params = _params.decode(raw)
        except msgspec.DecodeError as error:
            params = again(_params, raw, error)
    except msgspec.DecodeError as error:
        raise InvalidRequest("'params' must be a JSON object") from error
    # Two braces, and for each member two quotes, a colon and, but for one, a comma.
    size = 1
    for name, value in params.items():
        size += len(name) + 4 + len(value)
    if size != len(raw):
        _refuse_duplicates(raw, _IN_PARAMS, "params.")
    return params


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
