"""The line splitter gives the same lines whatever the pieces it is fed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from open_mcp_gateway.outbound.lines import LineSplitter
from open_mcp_gateway.outbound.salvage import KEPT_BYTES


class Sink:
    def __init__(self, limit_bytes: int = 1000) -> None:
        self.lines: list[bytes] = []
        self.overlong: list[tuple[bytes, bytes]] = []
        self.splitter = LineSplitter(
            limit_bytes, self.lines.append, lambda front, back: self.overlong.append((front, back))
        )

    def feed(self, *pieces: bytes) -> Sink:
        for piece in pieces:
            self.splitter.feed(piece)
        return self


def test_several_lines_in_one_piece_and_one_line_in_several_pieces() -> None:
    assert Sink().feed(b"a\nb\nc", b"d", b"e\nf").lines == [b"a", b"b", b"cde"]


def test_crlf_ends_a_line_even_when_cut_between_the_two() -> None:
    assert Sink().feed(b"a\r\nb\r", b"\nc\r\n").lines == [b"a", b"b", b"c"]


def test_empty_lines_are_nothing() -> None:
    assert Sink().feed(b"\n\r\n\n").lines == []


def test_the_end_of_the_stream_ends_the_last_line() -> None:
    sink = Sink().feed(b"a\nb")
    sink.splitter.finish()
    sink.splitter.finish()
    assert sink.lines == [b"a", b"b"]


def test_a_line_of_exactly_the_limit_passes_and_one_byte_more_does_not() -> None:
    assert Sink(5).feed(b"12345\n123456\nx\n").lines == [b"12345", b"x"]


def test_an_overlong_line_is_told_once_by_its_ends_and_the_next_line_is_whole() -> None:
    front, back = b"f" * KEPT_BYTES, b"b" * KEPT_BYTES
    sink = Sink(600).feed(front, *[b"m" * 100] * 500, back, b"\nnext\n")
    assert sink.overlong == [(front, back)]
    assert sink.lines == [b"next"]


def test_an_endless_line_takes_no_memory() -> None:
    sink = Sink(100)
    for _ in range(10_000):
        sink.splitter.feed(b"x" * 1000)
    held = [sink.splitter._front, sink.splitter._back, *sink.splitter._parts]
    assert sum(map(len, held)) <= 2 * KEPT_BYTES
    assert sink.lines == []


@given(st.lists(st.binary(max_size=12)), st.integers(1, 40))
def test_cutting_the_stream_elsewhere_changes_nothing(pieces: list[bytes], size: int) -> None:
    stream = b"\n".join(pieces) + b"\n"
    whole = Sink(8).feed(stream)
    cut = Sink(8).feed(*[stream[at : at + size] for at in range(0, len(stream), size)])
    assert cut.lines == whole.lines
    assert len(cut.overlong) == len(whole.overlong)
    expected = [line.removesuffix(b"\r") for line in stream.split(b"\n")]
    assert whole.lines == [line for line in expected if 0 < len(line) <= 8]
