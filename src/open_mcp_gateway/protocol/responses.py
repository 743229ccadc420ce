"""What a server's response has to be before anybody gets it (JSON-RPC 2.0 section 5)."""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import UNSET, Raw, Struct

from open_mcp_gateway.protocol.jsonrpc import Incoming, encode
from open_mcp_gateway.protocol.members import repeated
from open_mcp_gateway.protocol.surrogates import Lenient

_MEMBERS: Final = frozenset({"jsonrpc", "id", "result", "error"})

# All of a response but the digits of its id and its payload, in the shortest way of writing it.
_AROUND_RESULT_BYTES: Final = len(b'{"jsonrpc":"2.0","id":,"result":}')
_AROUND_ERROR_BYTES: Final = len(b'{"jsonrpc":"2.0","id":,"error":}')
_ONE_MORE_BYTES: Final = len(b',"id":1')
"""The shortest member that could be one of those over again."""

_members = Lenient(dict[str, Raw])


class _Error(Struct):
    code: int
    message: str


_error = Lenient(_Error)


class Unsound(Exception):
    """It is no response; the text reads on after ``Server 'x'``."""


def sound(incoming: Incoming, message: bytes, upstream_id: int) -> bytes:
    """The response ``message``, read as ``incoming``, with each of its members once.

    As it came, unless one is there twice: then what was read is written anew, for its reader might
    go by the other.

    Raises:
        Unsound: says why.
    """
    if incoming.jsonrpc != "2.0":
        raise Unsound('answered without "jsonrpc":"2.0"')
    result, error = incoming.result, incoming.error
    if error is UNSET:
        if result is UNSET:
            raise Unsound("answered with neither of result and error")
        spare = len(message) - len(result) - _AROUND_RESULT_BYTES
    elif result is not UNSET:
        raise Unsound("answered with both of result and error")
    elif not is_error(error):
        raise Unsound("answered with an error that has no integer code or no message")
    else:
        spare = len(message) - len(error) - _AROUND_ERROR_BYTES
    # One digit at the least; counting them all costs more than this look.
    if spare > _ONE_MORE_BYTES and spare - len(b"%d" % upstream_id) >= _ONE_MORE_BYTES:
        return _said_once(message)
    return message


def is_error(error: Raw) -> bool:
    """Whether this is what JSON-RPC calls an error object."""
    try:
        _error.decode(error)
    except msgspec.DecodeError:
        return False
    return True


def _said_once(message: bytes) -> bytes:
    if repeated(message, _MEMBERS) is None:
        return message
    return encode(_members.decode(message))
