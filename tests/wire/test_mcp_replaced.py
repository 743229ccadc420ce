"""Sessions and subscriptions whose server is replaced or removed under them, over sockets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import pytest

from open_mcp_gateway.catalog.diff import diff
from open_mcp_gateway.catalog.model import Isolation, ServerSpec
from open_mcp_gateway.supervisor.instance import Instance
from tests.rawhttp import request
from tests.unit.supervisor.memory import snapshot_of
from tests.wire.conftest import MakeClient
from tests.wire.faces import AUTH, Face, face, local
from tests.wire.mcp_client import Client, Reply, talker
from tests.wire.test_sse_face import opened


@pytest.fixture
def front() -> Iterator[Face]:
    with face("hot", talker("talker", "legacy")) as running:
        yield running
        running.inside(lambda: running.gateway.sessions.end_if(lambda _: True))
        running.at_rest()


def crash(_: Face, other: Client) -> None:
    assert other.call("exit").error["code"] == -32603


def restart(front: Face, _: Client) -> None:
    assert front.ask(request(b"/servers/talker/restart", AUTH, method=b"POST")).status == 200


@pytest.mark.parametrize("replace", [crash, restart])
def test_who_only_listens_goes_on_hearing(
    front: Face, client: MakeClient, replace: Callable[[Face, Client], None]
) -> None:
    listener, other = (client(front, "talker").initialize() for _ in range(2))
    assert listener.ask("resources/subscribe", {"uri": "test://r"}).result == {}
    stream = listener.listen()
    old = front.instance("talker")
    replace(front, other)
    front.until(lambda: front.instance("talker") not in {None, old})
    for kind in ("tools", "prompts", "resources"):  # nobody heard what it missed
        assert stream.next()["method"] == f"notifications/{kind}/list_changed"
    assert stream.next()["params"] == {"uri": "test://r"}
    assert other.call("touch", uri="test://r").text() == "touched"
    assert stream.next()["params"] == {"uri": "test://r"}
    assert other.call("change_list").text() == "changed"
    assert stream.next()["method"] == "notifications/tools/list_changed"
    stream.leave()


MODERN_TALKER: Final = talker("modern", "modern")
LEGACY_TALKER: Final = talker("legacy", "legacy")


@pytest.fixture
def both() -> Iterator[Face]:
    with face("hot", MODERN_TALKER, LEGACY_TALKER, local("other", "-c", "")) as running:
        yield running


def reloaded(front: Face, *servers: ServerSpec) -> None:
    """Put a catalog of these servers in force."""
    gateway, snapshot = front.gateway, snapshot_of(*servers)
    changes = diff(gateway.snapshot, snapshot)
    front.inside(lambda: gateway.apply(gateway.config, snapshot, changes))


def ended_in_order(listening: Reply) -> None:
    """Waits for the orderly end of a subscription."""
    last = listening.next()
    assert (last["id"], last["result"]["resultType"]) == (1, "complete")
    assert listening.ended()


def is_gone(front: Face, instance: Instance | None) -> None:
    """Waits until nothing of it is left, which is not long in coming: well before it would end
    in any case."""
    assert instance is not None
    front.until(lambda: front.inside(instance.gone.is_set))


def changed(front: Face) -> None:
    newer = talker("modern", "modern", env={"COLOUR": "blue"})
    reloaded(front, newer, LEGACY_TALKER)
    restarted(front)


def restarted(front: Face) -> None:
    assert front.ask(request(b"/servers/modern/restart", AUTH, method=b"POST")).status == 200


def regrouped(front: Face) -> None:
    apart = talker("modern", "modern", isolation=Isolation.KEY)
    reloaded(front, apart, LEGACY_TALKER)


@pytest.mark.parametrize("replace", [changed, restarted, regrouped])
def test_a_subscription_ends_with_the_process_that_it_hangs_on(
    both: Face, client: MakeClient, replace: Callable[[Face], None]
) -> None:
    caller, other = client(both, "modern"), client(both, "modern")
    listening = caller.subscribe(toolsListChanged=True)
    working = other.tool("gated_progress", gate="g")
    both.until(lambda: both.used("modern")[0] == 2)
    old = both.instance("modern")
    replace(both)
    ended_in_order(listening)
    again = caller.subscribe(toolsListChanged=True)
    assert both.instance("modern") is not old
    assert other.tool("change_list").text() == "changed"
    assert again.next()["method"] == "notifications/tools/list_changed"
    again.leave()
    working.leave()
    is_gone(both, old)


def test_what_hangs_on_a_removed_server_ends(both: Face, client: MakeClient) -> None:
    stateless, session = client(both, "modern"), client(both, "legacy").initialize(elicitation={})
    shared = client(both, "legacy").initialize()
    assert shared.ask("resources/subscribe", {"uri": "test://r"}).result == {}
    sse = opened(client(both, "legacy"))
    sse.initialize()
    listening, reading = stateless.subscribe(toolsListChanged=True), session.listen()
    asking = session.call("ask", method="elicitation/create")
    question = asking.next()
    assert question["method"] == "elicitation/create"
    there = [both.instance("modern"), both.instance("legacy")]
    reloaded(both, local("other", "-c", ""))
    ended_in_order(listening)
    assert list(reading.messages()) == []
    assert sse.stream.ended()
    withdrawn, answer = asking.messages()
    assert withdrawn["method"] == "notifications/cancelled"
    assert withdrawn["params"]["requestId"] == question["id"]
    assert "the client is gone" in answer["result"]["content"][0]["text"]
    for instance in there:
        is_gone(both, instance)


def test_a_session_whose_server_was_away_goes_on(both: Face, client: MakeClient) -> None:
    listener, other = (client(both, "legacy").initialize() for _ in range(2))
    assert listener.ask("resources/subscribe", {"uri": "test://r"}).result == {}
    reading, old = listener.listen(), both.instance("legacy")
    reloaded(both, local("other", "-c", ""))
    assert list(reading.messages()) == []
    is_gone(both, old)
    assert listener.ask("ping").status == 404
    reloaded(both, LEGACY_TALKER)
    reading = listener.listen()
    assert other.call("touch", uri="test://r").text() == "touched"
    heard = reading.messages()
    assert any(one["method"] == "notifications/resources/updated" for one in heard)
    reading.leave()
