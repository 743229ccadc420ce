"""Messages of clients: read by their members, refused where two programs could read them apart.

Source: JSON-RPC 2.0; 2025-11-25 basic#messages. Hot: a body is gone through once.
"""

from __future__ import annotations

import itertools
import re
from typing import Final

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from open_mcp_gateway.errors import InvalidRequest, MalformedMessage
from open_mcp_gateway.protocol.jsonrpc import Call, Params
from open_mcp_gateway.protocol.members import repeated
from open_mcp_gateway.protocol.nesting import nested_deeper
from open_mcp_gateway.protocol.surrogates import Lenient, again

MAX_DEPTH: Final = 512
"""How deep arrays and objects of a client's message may be nested."""

JSONRPC: Final = Raw(b'"2.0"')
"""The one value of the member ``jsonrpc``."""


class Message(Struct, frozen=True):
    """One message from a client, members unread. ``server_id`` makes it the gateway's envelope.

    ``result`` and ``error`` are in answers to a server's question.
    """

    server_id: Raw | UnsetType = UNSET
    jsonrpc: Raw | UnsetType = UNSET
    id: Raw | UnsetType = UNSET
    method: Raw | UnsetType = UNSET
    params: Params | UnsetType | None = UNSET
    result: Raw | UnsetType = UNSET
    error: Raw | UnsetType = UNSET


class _NoCall(Message, frozen=True, kw_only=True):
    """One whose ``params`` are not those of a call, and why."""

    flaw: str


class _Loose(Struct, frozen=True):
    """A message whose ``params`` may be anything."""

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

_message = msgspec.json.Decoder(Message)
_loose = Lenient(_Loose)
_text = msgspec.json.Decoder(str)
_made_ids = itertools.count(1)


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
            message = _decode_otherwise(body, error)
    except msgspec.ValidationError as error:
        raise InvalidRequest("the body must be one JSON object") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedMessage(f"the body is not valid JSON: {error}") from error
    except RecursionError as error:
        raise MalformedMessage("the JSON is nested too deeply") from error
    # Each level takes two bytes.
    if len(body) > 2 * MAX_DEPTH and nested_deeper(body, MAX_DEPTH):
        raise MalformedMessage(f"the JSON is nested too deeply, over {MAX_DEPTH} levels")
    return message if _compact_size(message) == len(body) else _without_duplicates(body, message)


def _decode_otherwise(body: bytes, error: msgspec.DecodeError) -> Message:
    """Half characters in it, or ``params`` that are no object. Raises as ``Lenient.decode``."""
    try:
        return again(_message, body, error)
    except msgspec.DecodeError:
        return _no_call(_loose.decode(body), "'params' must be a JSON object")


def _no_call(read: _Loose | Message, flaw: str) -> _NoCall:
    members = {name: getattr(read, name) for name in read.__struct_fields__ if name != "params"}
    return _NoCall(**members, flaw=flaw)


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
    if message.params:
        size += 11  # the same again, for ``params`` itself
        for name, value in message.params.items():
            size += len(name) + 4 + len(value)
    return size


def _without_duplicates(body: bytes, message: Message) -> Message:
    """``message``, no call if a member of its ``params`` that counts is there twice.

    Raises:
        InvalidRequest: such a member of its own is there twice.
    """
    try:
        _refuse_duplicates(body, _TOP_LEVEL, "")
    except InvalidRequest as error:
        error.request_id = None if repeated(body, _ID) else raw_id_of(message)
        raise
    if message.params:
        try:
            _refuse_duplicates(_params_in(body), _IN_PARAMS, "params.")
        except InvalidRequest as error:
            return _no_call(message, error.public)
    return message


def _params_in(body: bytes) -> Raw:
    params = _loose.decode(body).params
    return Raw(b"{}") if params is UNSET else params


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
    raw_id = None if message.id is UNSET else checked_id(message.id)
    try:
        if message.jsonrpc is UNSET:
            if not enveloped:
                raise InvalidRequest('\'jsonrpc\' is missing; send "jsonrpc":"2.0"')
        elif message.jsonrpc != JSONRPC:
            raise InvalidRequest("'jsonrpc' must be \"2.0\"")
        if message.method is UNSET:
            raise InvalidRequest('\'method\' is missing; send {"method": "tools/list"} or another')
        method = text_of(message.method, "method")
        if type(message) is _NoCall:
            raise InvalidRequest(message.flaw)
    except InvalidRequest as error:
        error.request_id = raw_id
        raise
    params = None if message.params is UNSET else message.params
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
        return checked_id(message.id)
    except InvalidRequest:
        return None


def checked_id(raw: Raw) -> bytes:
    """The raw id; MCP allows strings and integers only (2025-11-25 basic#requests).

    Raises:
        InvalidRequest: it is something else.
    """
    text = bytes(raw)
    if not text.isdigit() and text[:1] != b'"' and not _INTEGER.fullmatch(text):
        raise InvalidRequest("'id' must be a string or an integer")
    return text
