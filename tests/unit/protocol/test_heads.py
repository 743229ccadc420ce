"""Known heads: only a whole message with exactly a head that was parsed before is found."""

from __future__ import annotations

import pytest

from open_mcp_gateway.protocol.heads import MAX_HEAD_BYTES, MAX_HEADS, KnownHeads


def message(body: bytes, name: bytes = b"x") -> bytes:
    return b"POST /%b HTTP/1.1\r\ncontent-length: %d\r\n\r\n%b" % (name, len(body), body)


@pytest.fixture
def heads() -> KnownHeads[str]:
    known: KnownHeads[str] = KnownHeads()
    for body, meaning in ((b"one", "three bytes"), (b"four", "four bytes")):
        known.keep(message(body), len(body), meaning)
    return known


def test_found_in_any_order(heads: KnownHeads[str]) -> None:
    for body in (b"two", b"six", b"five", b"ten", b"nine"):
        meaning = "three bytes" if len(body) == 3 else "four bytes"
        assert heads.find(message(body)) == (meaning, body)


@pytest.mark.parametrize(
    "data",
    [
        message(b"one", name=b"y"),
        message(b"three"),
        message(b"one")[:-1],
        message(b"one") + b"!",
        message(b"four")[:-1],
        message(b"one") + message(b"two"),
        message(b"one").replace(b"\r\n\r\n", b"\r\n\r\r"),
        message(b"one").replace(b"\r\n\r\n", b"\r\na:\r\n\r\n"),
        b"",
        b"\r\n\r\n",
    ],
)
def test_any_other_byte_or_length_is_unknown(heads: KnownHeads[str], data: bytes) -> None:
    for before in (b"one", b"four"):  # whichever was found last
        assert heads.find(message(before)) is not None
        assert heads.find(data) is None


def test_a_line_end_in_a_body_is_no_end_of_the_head(heads: KnownHeads[str]) -> None:
    body = b"\r\n\r\nmore"
    heads.keep(message(body), len(body), "eight bytes")
    assert heads.find(message(body)) == ("eight bytes", body)


def test_not_kept(heads: KnownHeads[str]) -> None:
    cut, long = message(b"seventeen"), message(b"", name=b"x" * MAX_HEAD_BYTES)
    heads.keep(cut[:-1], 9, "cut")
    heads.keep(long, 0, "long")
    assert heads.find(cut[:-1]) is None
    assert heads.find(long) is None


def test_few_are_kept_and_all_forgotten() -> None:
    heads: KnownHeads[int] = KnownHeads()
    for number in range(MAX_HEADS + 1):
        heads.keep(message(b"", name=b"%d" % number), 0, number)
    assert len(heads) == 1
    assert heads.find(message(b"", name=b"0")) is None
    assert heads.find(message(b"", name=b"%d" % MAX_HEADS)) == (MAX_HEADS, b"")
    heads.forget()
    assert not heads
    assert heads.find(message(b"", name=b"%d" % MAX_HEADS)) is None
