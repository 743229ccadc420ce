"""Keys that the gateway makes: one spelling each, and no slip of hand or eye makes another key."""

from __future__ import annotations

import random
import re
import secrets
from collections.abc import Iterator
from typing import Final

import pytest

from open_mcp_gateway.auth.apikeys import is_well_formed
from open_mcp_gateway.auth.keyformat import (
    KEY_BITS,
    MadeKey,
    hint_of,
    key_id_in,
    key_with,
    make_key,
    make_key_id,
)
from open_mcp_gateway.names import KEY_ID, KeyId

ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
SCANNER: Final = re.compile(r"\bmgk_[0-9A-Za-z]{12}_[0-9A-Za-z]{49}\b")
LOOK_ALIKES: Final = {
    "a": "\u0430",
    "c": "\u0441",
    "e": "\u0435",
    "g": "\u0261",
    "k": "\u212a",
    "m": "\uff4d",
    "o": "\u03bf",
    "0": "\u0660",
    "1": "\uff11",
    "_": "\uff3f",
}


def made(count: int) -> list[MadeKey]:
    bits = random.Random(62).getrandbits
    return [make_key(bits) for _ in range(count)]


def test_round_trip() -> None:
    for one in [make_key(secrets.randbits) for _ in range(200)]:
        assert len(one.text) == 66
        assert SCANNER.fullmatch(one.text)
        assert KEY_ID.fullmatch(one.key_id)
        assert is_well_formed(one.text.encode("ascii"))
        assert key_id_in(one.text) == one.key_id


@pytest.mark.parametrize("number", [0, 1, 61, 62, 2**KEY_BITS - 1])
def test_the_ends_of_the_range(number: int) -> None:
    one = make_key(lambda bits: min(number, 2**bits - 1))
    assert len(one.text) == 66
    assert key_id_in(one.text) == one.key_id


def test_every_number_has_a_spelling_of_its_own() -> None:
    first, last = ("0" * 43, 0), ("", 2**KEY_BITS - 1)
    assert key_with(KeyId("key_" + "a" * 12), lambda _: first[1]).text[17:60] == first[0]
    top = key_with(KeyId("key_" + "a" * 12), lambda _: last[1]).text[17:60]
    value = 0
    for character in top:
        value = value * 62 + ALPHABET.index(character)
    assert value == last[1]


def test_another_secret_of_the_same_key() -> None:
    key_id = make_key_id(secrets.randbits)
    first, second = key_with(key_id, secrets.randbits), key_with(key_id, secrets.randbits)
    assert first.text != second.text
    assert key_id_in(first.text) == key_id_in(second.text) == key_id


def test_all_bits_are_asked_for() -> None:
    asked: list[int] = []

    def bits(count: int) -> int:
        asked.append(count)
        return 0

    make_key(bits)
    assert asked == [71, 256]


def mutants(text: str) -> Iterator[str]:
    """Everything one slip can make of a key; never the key itself."""
    for place, character in enumerate(text):
        before, after = text[:place], text[place + 1 :]
        yield text[:place]
        yield before + after
        yield before + character + character + after
        for other in (*ALPHABET, "_", "-", " "):
            if other != character:
                yield before + other + after
        if character.lower() in LOOK_ALIKES:
            yield before + LOOK_ALIKES[character.lower()] + after
        if after and after[0] != character:
            yield before + after[0] + character + after[1:]
    yield text.upper()
    yield text.lower()
    yield text.swapcase()
    for around in (" ", "\n", "\x00", "0"):
        yield text + around
        yield around + text
    yield text + text


def assert_no_mutant_passes(keys: int, at_least: int) -> None:
    tried = 0
    for one in made(keys):
        for mutant in mutants(one.text):
            tried += 1
            assert mutant != one.text
            assert key_id_in(mutant) is None, (one, mutant)
    assert tried >= at_least


def test_no_slip_makes_another_key() -> None:
    assert_no_mutant_passes(keys=5, at_least=20_000)


@pytest.mark.long("1,000,000 mutants")
@pytest.mark.timeout(900)
def test_no_slip_makes_another_key_of_many() -> None:
    assert_no_mutant_passes(keys=240, at_least=1_000_000)


@pytest.mark.parametrize("text", ["", "mgk_", "mgt_" + "a" * 62, "a" * 66, "mgk_" + "0" * 62])
def test_what_is_no_key(text: str) -> None:
    assert key_id_in(text) is None


def test_the_secret_does_not_show() -> None:
    (one,) = made(1)
    assert f"{one!r} {one}" == " ".join([f"MadeKey({one.key_id!r}, ***)"] * 2)
    assert one.__rich_repr__() == [("key_id", one.key_id), ("text", "***")]
    shown = f"{one!r} {one} {one.__rich_repr__()}"
    assert one.key_id in shown
    assert one.text[17:] not in shown


def test_hints() -> None:
    (one,) = made(1)
    assert hint_of(one.text) == f"mgk_{one.key_id[4:]}_...{one.text[-4:]}"
    assert hint_of("a-key-made-elsewhere-1234") == "...1234"
    assert hint_of("x" * 24) == "...xxxx"
    for short in ("", "1234", "x" * 23):
        assert hint_of(short) == "***"
