"""Sessions whose server is replaced under them, over sockets."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.rawhttp import request
from tests.wire.conftest import MakeClient
from tests.wire.faces import AUTH, Face, face
from tests.wire.mcp_client import Client, talker


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
