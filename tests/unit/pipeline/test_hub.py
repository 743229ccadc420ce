"""Who hears what of a connection that several share."""

from __future__ import annotations

from typing import Any, cast

import pytest
from anyio.abc import TaskGroup

from open_mcp_gateway.access.authorize import authorize_by_id
from open_mcp_gateway.auth.principal import Permission
from open_mcp_gateway.outbound.peer import Question, Waiter
from open_mcp_gateway.pipeline.errand import Means
from open_mcp_gateway.pipeline.hub import Hub, Share
from open_mcp_gateway.protocol.jsonrpc import decode_incoming
from tests.unit.pipeline.clients import Asked, note
from tests.unit.pipeline.exchanges import Desk, HandPeer
from tests.unit.supervisor.memory import principal, snapshot_of, spec
from tests.unit.supervisor.virtual_time import LoopClock


class Ear:
    """A listener that keeps what it hears."""

    means = Means(Desk(), cast(TaskGroup, None), LoopClock(), request_timeout_s=1, max_request_s=1)
    permit = authorize_by_id(principal(), Permission.MCP_CALL, snapshot_of(spec("a")), "a")

    def __init__(self, level: str | None = None, *uris: str, name: str = "one") -> None:
        self.session_id = name
        self.level = level
        self.subscriptions = set(uris)
        self.heard: list[tuple[bool, str]] = []
        self.questions: list[Question] = []
        self.withdrawn: list[bytes] = []
        self.share = Share()

    def deliver(self, message: bytes, *, urgent: bool) -> None:
        self.heard.append((urgent, str(decode_incoming(message).method)))

    def pose(self, question: Question) -> None:
        self.questions.append(question)

    def withdraw(self, raw_id: bytes) -> None:
        self.withdrawn.append(raw_id)


def hub(*ears: Ear, exclusive: bool = False) -> tuple[Hub, HandPeer]:
    peer = HandPeer()
    made = Hub(peer, exclusive=exclusive)
    for ear in ears:
        ear.share = made.add(ear)
    return made, peer


def in_flight(peer: HandPeer, number: int) -> None:
    peer.waiters = [cast(Waiter, None)] * number


CHANGES = ("tools", "prompts", "resources")


@pytest.mark.parametrize("kind", CHANGES)
def test_everybody_hears_of_changed_lists(kind: str) -> None:
    one, two, gone = Ear(), Ear(), Ear()
    made, _ = hub(one, two, gone)
    made.remove(gone)
    made.remove(gone)
    made.notified(*note(f"notifications/{kind}/list_changed"))
    assert one.heard == two.heard == [(False, f"notifications/{kind}/list_changed")]
    assert gone.heard == []


def test_subscribers_alone_hear_of_updates() -> None:
    one, two = Ear(None, "u"), Ear(None, "v")
    made, _ = hub(one, two)
    assert (made.subscribers("u"), made.subscribers("w")) == (1, 0)
    made.notified(*note("notifications/resources/updated", uri="u"))
    made.notified(*note("notifications/resources/updated", uri=7))
    made.notified(*note("notifications/resources/updated"))
    assert (len(one.heard), len(two.heard)) == (1, 0)
    owner = Ear()
    made, _ = hub(owner, exclusive=True)
    made.notified(*note("notifications/resources/updated", uri="u"))
    assert len(owner.heard) == 1


def test_what_may_be_about_anybody_reaches_nobody() -> None:
    one, two = Ear(), Ear()
    made, peer = hub(one, two)
    message = note("notifications/message", level="info")
    made.notified(*message)  # nothing is in flight
    one.share.inflight += 1
    in_flight(peer, 1)
    made.notified(*message)
    one.share.inflight += 1
    two.share.inflight += 1
    in_flight(peer, 3)
    made.notified(*message)
    two.share.inflight -= 1
    one.share.inflight -= 1
    in_flight(peer, 2)  # one of them is the envelope's
    made.notified(*message)
    one.share.inflight -= 1
    in_flight(peer, 0)
    made.notified(*message)
    assert one.heard == [(True, "notifications/message")]
    assert two.heard == []


def test_a_call_that_was_given_up_may_be_meant_as_well() -> None:
    one = Ear(name="one")
    made, peer = hub(one)
    one.share.inflight += 1
    in_flight(peer, 1)
    for given_up, heard in (({"one"}, 1), ({"two"}, 1), ({"one", "two"}, 1), (set(), 2)):
        peer.given_up = given_up
        made.notified(*note("notifications/message", level="info"))
        assert len(one.heard) == heard
    owner = Ear(name="owner")
    made, peer = hub(owner, exclusive=True)
    peer.given_up = {"two"}
    made.notified(*note("notifications/message", level="info"))
    assert len(owner.heard) == 1


def test_a_session_that_moved_on_hears_of_its_last_calls() -> None:
    one = Ear()
    made, peer = hub(one)
    one.share.inflight += 1
    made.remove(one)
    in_flight(peer, 1)
    made.notified(*note("notifications/vendor"))
    made.notified(*note("notifications/tools/list_changed"))
    assert one.heard == [(True, "notifications/vendor")]
    one.share.inflight -= 1
    in_flight(peer, 0)
    made.notified(*note("notifications/vendor"))
    assert len(one.heard) == 1


def test_a_session_that_comes_back_counts_on() -> None:
    one = Ear()
    made, peer = hub(one)
    one.share.inflight += 1
    made.remove(one)
    one.share = made.add(one)
    one.share.inflight += 1
    in_flight(peer, 2)
    made.notified(*note("notifications/vendor"))
    assert one.heard == [(True, "notifications/vendor")]


def test_the_owner_of_a_connection_is_meant_until_its_last_call_is_over() -> None:
    one = Ear()
    made, _ = hub(one, exclusive=True)
    one.share.inflight += 1
    made.remove(one)
    made.notified(*note("notifications/vendor"))
    one.share.inflight -= 1
    made.notified(*note("notifications/vendor"))
    assert one.heard == [(True, "notifications/vendor")]


@pytest.mark.parametrize(
    ("wanted", "level", "heard"),
    [
        (None, "debug", True),
        ("info", "debug", False),
        ("info", "info", True),
        ("info", "emergency", True),
        ("info", "loud", True),
        ("info", None, True),
    ],
)
def test_levels(wanted: str | None, level: str | None, heard: bool) -> None:
    one = Ear(wanted)
    made, _ = hub(one, exclusive=True)
    params: dict[str, Any] = {} if level is None else {"level": level}
    made.notified(*note("notifications/message", **params))
    assert bool(one.heard) is heard


def test_without_params() -> None:
    one = Ear("info")
    made, _ = hub(one, exclusive=True)
    raw = b'{"jsonrpc":"2.0","method":"notifications/message"}'
    made.notified(raw, decode_incoming(raw))
    assert len(one.heard) == 1


def test_questions_and_their_end() -> None:
    one = Ear()
    made, _ = hub(one, exclusive=True)
    question = Asked()
    made.asked(question)
    assert one.questions == [question]
    made.notified(*note("notifications/cancelled", requestId="s"))
    made.notified(*note("notifications/cancelled"))
    assert one.withdrawn == [b'"s"']
    made.remove(one)
    made.notified(*note("notifications/cancelled", requestId="s"))
    made.notified(*note("notifications/vendor"))
    made.asked(question)
    assert len(question.refusals) == 1


def test_nobody_is_asked_where_several_are() -> None:
    one, two = Ear(), Ear()
    made, peer = hub(one, two)
    one.share.inflight += 1
    in_flight(peer, 1)
    question = Asked()
    made.asked(question)
    made.notified(*note("notifications/cancelled", requestId="s"))
    assert len(question.refusals) == 1
    assert (one.questions, one.withdrawn) == ([], [])
