"""The event stream decoder: framing by the standard, whatever the chunks, within the bound."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from open_mcp_gateway.protocol.sse import Event, EventTooLarge, SseDecoder

STREAM = (
    b"\xef\xbb\xbf: hello\r\n\r\n"
    b"event: endpoint\r\ndata: /messages?id=1\r\n\r\n"
    b'id: 7\ndata: {"a":1,\ndata: "b":2}\n\n'
    b"retry: 250\rid\rdata\r\r"
    b"data:no blank\ndata:  two blanks\nunknown: x\n\n"
    b"event: empty-ones-are-dropped\n\n"
    b"data: \xc3\xa9\n\n"
    b"data: never finished"
)
EVENTS = [
    Event("endpoint", b"/messages?id=1", None),
    Event("message", b'{"a":1,\n"b":2}', "7"),
    Event("message", b"", ""),
    Event("message", b"no blank\n two blanks", ""),
    Event("message", b"\xc3\xa9", ""),
]


def feed_all(decoder: SseDecoder, chunks: list[bytes]) -> None:
    for chunk in chunks:
        decoder.feed(chunk)


def test_reads_a_stream() -> None:
    decoder = SseDecoder(1000)
    assert decoder.feed(STREAM) == EVENTS
    assert decoder.retry_ms == 250
    assert decoder.last_id == ""
    assert decoder.mid_event


@given(st.lists(st.integers(0, len(STREAM)), max_size=30))
def test_chunks_do_not_matter(cuts: list[int]) -> None:
    decoder = SseDecoder(1000)
    places = [0, *sorted(cuts), len(STREAM)]
    events = [
        event
        for start, end in itertools.pairwise(places)
        for event in decoder.feed(STREAM[start:end])
    ]
    assert events == EVENTS


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_any_bytes_are_taken(chunks: list[bytes]) -> None:
    decoder = SseDecoder(10_000)
    for chunk in chunks:
        decoder.feed(chunk)


@pytest.mark.parametrize("line", [b"data: " + b"x" * 100, b"x" * 100, b":" + b"x" * 100])
def test_an_endless_line_is_cut_off(line: bytes) -> None:
    decoder = SseDecoder(50)
    with pytest.raises(EventTooLarge, match="50 bytes"):
        feed_all(decoder, [bytes([byte]) for byte in line])


def test_an_endless_event_is_cut_off() -> None:
    decoder = SseDecoder(50)
    with pytest.raises(EventTooLarge):
        feed_all(decoder, [b"data: x\n"] * 20)


def test_an_endless_event_of_no_data_is_cut_off() -> None:
    decoder = SseDecoder(50)
    decoder.feed(b"event: x\n")
    with pytest.raises(EventTooLarge):
        feed_all(decoder, [b": noise\n"] * 20)


def test_keep_alive_comments_do_not_add_up() -> None:
    decoder = SseDecoder(20)
    for _ in range(100):
        assert decoder.feed(b": ping\r\n") == []
    assert decoder.feed(b"data: 1\n\n") == [Event("message", b"1", None)]
    assert not decoder.mid_event


def test_the_bound_is_per_event() -> None:
    decoder = SseDecoder(20)
    for _ in range(100):
        assert len(decoder.feed(b"data: 1234567\n\n")) == 1


def test_ids_with_nul_and_odd_retries_are_ignored() -> None:
    decoder = SseDecoder(100)
    decoder.feed(b"id: a\n\nid: b\0\nretry: soon\nretry: 99999999999\n\n")
    assert decoder.last_id == "a"
    assert decoder.retry_ms is None


def test_a_byte_order_mark_counts_only_at_the_start() -> None:
    decoder = SseDecoder(100)
    assert decoder.feed(b"data: 1\n\xef\xbb\xbfdata: 2\n\n") == [Event("message", b"1", None)]
