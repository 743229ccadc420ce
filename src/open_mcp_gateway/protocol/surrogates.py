r"""JSON with half a character in it, ``"\ud83d"``, as programs write that cut an emoji in two.

It is JSON by RFC 8259 (section 8.2), and msgspec refuses it even in values that it only skips over.
So what was refused is tried once more with those escapes put aside, and payloads get them back byte
for byte. Only what is decoded to text has U+FFFD in their place. Where a text decides something,
strict decoders stay, because what was decided on has to be what is sent.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import msgspec
from msgspec import Raw, Struct, structs

Data: TypeAlias = bytes | bytearray | memoryview | Raw
T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_BACKSLASH = rb"\\"
_ESCAPE = rb"\u"
_SURROGATE = re.compile(rb"\\u([dD][89a-fA-F])")
_HALF = re.compile("[\ud800-\udfff]")
_MARKS = [chr(code).encode() for code in range(0x80, 0x90)]
"""Control characters that nobody writes, of two bytes: lengths stay as they were."""


class Decodes(Protocol[T_co]):
    """A decoder of msgspec's."""

    def decode(self, buf: Data, /) -> T_co: ...


class Lenient(Generic[T]):
    """A decoder that takes half characters too. Raises what msgspec's does."""

    def __init__(
        self, kind: type[T], dec_hook: Callable[[type[Any], Any], object] | None = None
    ) -> None:
        self._strict = msgspec.json.Decoder(kind, dec_hook=dec_hook)

    def decode(self, data: Data) -> T:
        try:
            return self._strict.decode(data)
        except msgspec.DecodeError as error:
            return again(self._strict, data, error)


def again(decoder: Decodes[T], data: Data, error: msgspec.DecodeError) -> T:
    """What ``decoder``, which failed with ``error``, makes of ``data`` without half characters.

    Raises:
        DecodeError: that is not what it failed at, or half a character is in a member's name.
    """
    text = bytes(data)
    if _SURROGATE.search(text) is None:
        raise error
    free = [mark for mark in _MARKS if mark not in text][:2]
    if len(free) < 2:
        raise error
    aside = _Aside(*free)
    try:
        return aside.restored(decoder.decode(aside.put(text)))
    except _Unfit:
        raise error from None


class _Unfit(Exception):
    """Not four digits, or half a character in a name, which cannot be given back once decoded."""


class _Aside:
    """Escapes of one text behind two marks that it does not hold. All that looks at each of them is
    the machine's own search, since a text may consist of nothing else."""

    def __init__(self, escape: bytes, backslash: bytes) -> None:
        self._escape, self._backslash = escape, backslash
        self._backslash_text = backslash.decode()
        self._broken = re.compile(escape + rb"(?![dD][0-9a-fA-F]{3})")
        self._run = re.compile(f"(?:{escape.decode()}[dD][0-9a-fA-F]{{3}})+")

    def put(self, text: bytes) -> bytes:
        """``text`` without the escapes of surrogates, in pairs or not. Raises _Unfit."""
        # Once escaped backslashes are away, every backslash that is left begins an escape.
        text = text.replace(_BACKSLASH, self._backslash)
        for start in set(_SURROGATE.findall(text)):
            text = text.replace(_ESCAPE + start, self._escape + start)
        if self._broken.search(text):
            raise _Unfit
        return text

    def restored(self, value: T) -> T:
        """``value`` with every escape where it was: in its raw parts, members and elements."""
        restored: object = value
        if isinstance(value, Raw):
            restored = Raw(
                bytes(value).replace(self._escape, _ESCAPE).replace(self._backslash, _BACKSLASH)
            )
        elif isinstance(value, str):
            restored = _HALF.sub("\N{REPLACEMENT CHARACTER}", self._text(value))
        elif isinstance(value, dict):
            restored = {self._name(name): self.restored(each) for name, each in value.items()}
        elif isinstance(value, list | tuple):
            restored = type(value)(self.restored(element) for element in value)
        elif isinstance(value, Struct):
            fields = ((name, getattr(value, name)) for name in value.__struct_fields__)
            restored = structs.replace(value, **{name: self.restored(one) for name, one in fields})
        return restored  # type: ignore[return-value]

    def _text(self, text: str) -> str:
        """As the standard library reads it, halves included."""
        return self._run.sub(_characters, text).replace(self._backslash_text, "\\")

    def _name(self, name: object) -> object:
        if not isinstance(name, str):
            return name
        text = self._text(name)
        if _HALF.search(text):
            raise _Unfit
        return text


def _characters(run: re.Match[str]) -> str:
    """Escapes in a row, their digits behind a mark of one character each."""
    digits = [run[0][at + 1 : at + 5] for at in range(0, len(run[0]), 5)]
    units = b"".join(int(four, 16).to_bytes(2, "little") for four in digits)
    return units.decode("utf-16-le", "surrogatepass")
