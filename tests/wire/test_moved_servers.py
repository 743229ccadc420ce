"""A server that a reload puts out of somebody's reach: what is open there ends, for them alone."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest
from msgspec.structs import replace

from open_mcp_gateway.catalog.diff import diff
from open_mcp_gateway.catalog.model import CatalogEntry, Isolation, Snapshot
from open_mcp_gateway.names import Namespace
from tests.wire.conftest import MakeClient
from tests.wire.faces import Face, face, new_store
from tests.wire.stored_keys import PROD, Office
from tests.wire.test_the_end_of_a_key import SERVERS, WITHIN_S, Opened, all_there

MOVED: Final = Namespace("stage")
SHARED: Final = tuple(
    one if one.id == "own" else replace(one, isolation=Isolation.SHARED) for one in SERVERS
)


@pytest.fixture(params=["hot", "asgi-httptools"])
def front(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Face]:
    with new_store(tmp_path) as store, face(request.param, *SHARED, store=store) as found:
        yield found


def move(front: Face, *server_ids: str) -> None:
    """Reload the catalog with these servers in another namespace."""
    before = front.gateway.snapshot

    def moved(entry: CatalogEntry) -> CatalogEntry:
        if entry.spec.id not in server_ids:
            return entry
        spec = replace(entry.spec, namespace=MOVED)
        return replace(entry, spec=spec, shown=spec)

    after = Snapshot({name: moved(entry) for name, entry in before.entries.items()})
    gateway = front.gateway
    front.inside(lambda: gateway.apply(gateway.config, after, diff(before, after)))


def test_what_those_have_open_ends_who_may_not_use_it_any_more(
    front: Face, client: MakeClient
) -> None:
    office = Office(front.ask)
    office.tenant("acme", PROD)
    office.tenant("other", [*PROD, MOVED])
    key, other = office.key("a", tenant="acme"), office.key("b", tenant="other")
    with ExitStack() as stack:
        gone = Opened(front, client, key, stack)
        stays = Opened(front, client, other, stack)
        all_there(front, 2)
        began_s = time.monotonic()
        move(front, *(one.id for one in SHARED))
        gone.ended(404, "not found")
        assert time.monotonic() - began_s < WITHIN_S
        assert gone.session.ask("ping").status == 404
        stays.goes_on()
        client.leave()
    front.until(lambda: front.used("legacy") == front.used("own") == (0, 0))


def test_a_session_does_not_hear_what_the_new_owner_causes(front: Face, client: MakeClient) -> None:
    office = Office(front.ask)
    office.tenant("acme", PROD)
    office.tenant("other", [MOVED])
    key, other = office.key("a", tenant="acme"), office.key("b", tenant="other")
    before = client(front, "legacy", key=key.secret).initialize()
    reading = before.listen()
    move(front, "legacy")
    after = client(front, "legacy", key=other.secret).initialize()
    heard = after.listen()
    after.call("change_list")
    assert heard.next()["method"] == "notifications/tools/list_changed"
    assert [event for event in reading.events() if event.data] == []
    assert before.ask("ping").status == 404


def test_a_move_that_takes_nothing_away_ends_nothing(front: Face, client: MakeClient) -> None:
    office = Office(front.ask)
    office.tenant("acme", PROD)
    key = office.key("a", tenant="acme")
    with ExitStack() as stack:
        stays = Opened(front, client, key, stack)
        all_there(front, 1)
        office.change_tenant("acme", namespaces=[*PROD, MOVED])
        move(front, "legacy", "modern")
        stays.goes_on()
