"""What a tenant is answered does not depend on what other tenants have, are called or do.

Two gateways that differ in tenant ``b`` alone: its servers, keys, load, failures and sessions. The
same requests of tenant ``a`` get the same bytes from both.
"""

from __future__ import annotations

import contextlib
import json
import random
import re
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from open_mcp_gateway.access.policy import platform_admin
from open_mcp_gateway.auth.apikeys import digest_of
from open_mcp_gateway.auth.principal import Holder
from open_mcp_gateway.auth.records import KeyRecord, TenantRecord
from open_mcp_gateway.auth.scope import ScopeText
from open_mcp_gateway.catalog.model import Isolation, ServerSpec
from open_mcp_gateway.names import KeyId, Namespace, TenantId
from tests.rawhttp import Answer, request
from tests.wire.faces import JSON, KEY, Face, face, local, new_store, server
from tests.wire.mcp_client import ACCEPT, LEGACY, MODERN, VERSION

A, B = TenantId("a"), TenantId("b")
ONE, TWO, VIEWER, NARROW = (
    b"test-key-a-one",
    b"test-key-a-two",
    b"test-key-a-view",
    b"test-key-a-few",
)
BOSS: Final = b"test-key-a-boss"
OF_B: Final = (b"test-key-b-one", b"test-key-b-two")
BOSS_OF_B: Final = b"test-key-b-boss"
LEFT, COMMON, RIGHT = Namespace("left"), Namespace("common"), Namespace("right")
SHORT, LONG = 12, 500
REQUESTS: Final = 50

_CLOCK: Final = re.compile(rb'\d{4}-\d\d-\d\dT[\d:.]+Z|(?<="uptime_seconds":)\d+')
_NEW_EACH_TIME: Final = frozenset({"date", "mcp-session-id"})
_RANDOM: Final = re.compile(
    r"key_[0-9A-Za-z]{12}|mgk_[0-9A-Za-z]{12}_(?:[0-9A-Za-z]{49}|\.{3}[0-9A-Za-z]{4})"
    r'|(?<=next_cursor":")[^"]+|(?<=rev":")[0-9a-f]{16}|(?<=^")[0-9a-f]{16}(?="$)'
)
"""Ids and secrets of keys, and what is made of them."""


def record(key: bytes, holder: Holder, role: str, **more: Any) -> KeyRecord:
    name = key.decode().removeprefix("test-key-")
    return KeyRecord(
        id=KeyId(f"config:{name}"),
        holder=holder,
        name=name,
        role=role,
        digests=(digest_of(key),),
        **more,
    )


KEYS_OF_A: Final = (
    record(ONE, A, "operator"),
    record(TWO, A, "operator"),
    record(VIEWER, A, "viewer"),
    record(NARROW, A, "caller", scope=ScopeText(servers=("alpha",))),
    record(BOSS, A, "tenant-admin"),
)
TENANT_A: Final = TenantRecord(id=A, namespaces=(LEFT, COMMON))
SERVERS_OF_A: Final = (
    server("alpha", "echo", namespace=LEFT),
    server("shared", "echo", namespace=COMMON, isolation=Isolation.SHARED),
    server("apart", "echo", namespace=COMMON),
    server("by-key", "echo", namespace=COMMON, isolation=Isolation.KEY),
    server("by-session", "echo", namespace=COMMON, isolation=Isolation.SESSION),
    server("modern", "echo_modern", namespace=COMMON),
    server("broken", "crash_at_start", namespace=COMMON),
    server("fragile", "crash_mid_call", namespace=COMMON),
)
NAMES: Final = ("hidden", "secret", "b-server", "alpha2", "zzz")
"""Of servers that tenant ``a`` asks for, and tenant ``b`` has or has not."""


@dataclass(frozen=True)
class Step:
    """One request, made when its turn comes: it may name the session of an earlier one."""

    key: bytes
    path: str
    method: str = "POST"
    body: Any = None
    modern: bool = False
    session: str = ""
    """What the session is called that it opens or goes on with."""

    seen: bool = False
    """Only if the key is as it was when it was last answered."""


@dataclass
class Caller:
    """Whoever makes requests of one gateway, and remembers their sessions."""

    front: Face
    sessions: dict[str, str] = field(default_factory=dict)
    made: str = "none"
    """The key that was made last, and its tag."""

    tag: str = f'"{0:016}"'
    taken: int = 0
    named: dict[str, str] = field(default_factory=dict)

    def take(self, step: Step) -> Answer:
        self.taken += 1
        headers = [(b"X-API-Key", step.key), ACCEPT, (b"X-Request-Id", b"r%d" % self.taken)]
        if step.seen:
            headers.append((b"If-Match", self.tag.encode()))
        if step.body is not None:
            headers.append(JSON)
        if step.modern:
            headers.append((b"MCP-Protocol-Version", MODERN.encode()))
            headers.append((b"Mcp-Method", step.body["method"].encode()))
        known = self.sessions.get(step.session)
        if known is not None:
            headers.append((b"Mcp-Session-Id", known.encode()))
            headers.append((b"MCP-Protocol-Version", LEGACY.encode()))
        body = b"" if step.body is None else json.dumps(step.body).encode()
        method = step.method.encode()
        path = step.path.replace("MADE", self.made)
        raw = request(path.encode(), *headers, method=method, body=body)
        answer = self.front.ask(raw, method)
        for session in answer.all("mcp-session-id"):
            self.sessions[step.session] = session
        for tag in answer.all("etag"):
            self.tag = tag
        for place in answer.all("location"):
            self.made = place.rpartition("/")[2]
        return answer

    def name(self, match: re.Match[str]) -> str:
        """What is random, by its turn: what is the same stays the same."""
        return self.named.setdefault(match[0], f"random-{len(self.named)}")

    def told(self, answer: Answer) -> tuple[int, tuple[tuple[str, str], ...], bytes]:
        """All of an answer, with what is random by its turn."""
        status, headers, body = masked(answer)
        named = tuple((name, _RANDOM.sub(self.name, value)) for name, value in headers)
        return status, named, _RANDOM.sub(self.name, body.decode()).encode()


def masked(answer: Answer) -> tuple[int, tuple[tuple[str, str], ...], bytes]:
    """All of an answer but the moments and the names that are new each time."""
    headers = tuple(
        (name, "" if name in _NEW_EACH_TIME else value) for name, value in answer.headers
    )
    body = _CLOCK.sub(b"?", answer.body)
    # Its length is that of what was masked; the body itself is compared.
    return answer.status, tuple(one for one in headers if one[0] != "content-length"), body


# ── what tenant a asks ───────────────────────────────────────────────────────────────────────────


def message(method: str, **params: object) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


def envelope(key: bytes, server_id: str, method: str = "tools/call", **params: object) -> Step:
    named = params or {"name": "echo", "arguments": {"text": "hello"}}
    body = {"server_id": server_id, **message(method, **(named if method == "tools/call" else {}))}
    return Step(key, "/mcp", body=body)


def look(rng: random.Random) -> Step:
    """A list, a detail, the figures; by a key that may or may not."""
    key = rng.choice([ONE, TWO, VIEWER, NARROW])
    names = [*(one.id for one in SERVERS_OF_A), *NAMES]
    path = rng.choice(["/servers", "/stats", "/servers?tag=x", f"/servers/{rng.choice(names)}"])
    return Step(key, path, "GET")


def use(rng: random.Random) -> Step:
    """A call, to what there is, what is hidden and what is not there."""
    key = rng.choice([ONE, TWO, VIEWER, NARROW])
    names = ["alpha", "shared", "apart", "by-key", "by-session", "modern", *NAMES]
    method = rng.choice(["tools/call", "tools/call", "tools/list", "no/such", "ping"])
    return envelope(key, rng.choice(names), method)


def control(rng: random.Random) -> Step:
    """Start and stop; of the shared server it is what is declared to be everybody's."""
    names = ["alpha", "apart", "by-key", *NAMES]
    action = rng.choice(["start", "stop"])
    return Step(rng.choice([ONE, TWO, VIEWER]), f"/servers/{rng.choice(names)}/{action}")


def stateless(rng: random.Random) -> Step:
    """A request of the stateless era, to servers of both eras."""
    name = rng.choice(["modern", "apart", *NAMES])
    params = {"_meta": {VERSION: MODERN, "io.modelcontextprotocol/clientCapabilities": {}}}
    body = message("tools/list", **params)
    return Step(rng.choice([ONE, TWO]), f"/servers/{name}/mcp", body=body, modern=True)


def keys_of(boss: bytes, rng: random.Random) -> Step:
    """Keys are made, looked at, changed and revoked; of the same names by both tenants."""
    made, name = "/admin/keys/MADE", f"n{rng.randint(0, 9)}"
    return rng.choice(
        [
            Step(boss, "/admin/keys", body={"name": name, "role": "viewer"}),
            Step(boss, "/admin/keys", body={"name": name, "role": "admin"}),
            Step(boss, f"/admin/keys?limit={rng.randint(1, 3)}", "GET"),
            Step(boss, made, "GET"),
            Step(boss, made, "PATCH", {"metadata": {name: "x"}}, seen=rng.random() < 0.7),
            Step(boss, made, "DELETE", seen=rng.random() < 0.7),
            Step(boss, f"/admin/keys/config:{name}", "GET"),
            Step(boss, "/admin/keys/config:b-one", "GET"),
            Step(boss, "/admin/keys/verify", body={"key": "test-key-b-one"}),
            Step(boss, "/admin/tenants/b", "GET"),
            Step(boss, "/whoami", "GET"),
        ]
    )


def manage(rng: random.Random) -> Step:
    return keys_of(BOSS, rng)


def odd(rng: random.Random) -> Step:
    """What is refused for another reason than the server."""
    return rng.choice(
        [
            Step(b"test-key-nobody", "/servers", "GET"),
            Step(ONE, "/admin/reload"),
            Step(ONE, "/no/such/path", "GET"),
            Step(ONE, "/mcp", body={"server_id": "alpha"}),
            Step(ONE, "/mcp", body=[]),
        ]
    )


def session(rng: random.Random, number: int) -> list[Step]:
    """A client session from its beginning; where it alone has a process, it stays."""
    key, name = rng.choice([ONE, TWO]), rng.choice(["alpha", "apart", "by-session", "secret"])
    path, label = f"/servers/{name}/mcp", f"s{number}"
    info = {"name": "test-client", "version": "1"}
    begin = message("initialize", protocolVersion=LEGACY, capabilities={}, clientInfo=info)
    call = message("tools/call", name="echo", arguments={"text": label})
    steps = [
        Step(key, path, body=begin, session=label),
        Step(key, path, body=message("tools/list"), session=label),
        Step(key, path, body=call, session=label),
    ]
    return steps if name == "by-session" else [*steps, Step(key, path, "DELETE", session=label)]


def requests_of_a(rng: random.Random) -> list[Step]:
    steps = [envelope(TWO, "broken"), envelope(ONE, "broken", "tools/list")]
    steps += [Step(ONE, "/servers", "GET"), Step(ONE, "/stats", "GET")]
    steps += [Step(ONE, "/servers/broken", "GET"), Step(TWO, "/servers/shared", "GET")]
    number = 0
    kinds: list[Callable[[random.Random], Step]] = [
        look,
        look,
        use,
        use,
        manage,
        control,
        stateless,
        odd,
    ]
    while len(steps) < REQUESTS:
        number += 1
        chosen = rng.choice([*kinds, None])
        steps += session(rng, number) if chosen is None else [chosen(rng)]
    return steps[:REQUESTS]


# ── what tenant b is and does ────────────────────────────────────────────────────────────────────


def servers_of_b(rng: random.Random) -> list[ServerSpec]:
    modes = ("echo", "crash_at_start", "crash_mid_call")
    names = rng.sample(NAMES, rng.randint(0, len(NAMES)))
    return [server(name, rng.choice(modes), namespace=RIGHT, tags=("x",)) for name in names]


def requests_of_b(rng: random.Random, own: list[str]) -> list[Step]:
    steps = []
    for number in range(rng.randint(5, 40)):
        key = rng.choice(OF_B)
        name = rng.choice([*own, "apart", "by-key", "by-session", "modern", "broken", "fragile"])
        action = rng.choice(["start", "stop", "restart"])
        info = {"name": "b", "version": "1"}
        asks: dict[str, Any] = {"elicitation": {}} if rng.random() < 0.5 else {}
        begin = message("initialize", protocolVersion=LEGACY, capabilities=asks, clientInfo=info)
        steps.append(
            rng.choice(
                [
                    envelope(key, name),
                    envelope(key, "shared"),
                    envelope(key, "alpha"),
                    Step(key, f"/servers/{name}/{action}"),
                    Step(key, f"/servers/{name}/mcp", body=begin, session=f"b{number}"),
                    Step(b"test-key-wrong", "/servers", "GET"),
                    Step(key, "/stats", "GET"),
                    keys_of(BOSS_OF_B, rng),
                    keys_of(BOSS_OF_B, rng),
                ]
            )
        )
    return steps


@contextlib.contextmanager
def gateway(rng: random.Random, more: list[ServerSpec], *, with_b: bool) -> Iterator[Face]:
    servers: list[ServerSpec] = list(SERVERS_OF_A)
    for one in more:
        servers.insert(rng.randint(0, len(servers)), one)
    keys: tuple[KeyRecord, ...] = (platform_admin(digest_of(KEY), KeyId("test")), *KEYS_OF_A)
    tenants: tuple[TenantRecord, ...] = (TENANT_A,)
    if with_b:
        keys += tuple(record(key, B, "operator") for key in OF_B)
        keys += (record(BOSS_OF_B, B, "tenant-admin"),)
        tenants = (TenantRecord(id=B, namespaces=(COMMON, RIGHT)), TENANT_A)
    with (
        tempfile.TemporaryDirectory() as folder,
        new_store(Path(folder)) as store,
        face("hot", *servers, store=store, keys=keys, tenants=tenants, access_log=False) as front,
    ):
        yield front


def replay(front: Face, steps: list[Step], of_b: list[Step]) -> list[Any]:
    """What ``a`` is answered while ``b`` works: half of it before, the rest at the same time."""
    one, other = Caller(front), Caller(front)
    # What is everybody's runs before anybody looks: that it runs is no secret of any tenant.
    answers = [one.take(envelope(ONE, "shared"))]
    half = len(of_b) // 2
    for step in of_b[:half]:
        other.take(step)
    working = threading.Thread(target=lambda: [other.take(step) for step in of_b[half:]])
    working.start()
    try:
        answers += [one.take(step) for step in steps]
    finally:
        working.join()
    answers += [one.take(step) for step in ENDING]
    return [one.told(answer) for answer in answers]


ENDING: Final = (Step(ONE, "/servers", "GET"), Step(VIEWER, "/stats", "GET"))


def check_world(seed: int) -> None:
    rng = random.Random(seed)
    steps, own = requests_of_a(rng), servers_of_b(rng)
    with gateway(rng, [], with_b=False) as front:
        alone = replay(front, steps, [])
    of_b = requests_of_b(rng, [one.id for one in own])
    with gateway(rng, own, with_b=True) as front:
        together = replay(front, steps, of_b)
    asked = [envelope(ONE, "shared"), *steps, *ENDING]
    for step, expected, found in zip(asked, alone, together, strict=True):
        assert found == expected, (seed, step)


@pytest.mark.parametrize("seed", range(SHORT))
def test_a_tenant_is_answered_the_same_whatever_another_does(seed: int) -> None:
    check_world(seed)


@pytest.mark.long("500 worlds")
@pytest.mark.timeout(7200)
def test_a_tenant_is_answered_the_same_in_many_worlds() -> None:
    for seed in range(SHORT, SHORT + LONG):
        check_world(seed)


# ── one gateway ──────────────────────────────────────────────────────────────────────────────────


def test_what_is_hidden_is_answered_like_what_is_not_there() -> None:
    rng = random.Random(0)
    with gateway(rng, [server("hidden", "echo", namespace=RIGHT)], with_b=True) as front:
        caller = Caller(front)
        caller.take(envelope(OF_B[0], "hidden"))
        for key in (ONE, VIEWER, NARROW):
            for hidden, missing in zip(
                asked_of("hidden", key), asked_of("nowhat", key), strict=True
            ):
                one = masked(caller.take(hidden))
                caller.taken -= 1
                other = masked(caller.take(missing))
                assert (one[0], one[1]) == (other[0], other[1]), hidden
                assert one[2] == other[2].replace(b"nowhat", b"hidden"), hidden
                assert one[0] in {200, 403, 404}


def asked_of(name: str, key: bytes) -> list[Step]:
    meta = {VERSION: MODERN, "io.modelcontextprotocol/clientCapabilities": {}}
    info = {"name": "test-client", "version": "1"}
    begin = message("initialize", protocolVersion=LEGACY, capabilities={}, clientInfo=info)
    return [
        Step(key, f"/servers/{name}", "GET"),
        *(Step(key, f"/servers/{name}/{action}") for action in ("start", "stop", "restart")),
        envelope(key, name),
        envelope(key, name, "tools/list"),
        Step(key, f"/servers/{name}/mcp", body=begin, session="x"),
        Step(key, f"/servers/{name}/mcp", body=message("tools/list", _meta=meta), modern=True),
        Step(key, f"/servers/{name}/mcp", "DELETE"),
    ]


@pytest.mark.parametrize(
    ("isolation", "processes"),
    [(None, 2), (Isolation.SHARED, 1), (Isolation.TENANT, 2), (Isolation.KEY, 4)],
)
def test_tenants_have_processes_of_their_own(
    isolation: Isolation | None, processes: int, tmp_path: Path
) -> None:
    program = str(Path(__file__).parents[1] / "servers" / "stdio_server.py")
    pids = tmp_path / "pids"
    spec = local("counted", program, "echo", str(pids), namespace=COMMON, isolation=isolation)
    with gateway(random.Random(0), [spec], with_b=True) as front:
        caller = Caller(front)
        for key in (ONE, TWO, *OF_B, ONE):
            assert caller.take(envelope(key, "counted")).status == 200
        assert len(set(pids.read_text().split())) == processes


def test_the_platform_sees_it_all_summed_up() -> None:
    with gateway(random.Random(0), [], with_b=True) as front:
        caller = Caller(front)
        for key in (ONE, TWO, OF_B[0]):
            caller.take(envelope(key, "apart"))
            caller.take(envelope(key, "shared"))

        def seen(key: bytes, name: str) -> tuple[int, int]:
            details = json.loads(caller.take(Step(key, f"/servers/{name}", "GET")).body)
            return details["request_count"], details["connection_count"]

        assert (seen(ONE, "apart"), seen(OF_B[0], "apart")) == ((2, 1), (1, 1))
        assert (seen(ONE, "shared"), seen(OF_B[0], "shared")) == ((2, 1), (1, 1))
        assert (seen(KEY, "apart"), seen(KEY, "shared")) == ((3, 2), (3, 1))
        # What a tenant stops is its own; the platform stops everything.
        assert caller.take(Step(ONE, "/servers/apart/stop")).status == 200
        assert (seen(ONE, "apart")[1], seen(OF_B[0], "apart")[1], seen(KEY, "apart")[1]) == (
            0,
            1,
            1,
        )
        assert caller.take(Step(KEY, "/servers/apart/stop")).status == 200
        assert (seen(OF_B[0], "apart")[1], seen(KEY, "apart")[1]) == (0, 0)
