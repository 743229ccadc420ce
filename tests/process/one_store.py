"""Gateways in processes of their own on one key store."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

import psycopg

from tests.contract.places import Place
from tests.databases import PostgresServer
from tests.process.talk import KEY, Json, Running, run_gateway
from tests.rawhttp import Answer, Wire, connect, request, send
from tests.wire.stored_keys import Made, Office

POLL_S: Final = 0.002


@contextmanager
def gateways(
    folder: Path, place: Place, count: int, servers: Sequence[Json] = ()
) -> Iterator[list[Running]]:
    """So many gateways on the store at ``place``, which is made if it is not there."""
    place.create().close()
    with ExitStack() as stack:
        started = []
        for number in range(count):
            own = folder / f"gateway-{number}"
            own.mkdir(exist_ok=True)
            config = {"auth": {"store": place.where}}
            started.append(stack.enter_context(run_gateway(own, list(servers), config)))
        yield started


def office(gateway: Running) -> Office:
    return Office(partial(ask, gateway), KEY.encode())


def ask(gateway: Running, raw: bytes, method: bytes = b"GET") -> Answer:
    return send(gateway.gateway.host, gateway.gateway.port, raw, method=method)


class Eye:
    """Looks again and again, on one connection, whether a key opens."""

    def __init__(self, wire: Wire, key: Made) -> None:
        self._wire = wire
        self._raw = request(b"/whoami", (b"X-API-Key", key.secret))

    def look(self) -> Answer:
        self._wire.send(self._raw)
        answer = self._wire.receive()
        assert answer.status, "the connection was closed"
        return answer

    def role(self) -> str | None:
        """The role of the key; None if it does not open."""
        answer = self.look()
        if answer.status != 200:
            assert answer.status in {403, 503}, answer
            return None
        role: str = json.loads(answer.body)["role"]
        return role

    def until(self, role: str | None, within_s: float = 60.0) -> float:
        """Waits until the key has that role; how long that took, in seconds."""
        began_s = time.perf_counter()
        while self.role() != role:
            assert time.perf_counter() - began_s < within_s, f"never became {role}"
            time.sleep(POLL_S)
        return time.perf_counter() - began_s


@contextmanager
def eye(gateway: Running, key: Made) -> Iterator[Eye]:
    with connect(gateway.gateway.host, gateway.gateway.port) as wire:
        yield Eye(wire, key)


def cut(postgres: PostgresServer, place: Place) -> None:
    """End every connection to the database but the one that says so."""
    del place
    with contextlib.closing(psycopg.connect(postgres.url, autocommit=True)) as link:
        link.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )


def worst(delays_s: list[float]) -> float:
    return max(delays_s)


def median(delays_s: list[float]) -> float:
    return sorted(delays_s)[len(delays_s) // 2]


def p99(delays_s: list[float]) -> float:
    return sorted(delays_s)[max(0, len(delays_s) * 99 // 100 - 1)]
