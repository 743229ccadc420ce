"""Members of ``params`` that decide something, read so that no server can read them otherwise."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec
from msgspec import Raw

from open_mcp_gateway.errors import InvalidParams
from open_mcp_gateway.protocol.jsonrpc import Params
from open_mcp_gateway.protocol.members import repeated
from open_mcp_gateway.protocol.spelling import folded, misspelt
from open_mcp_gateway.protocol.surrogates import Lenient

USUAL: Final = frozenset(
    {
        *("_meta", "name", "arguments", "uri", "cursor", "ref", "argument", "context", "level"),
        *("task", "taskId", "requestState", "inputResponses", "notifications"),
    }
)
"""Members of requests of any revision, in their own spelling. Who has no others hides none."""

_members = Lenient(dict[str, Raw])
_text = msgspec.json.Decoder(str)
_texts = msgspec.json.Decoder(list[str])


def refuse_other_spellings(params: Params, guarded: Mapping[str, str]) -> None:
    """Refuse any of ``guarded`` (see ``protocol.spelling``) that is not spelt as it should be.

    Raises:
        InvalidParams: says which.
    """
    if USUAL.issuperset(params):
        return
    refuse_spellings(params, guarded)


def refuse_spellings(members: Iterable[str], guarded: Mapping[str, str]) -> None:
    """The same for any object.

    Raises:
        InvalidParams: says which.
    """
    name = misspelt(members, guarded)
    if name is not None:
        raise InvalidParams(f"'{name}' must be there once, in this spelling")


def has(members: Params, name: str) -> bool:
    """Whether ``name`` is there in any spelling: some parsers do not tell them apart."""
    plain = folded(name)
    return any(folded(other) == plain for other in members)


def only(members: Params, name: str) -> Raw:
    """The member ``name``.

    Raises:
        InvalidParams: it is not there, or another can be taken for it.
    """
    plain = folded(name)
    if [other for other in members if folded(other) == plain] != [name]:
        raise InvalidParams(f"'{name}' must be there once, in this spelling")
    return members[name]


def string(members: Params, name: str) -> str:
    """The string ``name``. Raises InvalidParams, also where ``only`` does."""
    try:
        text = _text.decode(only(members, name))
        text.encode()  # half a surrogate pair is no text
    except (msgspec.DecodeError, UnicodeEncodeError) as error:
        raise InvalidParams(f"'{name}' must be a string") from error
    return text


def strings(members: Params, name: str) -> list[str]:
    """The strings in the list ``name``. Raises InvalidParams, also where ``only`` does."""
    try:
        return _texts.decode(only(members, name))
    except msgspec.DecodeError as error:
        raise InvalidParams(f"'{name}' must be a list of strings") from error


def obj(members: Params, name: str) -> Params:
    """The members of the object ``name``, none of which may be there twice: it is sent as it is.

    Raises:
        InvalidParams: one is, or it is no object; also where ``only`` does.
    """
    raw = bytes(only(members, name))
    try:
        found = _members.decode(raw)
        twice = repeated(raw)
    except msgspec.DecodeError as error:
        raise InvalidParams(f"'{name}' must be an object") from error
    if twice is not None:
        raise InvalidParams(f"a member of '{name}' appears twice; send it once")
    return found
