"""A key that is no longer in force: what is open in its name ends, what others have goes on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from open_mcp_gateway.app import LOOK_S
from open_mcp_gateway.catalog.model import Isolation
from open_mcp_gateway.names import Namespace, ServerId
from open_mcp_gateway.outbound.link import DOUBT
from tests.rawhttp import Wire, request
from tests.wire.conftest import MakeClient
from tests.wire.faces import KEY, Face, call, face, local, new_store
from tests.wire.mcp_client import Client, talker
from tests.wire.stored_keys import PROD, Made, Office, opens
from tests.wire.test_sse_face import opened

WITHIN_S: Final = 10.0
"""Promised is one second, of a machine that has time; nothing else would end anything before 30."""

TOKEN: Final = {"progressToken": "t"}
IN_PROD: Final = Namespace("prod")
NEVER_UP: Final = "import time; time.sleep(600)"

SERVERS: Final = (
    talker("legacy", "legacy", namespace=IN_PROD),
    talker("modern", "modern", namespace=IN_PROD),
    talker("own", "legacy", namespace=IN_PROD, isolation=Isolation.KEY),
    local("asleep", "-c", NEVER_UP, namespace=IN_PROD),
)


@pytest.fixture(params=["hot", "asgi-httptools"])
def front(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Face]:
    with new_store(tmp_path) as store, face(request.param, *SERVERS, store=store) as found:
        yield found


class Opened:
    """Something open of each kind in the name of one key."""

    def __init__(self, front: Face, client: MakeClient, key: Made, stack: ExitStack) -> None:
        self.front, self.client, self.key, self.stack = front, client, key, stack
        one, two = self.of("legacy").initialize(), self.of("modern")
        self.session = one
        self.reading = one.listen()
        self.begun = one.call("gated_progress", gate=key.id, meta=TOKEN)
        assert self.begun.next()["params"]["progress"] == 1
        self.quiet = one.call("gated_progress", gate=key.id)
        self.listening = two.subscribe(toolsListChanged=True)
        self.stateless = two.tool("gated_progress", gate=key.id)
        self.sse = opened(self.of("legacy"))
        self.sse.initialize()
        self.envelopes = [self.sent(one, key.id) for one in ("legacy", "own")]
        self.starting = [
            self.sent("asleep", key.id, one) for one in ("tools/call", "initialize", "ping")
        ]
        self.beginning = self.of("asleep").begin()

    def of(self, server_id: str) -> Client:
        return self.client(self.front, server_id, key=self.key.secret)

    def sent(self, server_id: str, gate: str, method: str = "tools/call") -> Wire:
        """A call by the envelope that is on its way."""
        params = {"name": "gated_progress", "arguments": {"gate": gate}}
        wire = self.stack.enter_context(self.front.connect())
        wire.send(call(server_id, method=method, params=params).replace(KEY, self.key.secret))
        return wire

    def ended(self, status: int = 403, told: str = "Invalid API key") -> None:
        """Waits until all of it has ended, and looks what each was told; ``told`` is part of the
        text."""
        assert [event for event in self.reading.events() if event.data] == []
        for mine, expected in ((self.begun, 200), (self.quiet, 404)):
            assert mine.status == expected
            message = mine.error["message"]
            assert message.startswith("The session has ended: ")
            assert told in message
            assert message.endswith(DOUBT)
        message = self.listening.error["message"]
        assert told in message
        assert DOUBT not in message
        assert self.stateless.status == status
        assert self.stateless.error["message"].endswith(DOUBT)
        assert self.sse.stream.ended()
        for wire in (*self.envelopes, *self.starting):
            answer = wire.receive()
            failure = json.loads(answer.body)
            assert (answer.status, failure["id"]) == (status, 1), answer
            assert told in failure["error"]["message"]
            assert failure["error"]["message"].endswith(DOUBT) == (wire in self.envelopes)
        assert self.beginning.status == 404

    def goes_on(self) -> None:
        """Whether all of it is still there; opens the gates."""
        assert self.session.ask("ping").result == {}
        assert self.session.call("open", gate=self.key.id).text() == "opened"
        assert self.of("modern").tool("open", gate=self.key.id).text() == "opened"
        for reply in (self.begun, self.quiet, self.stateless):
            assert reply.text() == self.key.id
        with self.front.connect() as wire:
            params = {"name": "open", "arguments": {"gate": self.key.id}}
            wire.send(call("own", params=params).replace(KEY, self.key.secret))
            assert wire.receive().status == 200
        for wire in self.envelopes:
            assert wire.receive().status == 200
        self.session.call("change_list")
        self.of("modern").tool("change_list")
        for reply in (self.reading, self.listening):
            assert reply.next()["method"] == "notifications/tools/list_changed"
            reply.leave()
        assert self.sse.ask("ping", id=9)["result"] == {}


def revoked(office: Office, key: Made) -> float:
    office.revoke(key)
    return time.time()


def disabled(office: Office, key: Made) -> float:
    office.patch(key, disabled=True)
    return time.time()


def lowered(office: Office, key: Made) -> float:
    office.patch(key, role="viewer")
    return time.time()


def narrowed(office: Office, key: Made) -> float:
    office.patch(key, scope={"namespaces": []})
    return time.time()


def expired(office: Office, key: Made) -> float:
    ends = datetime.now(UTC) + timedelta(seconds=1)
    office.patch(key, expires_at=ends.isoformat())
    return ends.timestamp()


def of_a_tenant_disabled(office: Office, _key: Made) -> float:
    office.change_tenant("acme", disabled=True)
    return time.time()


def of_a_tenant_without_the_namespace(office: Office, _key: Made) -> float:
    office.change_tenant("acme", namespaces=["stage"])
    return time.time()


ENDS: Final = (
    revoked,
    disabled,
    lowered,
    narrowed,
    expired,
    of_a_tenant_disabled,
    of_a_tenant_without_the_namespace,
)
CHANGED: Final = "What this API key may do has changed"
OPENS_NOTHING: Final = {revoked, disabled, expired, of_a_tenant_disabled}


@pytest.mark.parametrize("end", ENDS)
def test_what_it_has_open_ends_and_what_others_have_goes_on(
    front: Face, client: MakeClient, end: Callable[[Office, Made], float]
) -> None:
    office = Office(front.ask)
    for tenant in ("acme", "other"):
        office.tenant(tenant, PROD)
    key, other = office.key("a", tenant="acme"), office.key("b", tenant="other")
    with ExitStack() as stack:
        gone = Opened(front, client, key, stack)
        stays = Opened(front, client, other, stack)
        all_there(front, 2, groups=2)
        ended_s = end(office, key)
        gone.ended(told="Invalid API key" if end in OPENS_NOTHING else CHANGED)
        assert time.time() - ended_s < WITHIN_S
        refused = gone.session.ask("ping").status
        assert refused in ({403} if end in OPENS_NOTHING else {403, 404})
        stays.goes_on()
        client.leave()
    front.until(lambda: front.used("legacy") == front.used("own") == (0, 0))
    assert not front.inside(lambda: front.gateway.forwarder._running)
    assert not front.inside(lambda: front.gateway.sessions._opening)
    # What was for the key or its tenant alone is stopped, without waiting for its idle timeout.
    deserted: tuple[str, ...] = () if end in {lowered, narrowed} else ("own",)
    if end in {of_a_tenant_disabled, of_a_tenant_without_the_namespace}:
        deserted = ("legacy", "modern", "own", "asleep")
    for server_id in deserted:
        front.until(partial(_is_for, front, server_id, 1))


def test_what_has_no_event_is_looked_at_often_enough_for_a_second() -> None:
    assert LOOK_S <= 0.5


def all_there(front: Face, keys: int, groups: int = 1) -> None:
    """Waits until everything of so many keys, of which each of ``groups`` shares its servers, has
    reached its server."""
    for server_id, calls in (("legacy", 3 * keys), ("modern", 2 * keys), ("own", keys)):
        front.until(partial(_has, front, server_id, calls))
    front.until(partial(_is_for, front, "asleep", groups))
    # What waits for a server that never comes up is known to the gateway alone.
    front.until(lambda: front.inside(lambda: len(front.gateway.forwarder._running)) == 5 * keys)
    front.until(lambda: front.inside(lambda: len(front.gateway.sessions._opening)) == keys)


def _has(front: Face, server_id: str, calls: int) -> bool:
    return front.used(server_id) == (calls, calls)


def _is_for(front: Face, server_id: str, scopes_: int) -> bool:
    return len(scopes(front, server_id)) == scopes_


def scopes(front: Face, server_id: str) -> set[str]:
    """Whom the instances of a server are for."""

    def look() -> set[str]:
        keeper = front.gateway.fleet._keepers[ServerId(server_id)]
        return {one.key.scope for one in keeper._site.instances}

    return front.inside(look)


def test_a_body_that_comes_after_the_end_of_its_key_opens_nothing(front: Face) -> None:
    office = Office(front.ask)
    key = office.key("a", tenant=office.tenant("acme", PROD)["id"])
    other = office.key("b", tenant="acme")
    raw = call("legacy", method="tools/list")
    with front.connect() as one, front.connect() as two:
        for wire, secret in ((one, key.secret), (two, other.secret)):
            wire.send(raw.replace(KEY, secret)[:-5])
        front.until(
            lambda: front.inside(lambda: front.gateway.dispatcher.used >= {key.id, other.id})
        )
        office.revoke(key)
        for wire in (one, two):
            wire.send(raw[-5:])
        assert one.receive().status == 403
        assert two.receive().status == 200


def test_what_a_lost_store_leaves_open_goes_on(front: Face, client: MakeClient) -> None:
    office = Office(front.ask)
    key = office.key("a", tenant=office.tenant("acme", PROD)["id"])
    with ExitStack() as stack:
        one = Opened(front, client, key, stack)
        all_there(front, 1)
        front.inside(lambda: front.gateway.lose_store(True))
        answer = opens(front.ask, key)
        assert (answer.status, answer.all("retry-after")) == (503, ["1"])
        assert json.loads(answer.body)["code"] == "auth_store_unavailable"
        ready = front.ask(request(b"/ready"))
        assert (ready.status, ready.all("retry-after")) == (503, ["1"])
        assert json.loads(ready.body) == {"status": "store_lost"}
        assert front.ask(request(b"/health")).status == 200
        assert office.done("GET", "/servers") is not None
        front.inside(lambda: front.gateway.lose_store(False))
        assert opens(front.ask, key).status == 200
        assert front.ask(request(b"/ready")).status == 200
        one.goes_on()
