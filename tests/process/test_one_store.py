"""Several gateways on one key store: what is changed in one holds in all, and in time."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.contract.places import Place
from tests.databases import PostgresServer
from tests.gateway import NotStarted
from tests.process.one_store import ask, cut, eye, gateways, median, office, p99, worst
from tests.process.talk import KEY, Running, odd_server, owned_by, run_gateway, wait_until
from tests.rawhttp import request
from tests.wire.stored_keys import Made

SQLITE_S: Final = 0.3
POSTGRES_P99_S: Final = 0.5
POSTGRES_WORST_S: Final = 1.5
OTHERWISE_S: Final = 10.0
"""Beside other tests: what is promised holds as a rule, and nothing comes much later."""

STALE_S: Final = 15.0
BACK_S: Final = 60.0
SHORT, LONG = 8, 1000


@pytest.fixture
def three(tmp_path: Path, place: Place) -> Iterator[list[Running]]:
    with gateways(tmp_path, place, 3) as started:
        yield started


def check_delays(place: Place, delays_s: list[float]) -> None:
    if place.kind == "sqlite":
        assert worst(delays_s) <= SQLITE_S
    else:
        assert p99(delays_s) <= POSTGRES_P99_S
        assert worst(delays_s) <= POSTGRES_WORST_S


def life(three: list[Running], number: int) -> list[float]:
    """A key is made, changed and revoked, each in one gateway after the other; how long each of
    that took to hold in the others, in seconds."""
    delays_s = []
    here, *others = three[number % 3 :] + three[: number % 3]
    key = office(here).key(f"k{number}", role="viewer")
    with ExitStack() as stack:
        eyes = [stack.enter_context(eye(one, key)) for one in others]
        delays_s += [one.until("viewer") for one in eyes]
        office(here).patch(key, role="caller")
        delays_s += [one.until("caller") for one in eyes]
        office(others[0]).revoke(key)
        delays_s += [eyes[1].until(None)]
        with eye(here, key) as own:
            delays_s += [own.until(None)]
    return delays_s


def lives(three: list[Running], rounds: int) -> list[float]:
    return [one for number in range(rounds) for one in life(three, number)]


def test_a_change_in_one_holds_in_the_others(place: Place, three: list[Running]) -> None:
    delays_s = lives(three, SHORT)
    assert median(delays_s) <= (SQLITE_S if place.kind == "sqlite" else POSTGRES_P99_S)
    assert worst(delays_s) <= OTHERWISE_S


def test_who_finds_a_key_revoked_by_another_may_rely_on_it_too(three: list[Running]) -> None:
    for number in range(SHORT):
        key = office(three[0]).key(f"k{number}")
        with eye(three[1], key) as looking:
            looking.until("caller")
            office(three[0]).revoke(key)
            office(three[1]).revoke(key)
            assert looking.role() is None


@pytest.mark.long("1,000 lives on three gateways")
@pytest.mark.timeout(7200)
def test_a_thousand_changes(
    place: Place, three: list[Running], capsys: pytest.CaptureFixture[str]
) -> None:
    delays_s = lives(three, LONG)
    check_delays(place, delays_s)
    with capsys.disabled():
        figures = f"p99 {p99(delays_s):.3f} s, worst {worst(delays_s):.3f} s"
        print(f"\n{place.kind}, {len(delays_s)} looks at changes of others: {figures}")


@pytest.mark.parametrize("rounds", [4, pytest.param(60, marks=pytest.mark.long("60 revocations"))])
def test_connections_to_the_database_that_are_cut_hide_nothing(
    postgres: PostgresServer, tmp_path: Path, rounds: int
) -> None:
    place = Place("postgres", postgres.new_place())
    delays_s = []
    with gateways(tmp_path, place, 2) as (one, two):
        for number in range(rounds):
            key = office(one).key(f"k{number}")
            with eye(two, key) as looking:
                looking.until("caller")
                cut(postgres, place)
                office(one).revoke(key)
                delays_s.append(looking.until(None))
        assert not two.log("keys of the store open nothing until the store answers again")
    assert median(delays_s) <= POSTGRES_WORST_S
    assert worst(delays_s) <= (POSTGRES_WORST_S if rounds > SHORT else OTHERWISE_S)


class Hammer:
    """Clients that ask with one key without a pause, and when each request was begun."""

    def __init__(self, gateway: Running, key: Made, clients: int) -> None:
        self.done = threading.Event()
        self.refused = 0
        self._gateway, self._key = gateway, key
        self._threads = ThreadPoolExecutor(clients)
        self._running = [self._threads.submit(self._client) for _ in range(clients)]

    def _client(self) -> tuple[int, float]:
        """How many were accepted, and when the last of those was begun."""
        accepted, last_s = 0, 0.0
        with eye(self._gateway, self._key) as looking:
            while not self.done.is_set():
                began_s = time.perf_counter()
                if looking.role() is None:
                    self.refused += 1
                else:
                    accepted, last_s = accepted + 1, began_s
        return accepted, last_s

    def until_refused(self, times: int) -> None:
        wait_until(lambda: self.refused > times, "they were refused")

    def end(self) -> list[tuple[int, float]]:
        self.done.set()
        self._threads.shutdown()
        return [one.result() for one in self._running]


@pytest.mark.parametrize(
    ("clients", "rounds"),
    [(16, 3), pytest.param(64, 40, marks=pytest.mark.long("40 revocations, 64 clients"))],
)
def test_no_request_that_begins_after_the_answer_to_a_revocation_is_accepted(
    tmp_path: Path, place: Place, clients: int, rounds: int
) -> None:
    with gateways(tmp_path, place, 1) as (only,):
        for number in range(rounds):
            key = office(only).key(f"k{number}")
            hammer = Hammer(only, key, clients)
            with eye(only, key) as looking:
                for _ in range(20):
                    assert looking.role() == "caller"
                office(only).revoke(key)
                revoked_s = time.perf_counter()
                hammer.until_refused(clients)
            outcomes = hammer.end()
            assert sum(accepted for accepted, _ in outcomes) > 0
            assert max(last_s for _, last_s in outcomes) < revoked_s


def check_loss(
    one: Running, key: Made, lose: Callable[[], object], give_back: Callable[[], object]
) -> None:
    with eye(one, key) as looking:
        assert looking.role() == "caller"
        began_s = time.perf_counter()
        lose()
        try:
            looking.until(None, STALE_S)
            assert time.perf_counter() - began_s > 3, "a moment's silence is no loss"
            answer = looking.look()
            assert (answer.status, answer.all("retry-after")) == (503, ["1"])
            assert json.loads(answer.body)["code"] == "auth_store_unavailable"
            assert one.caller.get("/servers").status == 200
            assert office(one).send("POST", "/admin/keys", {"name": "x"}).status == 503
            assert ask(one, request(b"/servers", (b"X-API-Key", b"unknown"))).status == 403
        finally:
            give_back()
        looking.until("caller", BACK_S)
    wait_until(lambda: one.log("the key store answers again"), "it was said")
    office(one).revoke(key)


def test_while_the_database_is_away_stored_keys_open_nothing(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    place = Place("postgres", postgres.new_place())
    with gateways(tmp_path, place, 1) as (one,):
        check_loss(one, office(one).key("k"), postgres.stop, postgres.start)


def test_while_the_file_is_away_stored_keys_open_nothing(tmp_path: Path) -> None:
    path, aside = tmp_path / "auth.db", tmp_path / "aside.db"
    with gateways(tmp_path, Place("sqlite", str(path)), 1) as (one,):
        check_loss(
            one, office(one).key("k"), lambda: path.rename(aside), lambda: aside.rename(path)
        )


def test_a_gateway_does_not_start_without_its_database(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    place = Place("postgres", postgres.new_place())
    place.create().close()
    postgres.stop()
    try:
        with pytest.raises(NotStarted, match=r"error: auth.store: .*cannot be used"):
            with_store(tmp_path, place)
    finally:
        postgres.start()


def test_a_gateway_does_not_start_on_a_file_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "auth.db"
    path.write_bytes(b"not a database, but long enough to be taken for one" * 100)
    with pytest.raises(NotStarted, match=r"error: auth.store: .*cannot be used"):
        with_store(tmp_path, Place("sqlite", str(path)))


def with_store(folder: Path, place: Place, api_key: str = KEY) -> None:
    with run_gateway(folder, [], {"auth": {"store": place.where}}, key=api_key):
        raise AssertionError("it started")


def test_one_row_that_nobody_can_read_ends_no_gateway(tmp_path: Path, place: Place) -> None:
    """It opens nothing, is listed, and can be revoked; all others go on, also after a start."""
    with gateways(tmp_path, place, 2) as (one, two):
        bad, good = office(one).key("bad"), office(one).key("good")
        with eye(two, bad) as looking:
            looking.until("caller")
            scope = """scope = '{"tools":["a*b"]}', rev = rev + 10"""
            place.alter(f"UPDATE api_keys SET {scope} WHERE id = '{bad.id}'")
            place.alter("UPDATE auth_meta SET rev = rev + 10")
            looking.until(None)
        with eye(two, good) as looking:
            assert looking.role() == "caller"
        text = "a key of the store cannot be read and opens nothing"
        wait_until(lambda: [one["key_id"] for one in two.log(text)] == [bad.id], "it was said")
    with gateways(tmp_path, place, 1) as (again,):
        with eye(again, bad) as looking:
            assert looking.role() is None
        listed = {one["id"]: one["status"] for one in again.caller.get("/admin/keys").json["data"]}
        assert (listed[bad.id], listed[good.id]) == ("disabled", "active")
        office(again).revoke(bad)
        with eye(again, good) as looking:
            assert looking.role() == "caller"


def test_a_key_of_the_files_is_none_of_the_store(tmp_path: Path, place: Place) -> None:
    """The one of the files opens, after a reload and after a start."""
    with gateways(tmp_path, place, 1) as (only,):
        key = office(only).key("stored")
        path = only.gateway.config_path
        right = path.read_text("utf-8")
        path.write_text(right.replace(KEY, key.secret.decode()), "utf-8")
        wait_until(lambda: only.log("reloaded"), "it was read")
        with eye(only, key) as looking:
            looking.until("admin")
    with run_gateway(tmp_path, [], {"auth": {"store": place.where}}, key=key.secret.decode()):
        pass


def test_a_key_that_another_gateway_revokes_takes_its_calls_along(
    tmp_path: Path, place: Place
) -> None:
    servers = [odd_server("echo", isolation="key")]
    with gateways(tmp_path, place, 2, servers) as (one, two):
        key, other = office(one).key("a"), office(one).key("b")
        for each in (key, other):
            with eye(two, each) as looking:
                looking.until("caller")
        held = two.as_caller(key.secret.decode()).begin("echo", "sleep", seconds=30)
        goes_on = two.as_caller(other.secret.decode()).begin("echo", "sleep", seconds=3)
        wait_until(lambda: two.caller.shown("echo")["request_count"] == 2, "both are in flight")
        office(one).revoke(key)
        began_s = time.perf_counter()
        assert held.getresponse().status == 403
        assert time.perf_counter() - began_s < OTHERWISE_S
        held.close()
        assert goes_on.getresponse().status == 200
        goes_on.close()
        wait_until(lambda: len(owned_by(two.pid)) == 1, "its server is gone, the other is there")
