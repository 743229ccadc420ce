"""A key that is changed while it has something open: what it is given ends nothing, what is taken
from it ends everything; also starts and stops that are waited for."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

import pytest

from open_mcp_gateway.names import Namespace
from tests.rawhttp import Answer, Wire, request
from tests.wire.conftest import MakeClient
from tests.wire.faces import KEY, Face, call, face, local, new_store
from tests.wire.stored_keys import PROD, Made, Office
from tests.wire.test_moved_servers import move
from tests.wire.test_the_end_of_a_key import (
    CHANGED,
    NEVER_UP,
    SERVERS,
    WITHIN_S,
    Opened,
    all_there,
    expired,
)

HERE: Final = ["127.0.0.0/8"]
LATE: Final = local("late", "-c", NEVER_UP, namespace=Namespace("prod"))


@pytest.fixture(params=["hot", "asgi-httptools"])
def front(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Face]:
    with new_store(tmp_path) as store, face(request.param, *SERVERS, LATE, store=store) as found:
        yield found


@pytest.fixture
def office(front: Face) -> Office:
    found = Office(front.ask)
    found.tenant("acme", PROD)
    return found


def test_what_is_given_ends_nothing(front: Face, client: MakeClient, office: Office) -> None:
    narrow = {"servers": [one.id for one in SERVERS], "deny_tools": ["legacy/none"]}
    key = office.key("a", tenant="acme", scope=narrow, ip_allow=HERE)
    with ExitStack() as stack:
        one = Opened(front, client, key, stack)
        all_there(front, 1)
        office.patch(key, role="operator")
        office.patch(key, scope={"deny_tools": None})
        office.patch(key, ip_allow=[*HERE, "10.0.0.0/8"])
        office.patch(key, name="another name", ip_allow=None)
        office.change_tenant("acme", namespaces=[*PROD, "stage"])
        one.goes_on()
        # And what it was given is taken into account where it ends.
        office.patch(key, role="caller")
        assert one.sse.stream.ended()
        assert one.session.ask("ping").status == 404


def test_networks_that_are_taken_away_end_what_was_opened_from_them(
    front: Face, client: MakeClient, office: Office
) -> None:
    key, other = office.key("a", tenant="acme"), office.key("b", tenant="acme", ip_allow=HERE)
    with ExitStack() as stack:
        gone = Opened(front, client, key, stack)
        stays = Opened(front, client, other, stack)
        all_there(front, 2)
        began_s = time.monotonic()
        office.patch(key, ip_allow=["10.0.0.0/8"])
        gone.ended(told=CHANGED)
        assert time.monotonic() - began_s < WITHIN_S
        stays.goes_on()


def test_a_body_that_comes_after_its_network_was_taken_away(front: Face, office: Office) -> None:
    key = office.key("a", tenant="acme")
    raw = call("legacy", method="tools/list").replace(KEY, key.secret)
    with front.connect() as wire:
        wire.send(raw[:-5])
        front.until(lambda: front.inside(lambda: key.id in front.gateway.dispatcher.used))
        office.patch(key, ip_allow=["10.0.0.0/8"])
        wire.send(raw[-5:])
        answer = wire.receive()
        assert (answer.status, answer.all("x-auth-reason")) == (403, ["ip_not_allowed"])


def waiting(front: Face, wire: Wire, key: Made, count: int) -> None:
    """Sends a start that is not soon over, and waits until it is one of so many."""
    path = b"/servers/late/start"
    wire.send(request(path, (b"X-API-Key", key.secret), method=b"POST"))
    held = front.gateway.dispatcher.managed._waiting
    front.until(lambda: front.inside(lambda: len(held) == count))


def told(answer: Answer) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(answer.body)
    return body


def test_a_start_that_is_waited_for_ends_with_its_key(front: Face, office: Office) -> None:
    keys = [office.key(name, tenant="acme", role="operator") for name in "abc"]
    root = office.key("root", role="operator")
    with ExitStack() as stack:
        wires = [stack.enter_context(front.connect()) for _ in range(4)]
        for count, (wire, key) in enumerate(zip(wires, [*keys, root], strict=True), 1):
            waiting(front, wire, key, count)
        began_s = time.monotonic()
        office.revoke(keys[0])
        revoked = wires[0].receive()
        assert time.monotonic() - began_s < WITHIN_S
        assert revoked.status == 403
        assert told(revoked) == {"error": "Forbidden", "message": "Invalid API key"}
        office.patch(keys[1], role="caller")
        lowered = wires[1].receive()
        assert (lowered.status, told(lowered)["code"]) == (403, "rights_changed")
        assert CHANGED in told(lowered)["message"]
        office.patch(keys[2], role="tenant-admin")
        move(front, "late")
        moved = wires[2].receive()
        assert (moved.status, told(moved)["code"]) == (404, "not_found")
        # Whose rights are untouched waits on, and hears how it ends.
        assert office.send("POST", "/servers/late/stop").status == 200
        assert wires[3].receive().status == 502
    front.until(lambda: not front.inside(lambda: front.gateway.dispatcher.managed._waiting))


def test_who_takes_its_own_rights_away_still_gets_the_answer(front: Face, office: Office) -> None:
    office.key("spare", role="admin")
    own = office.key("own", role="admin")
    answer = Office(front.ask, own.secret).send("DELETE", f"/admin/keys/{own.id}")
    assert (answer.status, told(answer)["id"]) == (200, own.id)
    assert Office(front.ask, own.secret).send("GET", "/servers").status == 403


def test_a_start_ends_when_its_key_expires(front: Face, office: Office) -> None:
    key = office.key("a", tenant="acme", role="operator")
    with front.connect() as wire:
        waiting(front, wire, key, 1)
        ends_s = expired(office, key)
        assert wire.receive().status == 403
        assert time.time() - ends_s < WITHIN_S
