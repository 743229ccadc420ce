"""The keys that the gateway makes: recognisable, checkable without a store, random.

``mgk_<12 base62: public id>_<43 base62: secret><6 base62: CRC-32 of all before>``, 66 characters.
Secret scanners find them by ``\\bmgk_[0-9A-Za-z]{12}_[0-9A-Za-z]{49}\\b`` and the checksum.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Callable
from typing import Final

from open_mcp_gateway.names import KeyId
from open_mcp_gateway.secrecy import Secretive

PREFIX: Final = "mgk_"
KEY_BITS: Final = 256
ID_CHARACTERS: Final = 12

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_SECRET_CHARACTERS: Final = 43
"""62 ** 43 > 2 ** 256: every secret has exactly one spelling, and none is more likely."""

_CRC_CHARACTERS: Final = 6
_ID_BITS: Final = 71
_SHAPE: Final = re.compile(r"mgk_([0-9A-Za-z]{12})_([0-9A-Za-z]{43})([0-9A-Za-z]{6})", re.ASCII)


class MadeKey(Secretive, frozen=True):
    """A new key. ``text`` is the secret itself: shown once, stored never."""

    key_id: KeyId
    text: str

    def __repr__(self) -> str:
        return f"MadeKey({self.key_id!r}, ***)"

    def __rich_repr__(self) -> list[tuple[str, str]]:
        return [("key_id", self.key_id), ("text", "***")]


def make_key(random_bits: Callable[[int], int]) -> MadeKey:
    """A new key from a source of random bits, such as ``secrets.randbits``."""
    return key_with(make_key_id(random_bits), random_bits)


def key_with(key_id: KeyId, random_bits: Callable[[int], int]) -> MadeKey:
    """A new secret for the key of that id."""
    public = key_id.removeprefix("key_")
    body = f"{PREFIX}{public}_{_base62(random_bits(KEY_BITS), _SECRET_CHARACTERS)}"
    return MadeKey(key_id, body + _checksum(body))


def make_key_id(random_bits: Callable[[int], int]) -> KeyId:
    """A new id; the same for keys whose secret is made elsewhere."""
    return KeyId("key_" + _base62(random_bits(_ID_BITS), ID_CHARACTERS))


def key_id_in(text: str) -> KeyId | None:
    """The id of the key that ``text`` is, if its form and checksum are right; says nothing of
    whether there is such a key."""
    match = _SHAPE.fullmatch(text)
    if match is None or _checksum(text[:-_CRC_CHARACTERS]) != match[3]:
        return None
    return KeyId("key_" + match[1])


def hint_of(text: str) -> str:
    """What may be shown of a key so that its owner recognises it."""
    if _SHAPE.fullmatch(text) is None:
        return "..." + text[-4:] if len(text) >= 24 else "***"
    return f"{text[: len(PREFIX) + ID_CHARACTERS]}_...{text[-4:]}"


def _checksum(body: str) -> str:
    return _base62(zlib.crc32(body.encode("ascii")), _CRC_CHARACTERS)


def _base62(number: int, width: int) -> str:
    digits = []
    for _ in range(width):
        number, digit = divmod(number, 62)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
