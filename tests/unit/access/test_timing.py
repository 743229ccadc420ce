"""How long a refusal takes does not say why: neither of servers nor of keys."""

from __future__ import annotations

import gc
import math
import random
import statistics
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final

import pytest

from open_mcp_gateway.access.authorize import Permits, authorize_by_id
from open_mcp_gateway.access.explain import HIDDEN, Question, Subject, explain
from open_mcp_gateway.access.policy import ROLES, holding_of
from open_mcp_gateway.auth.apikeys import digest_of
from open_mcp_gateway.auth.identify import Identifier
from open_mcp_gateway.auth.keyformat import make_key
from open_mcp_gateway.auth.principal import PLATFORM, Permission, Principal
from open_mcp_gateway.auth.records import KeyRecord
from open_mcp_gateway.auth.scope import EVERYTHING, Everything, ScopeText
from open_mcp_gateway.catalog.model import Snapshot
from open_mcp_gateway.errors import NotFound, WrongKey
from open_mcp_gateway.names import KeyId, Namespace, ServerId
from tests.unit.access.worlds import entry

LIMIT: Final = 4.5
"""Of Welch's t, as is usual where code is held to constant time."""

MARGIN: Final = 0.03
"""Of the whole: what equal work may differ by, because of where in memory it happens to look."""

ATTEMPTS: Final = 4
"""A machine with other work makes one measurement worthless, but not the same way each time."""

SHORT, LONG = 6_000, 100_000
NAMES: Final = [f"server-{number}" for number in range(40)]
THERE: Final = random.Random(1).sample(NAMES, 20)
WORLD: Final = Snapshot({ServerId(name): entry(name, "other") for name in THERE})
ABSENT: Final = [name for name in NAMES if name not in THERE]

Attempt = Callable[[], object]


def rounds(samples: int) -> pytest.MarkDecorator:
    """Few samples each time, as many as are asked for in the long run."""
    long = pytest.param(samples, marks=[pytest.mark.long, pytest.mark.timeout(900)])
    return pytest.mark.parametrize("samples", [SHORT, long])


def compared(one: Sequence[Attempt], other: Sequence[Attempt], samples: int) -> float:
    """Welch's t of what the two take beyond ``MARGIN``, measured by turns in random order.

    The slowest tenth of each is left out: that is the machine.
    """
    took: tuple[list[int], list[int]] = ([], [])
    rng = random.Random(samples)
    enabled = gc.isenabled()
    gc.disable()
    try:
        for number in range(samples):
            for which in (0, 1) if rng.random() < 0.5 else (1, 0):
                attempts = (one, other)[which]
                attempt = attempts[number % len(attempts)]
                began = time.perf_counter_ns()
                attempt()
                took[which].append(time.perf_counter_ns() - began)
    finally:
        if enabled:
            gc.enable()
    kept = [sorted(times)[: samples * 9 // 10] for times in took]
    means = [statistics.fmean(times) for times in kept]
    error = math.sqrt(sum(statistics.variance(times) / len(times) for times in kept))
    beyond = abs(means[0] - means[1]) - MARGIN * min(means)
    return beyond / error


def assert_alike(one: Sequence[Attempt], other: Sequence[Attempt], samples: int) -> None:
    found = []
    for _ in range(ATTEMPTS):
        found.append(compared(one, other, samples))
        if found[-1] < LIMIT:
            return
    pytest.fail(f"the two differ in time: t = {found}")


def who(
    namespaces: frozenset[Namespace] | Everything, scope: ScopeText, role: str = "caller"
) -> Principal:
    return Principal(
        key_id=KeyId("k"),
        holder=PLATFORM,
        role=role,
        permissions=ROLES.get(role, frozenset()),
        namespaces=namespaces,
        scope=scope.compiled(),
    )


CALLERS: Final = {
    "of another namespace": who(frozenset({Namespace("own")}), ScopeText()),
    "narrowed to namespaces": who(EVERYTHING, ScopeText(namespaces=("own", "mine-*"))),
    "narrowed to servers": who(EVERYTHING, ScopeText(servers=("own", "mine-*"))),
    "without rights": who(EVERYTHING, ScopeText(), "none"),
}


def refused(ask: Callable[[str], object], names: list[str]) -> list[Attempt]:
    """Asking for each of these, which is to be answered that there is none."""

    def asked(name: str) -> Attempt:
        def attempt() -> None:
            with suppress(NotFound):
                ask(name)
                pytest.fail(f"{name} was found")

        return attempt

    return [asked(name) for name in names]


@rounds(LONG)
@pytest.mark.parametrize("caller", CALLERS.values(), ids=CALLERS)
def test_hidden_takes_as_long_as_missing(caller: Principal, samples: int) -> None:
    kept = Permits(WORLD, Permission.MCP_CALL)

    def looked_up(name: str) -> object:
        return authorize_by_id(caller, Permission.SERVERS_READ, WORLD, name)

    for ask in (looked_up, lambda name: kept.get(caller, name)):
        assert_alike(refused(ask, THERE), refused(ask, ABSENT), samples)


@rounds(LONG)
@pytest.mark.parametrize("about", ["itself", "another"])
def test_explaining_hidden_takes_as_long_as_missing(about: str, samples: int) -> None:
    scope = ScopeText(servers=("own",))
    asker = who(EVERYTHING, scope, "admin")
    other = Subject(who(EVERYTHING, ScopeText(), "admin"), ScopeText())
    subject = Subject(asker, scope) if about == "itself" else other

    def asked(name: str) -> Attempt:
        question = Question(permission=Permission.MCP_CALL, server=ServerId(name))

        def attempt() -> None:
            assert explain(asker, subject, question, WORLD, roles=ROLES) is HIDDEN

        return attempt

    assert_alike([asked(one) for one in THERE], [asked(one) for one in ABSENT], samples)


# ── keys ─────────────────────────────────────────────────────────────────────────────────────────


def made(number: int) -> tuple[KeyId, bytes]:
    key = make_key(random.Random(number).getrandbits)
    return key.key_id, key.text.encode()


KEYS: Final = [made(number) for number in range(40)]
STRANGERS: Final = [made(1000 + number) for number in range(40)]


def door(revoked_at: float | None = None) -> Identifier:
    records = [
        KeyRecord(
            id=key_id,
            holder=PLATFORM,
            name=key_id,
            role="admin",
            digests=(digest_of(text),),
            revoked_at=revoked_at,
        )
        for key_id, text in KEYS
    ]
    return Identifier([(one.digests[0], holding_of(one, {}, ROLES)) for one in records], time.time)


def turned_away(at: Identifier, keys: list[bytes]) -> list[Attempt]:
    def tried(key: bytes) -> Attempt:
        headers = [(b"host", b"gateway"), (b"authorization", b"Bearer " + key)]

        def attempt() -> None:
            with suppress(WrongKey):
                at.authenticate(headers, "127.0.0.1:1")
                pytest.fail("a key opened")

        return attempt

    return [tried(key) for key in keys]


def changed(key: bytes, place: int) -> bytes:
    return key[:place] + (b"A" if key[place : place + 1] != b"A" else b"B") + key[place + 1 :]


NEAR: Final = {
    "known id, other secret": [
        text[:17] + stranger[17:] for (_, text), (_, stranger) in zip(KEYS, STRANGERS, strict=True)
    ],
    "last character": [text[:-1] + changed(text, 65)[-1:] for _, text in KEYS],
    "first character of the secret": [changed(text, 17) for _, text in KEYS],
}


@rounds(LONG)
@pytest.mark.parametrize("near", NEAR.values(), ids=NEAR)
def test_nearly_a_key_takes_as_long_as_none(near: list[bytes], samples: int) -> None:
    at = door()
    unknown = turned_away(at, [text for _, text in STRANGERS])
    assert_alike(turned_away(at, near), unknown, samples)


@rounds(LONG)
def test_nearly_a_revoked_key_takes_as_long_as_none(samples: int) -> None:
    """The whole of one does not: who has it is told that it is revoked, anyway."""
    at = door(revoked_at=1.0)
    unknown = turned_away(at, [text for _, text in STRANGERS])
    assert_alike(turned_away(at, NEAR["last character"]), unknown, samples)


# ── the measurement itself ───────────────────────────────────────────────────────────────────────


def test_a_check_less_would_be_seen() -> None:
    """A refusal that leaves out a part of its work is told from one that does not."""
    caller = CALLERS["of another namespace"]

    def returns_early(name: str) -> object:
        if ServerId(name) not in WORLD.entries:
            raise NotFound(f"Server '{name}' not found")
        return authorize_by_id(caller, Permission.SERVERS_READ, WORLD, name)

    hidden, missing = refused(returns_early, THERE), refused(returns_early, ABSENT)
    assert max(compared(hidden, missing, SHORT) for _ in range(ATTEMPTS)) > LIMIT
