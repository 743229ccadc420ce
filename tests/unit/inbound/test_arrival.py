"""What is made of a head, once for all the requests that have the same."""

import itertools
import re

import pytest

from open_mcp_gateway.errors import InvalidRequest
from open_mcp_gateway.inbound.arrival import Arrival, new_request_id
from open_mcp_gateway.inbound.mcp_head import MAX_ACCEPT_BYTES, mcp_head

HEADERS = [(b"host", b"localhost"), (b"x-colour", b"blue")]


def arrival(*headers: tuple[bytes, bytes]) -> Arrival:
    return Arrival(b"POST", b"/servers/a/mcp", [*HEADERS, *headers], "127.0.0.1:1")


def test_a_head_that_comes_again_is_not_read_again() -> None:
    read: list[Arrival] = []

    def colour(one: Arrival) -> bytes | None:
        read.append(one)
        return one.header(b"x-colour")

    first = arrival()
    again = first.again(b"7")
    assert again.read(colour) == first.read(colour) == again.again(b"8").read(colour) == b"blue"
    assert read == [again]
    assert arrival().read(colour) == b"blue"
    assert len(read) == 2


def test_what_a_reading_raises_is_not_kept() -> None:
    def refuse(_: Arrival) -> None:
        raise InvalidRequest("no")

    one = arrival()
    for _ in range(2):
        with pytest.raises(InvalidRequest):
            one.read(refuse)


@pytest.mark.parametrize(
    ("ids", "named", "found"),
    [((), False, None), ((b" a ",), True, "a"), ((b"a", b"a"), True, None)],
)
def test_a_session_is_named_once(ids: tuple[bytes, ...], named: bool, found: str | None) -> None:
    head = mcp_head(arrival(*((b"mcp-session-id", one) for one in ids)))
    assert (head.names_session, head.session_id) == (named, found)


@pytest.mark.parametrize(
    ("accepts", "json", "events"),
    [
        ((), True, True),
        ((b"application/json",), True, False),
        ((b"application/json", b"TEXT/event-stream;q=0.5"), True, True),
        ((b"text/*",), False, True),
        ((b"*/*",), True, True),
        ((b"x" * MAX_ACCEPT_BYTES + b",*/*",), False, False),
    ],
)
def test_what_is_accepted(accepts: tuple[bytes, ...], json: bool, events: bool) -> None:
    head = mcp_head(arrival(*((b"accept", one) for one in accepts)))
    assert (head.takes_both, head.takes_events) == (json and events, events)


def test_made_ids_do_not_count_requests() -> None:
    """Whoever sees some of them learns nothing of how many others there were in between."""
    made = [new_request_id() for _ in range(1000)]
    assert len(set(made)) == len(made)
    assert all(re.fullmatch("[0-9a-f]{20}", one) for one in made)
    for one, other in itertools.pairwise(made):
        assert sum(a != b for a, b in zip(one, other, strict=True)) >= 8
    assert {one[0] for one in made} == set("0123456789abcdef")
