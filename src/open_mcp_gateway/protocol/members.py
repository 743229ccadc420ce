"""The members of JSON objects with those that appear twice, which other decoders lose."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from msgspec import Raw

from open_mcp_gateway.protocol.surrogates import Lenient


class _Name:
    """The name of one member; equal to no other, so that each keeps its place in a dict."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text


def _named(_: type[Any], text: str) -> _Name:
    return _Name(text)


_members = Lenient(dict[_Name, Raw], _named)


def values_of(text: bytes | Raw, name: str) -> list[Raw]:
    """The value of each member ``name`` of the JSON object ``text``.

    Raises:
        msgspec.DecodeError: it is no object.
    """
    return [value for member, value in _members.decode(text).items() if member.text == name]


def repeated(text: bytes | Raw, names: Collection[str] | None = None) -> str | None:
    """Which member of the JSON object ``text`` appears twice, of ``names`` if given; None: none.

    Raises:
        msgspec.DecodeError: it is no object.
    """
    seen: set[str] = set()
    for member in _members.decode(text):
        name = member.text
        if name in seen and (names is None or name in names):
            return name
        seen.add(name)
    return None
