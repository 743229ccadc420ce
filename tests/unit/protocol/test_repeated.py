"""What is remembered of texts that come again."""

import pytest

from open_mcp_gateway.protocol.repeated import MAX_TEXT_BYTES, remembered


def test_short_texts_are_read_once_and_long_ones_each_time() -> None:
    read: list[bytes] = []

    def size(text: bytes) -> int:
        read.append(text)
        return len(text)

    kept, longest, longer = remembered(size), bytes(MAX_TEXT_BYTES), bytes(MAX_TEXT_BYTES + 1)
    for text in (b"a", longest, longer):
        assert (kept(text), kept(bytes(bytearray(text)))) == (len(text), len(text))
    assert read == [b"a", longest, longer, longer]


def test_what_cannot_be_read_is_refused_each_time() -> None:
    number = remembered(int)
    for _ in range(2):
        with pytest.raises(ValueError, match="invalid literal"):
            number(b"x")
