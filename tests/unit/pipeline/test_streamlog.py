"""A stream that is picked up again misses nothing and repeats nothing."""

import pytest

from open_mcp_gateway.pipeline.streamlog import MAX_EVENTS, StreamLog, parse_event_id


class Wire:
    """An outlet that keeps what it is given; ``up`` False is a broken connection."""

    def __init__(self) -> None:
        self.chunks: list[bytes] = []
        self.closed = False
        self.up = True

    def send(self, chunk: bytes) -> bool:
        if self.up:
            self.chunks.append(chunk)
        return self.up

    def close(self) -> None:
        self.closed = True


def texts(wire: Wire) -> list[bytes]:
    return [chunk.partition(b"data: ")[2].strip() for chunk in wire.chunks]


def test_what_was_missed_is_replayed_after_the_last_event() -> None:
    log, first, second = StreamLog(3), Wire(), Wire()
    log.attach(first)
    log.send(b"a")
    log.send(b"b")
    first.up = False
    log.send(b"c")
    log.send(b"d")
    assert not log.connected
    assert first.chunks[1].startswith(b"id: 3-2\n")
    log.attach(second, after=2)
    log.send(b"e")
    assert texts(second) == [b"c", b"d", b"e"]


def test_a_new_reader_gets_nothing_old() -> None:
    log, wire = StreamLog(0), Wire()
    log.send(b"a")
    log.attach(wire)
    log.send(b"b")
    assert texts(wire) == [b"b"]


def test_an_ended_stream_is_replayed_and_closed() -> None:
    log, wire = StreamLog(1), Wire()
    log.send(b"a")
    log.end()
    log.attach(wire, after=0, primed=True)
    assert texts(wire) == [b"", b"a"]
    assert b"id: 1-0\n" in wire.chunks[0]
    assert b"retry: " in wire.chunks[0]
    assert wire.closed


def test_the_end_closes_whoever_reads_and_a_second_reader_takes_over() -> None:
    log, first, second = StreamLog(1), Wire(), Wire()
    log.attach(first)
    log.attach(second)
    assert first.closed
    log.detach(first)
    assert log.connected
    log.end()
    assert second.closed
    log.end()


def test_a_reader_that_left_is_not_written_to() -> None:
    log, wire = StreamLog(1), Wire()
    log.attach(wire)
    log.detach(wire)
    log.send(b"a")
    assert wire.chunks == []


@pytest.mark.parametrize("size", [10, 100_000])
def test_the_log_is_bounded(size: int) -> None:
    log, wire = StreamLog(1), Wire()
    for _ in range(MAX_EVENTS * 2):
        log.send(b"x" * size)
    log.attach(wire, after=0)
    assert 1 <= len(wire.chunks) <= MAX_EVENTS
    assert sum(map(len, wire.chunks)) <= 1024 * 1024


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("3-17", (3, 17)),
        ("3", None),
        ("a-1", None),
        ("1-", None),
        ("-1", None),
        ("1-2-3", None),
        ("9" * 50 + "-1", None),
    ],
)
def test_event_ids(text: str, place: tuple[int, int] | None) -> None:
    assert parse_event_id(text) == place
