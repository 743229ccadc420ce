"""Every method of every route against every kind of key: what each may do, cell by cell.

What is expected is worked out here from two tables that are written down apart from the program:
what a route needs (``surface.py``) and what a role grants (below).
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import pytest

from open_mcp_gateway.access.policy import ROLES as BUILT_IN
from open_mcp_gateway.auth.principal import PLATFORM, Holder, Permission
from open_mcp_gateway.auth.records import KeyRecord
from open_mcp_gateway.auth.scope import ScopeText
from open_mcp_gateway.catalog.model import Snapshot
from open_mcp_gateway.inbound.management import ReloadReport
from tests.rawhttp import Answer, request
from tests.wire.faces import JSON, Face, face, new_store
from tests.wire.surface import ANYBODY, NEEDS, NOBODY
from tests.wire.tenants import ALPHA, BETA, GONE, NOW_S, OFF, SERVERS, TENANTS, key, secret

_LOOKS: Final = frozenset({"servers:list", "servers:read", "stats:read"})
_CALLS: Final = _LOOKS | {"mcp:call"}
_RUNS: Final = _CALLS | {"servers:start", "servers:stop", "servers:restart"}
_RULES: Final = _RUNS | {"keys:read", "keys:write", "explain:any"}
ROLES: Final = {
    "viewer": _LOOKS,
    "caller": _CALLS,
    "operator": _RUNS,
    "tenant-admin": _RULES,
    "auditor": _LOOKS | {"keys:read", "explain:any"},
    "admin": _RULES | {"catalog:reload", "tenants:read", "tenants:write"},
    "stopper": frozenset({"servers:list", "servers:stop", "catalog:reload"}),
}
"""The last one is of the configuration."""

NEVER_OF_A_TENANT: Final = {"catalog:reload", "tenants:read", "tenants:write"}
NAMESPACES: Final = {
    PLATFORM: {"prod", "dev", "stage"},
    ALPHA: {"prod", "dev"},
    BETA: {"stage"},
}
WHERE: Final = {"pg": "prod", "git": "dev", "web": "stage"}


@dataclass(frozen=True)
class Who:
    """A kind of caller: a key, or headers that are none, and what is to become of it."""

    name: str
    holder: Holder = ALPHA
    role: str = "operator"
    scope: dict[str, tuple[str, ...]] = field(default_factory=dict)
    members: dict[str, Any] = field(default_factory=dict)
    headers: tuple[tuple[bytes, bytes], ...] | None = None
    """In place of its own key."""

    refused: int = 0
    reason: str | None = None

    def record(self) -> KeyRecord:
        return key(self.name, self.holder, self.role, scope=ScopeText(**self.scope), **self.members)

    def may(self, permission: str) -> bool:
        granted = ROLES.get(self.role, frozenset())
        if self.holder != PLATFORM:
            granted -= NEVER_OF_A_TENANT
        return permission in granted and self._keeps("permissions", permission)

    def reaches(self, server_id: str) -> bool:
        namespace = WHERE.get(server_id)
        return (
            namespace in NAMESPACES.get(self.holder, set())
            and self._keeps("namespaces", str(namespace))
            and self._keeps("servers", server_id)
        )

    def _keeps(self, member: str, name: str) -> bool:
        return name in self.scope.get(member, (name,))

    def governs(self, holder: Holder) -> bool:
        return self.holder in (PLATFORM, holder)


def _wrong(name: str, *headers: tuple[bytes, bytes], refused: int = 403) -> Who:
    return Who(name, headers=headers, refused=refused)


def _barred(name: str, reason: str, holder: Holder = ALPHA, **members: Any) -> Who:
    """With every right there is, but not in force."""
    return Who(name, holder, "admin", members=members, refused=403, reason=reason)


CALLERS: Final = [
    _wrong("no-key", refused=401),
    _wrong("empty", (b"X-API-Key", b""), refused=401),
    _wrong("empty-bearer", (b"Authorization", b"Bearer "), refused=401),
    _wrong("garbage", (b"Authorization", b"Bearer \xff\xfe garbage")),
    _wrong("unknown", (b"X-API-Key", b"mgk_4fTz9QpLm2Xa_" + b"0" * 49)),
    _barred("expired", "expired", expires_at=NOW_S - 1),
    _barred("expired-platform", "expired", PLATFORM, expires_at=NOW_S - 1),
    _barred("revoked", "revoked", revoked_at=NOW_S - 1),
    _barred("disabled", "disabled", disabled_at=NOW_S - 1),
    _barred("scheduled", "not_yet_valid", not_before=NOW_S + 86_400),
    _barred("elsewhere", "ip_not_allowed", PLATFORM, ip_allow=("10.0.0.0/8", "fd00::/8")),
    _barred("nowhere", "ip_not_allowed", ip_allow=()),
    _barred("of-the-disabled", "tenant_disabled", OFF),
    _barred("of-the-deleted", "tenant_disabled", GONE),
    *(Who(f"alpha-{role}", ALPHA, role) for role in ROLES),
    *(Who(f"platform-{role}", PLATFORM, role) for role in ROLES),
    Who("beta-operator", BETA, "operator"),
    Who("beta-boss", BETA, "tenant-admin"),
    Who("at-home", PLATFORM, "viewer", members={"ip_allow": ("127.0.0.0/8",)}),
    Who("no-role", ALPHA, "no-such-role"),
    Who("one-namespace", scope={"namespaces": ("prod",)}),
    Who("foreign-namespace", scope={"namespaces": ("stage",)}),
    Who("no-namespace", PLATFORM, "admin", scope={"namespaces": ()}),
    Who("one-server", scope={"servers": ("git",)}),
    Who("no-server", scope={"servers": ()}),
    Who("one-permission", ALPHA, "tenant-admin", scope={"permissions": ("keys:read",)}),
    Who("blind", PLATFORM, "admin", scope={"permissions": ("servers:stop", "mcp:call")}),
    Who("no-permission", PLATFORM, "admin", scope={"permissions": ()}),
    Who("more-than-the-role", ALPHA, "viewer", scope={"permissions": ("mcp:call", "keys:write")}),
]

ROOT: Final = "platform-admin"
NUMBERS: Final = itertools.count(1)


async def _nothing_new() -> ReloadReport:
    return ReloadReport(before=Snapshot(), after=Snapshot())


@pytest.fixture(scope="module", params=["hot", "asgi-h11"])
def front(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Face]:
    own = frozenset(map(Permission, ROLES["stopper"]))
    with (
        new_store(tmp_path_factory.mktemp("store")) as store,
        face(
            request.param,
            *SERVERS,
            keys=[one.record() for one in CALLERS if one.headers is None],
            tenants=TENANTS,
            roles={**BUILT_IN, "stopper": own},
            store=store,
            reload=_nothing_new,
        ) as running,
    ):
        yield running


def send(front: Face, who: Who, method: str, path: str, body: Any, *more: Any) -> Answer:
    """The answer, whose body is left out where it is a stream."""
    own = ((b"X-API-Key", secret(who.name)),) if who.headers is None else who.headers
    raw = b"" if body is None else json.dumps(body).encode()
    whole = request(path.encode(), *own, JSON, *more, method=method.encode(), body=raw)
    with front.connect() as wire:
        wire.send(whole)
        return wire.receive(b"HEAD" if path.endswith("/sse") else method.encode())


def made(front: Face, path: str, **body: Any) -> str:
    """The id of something new, made by an administrator."""
    root = next(one for one in CALLERS if one.name == ROOT)
    answer = send(front, root, "POST", path, body)
    assert answer.status == 201, answer
    return str(json.loads(answer.body)["id"])


def new_name() -> str:
    return f"n{next(NUMBERS)}"


def small_key() -> dict[str, Any]:
    """A key that everybody who may make keys at all can make and change."""
    return {"name": new_name(), "role": "viewer", "scope": {"namespaces": [], "servers": []}}


KEYS_OF: Final = (PLATFORM, ALPHA, BETA)


@dataclass(frozen=True)
class Cell:
    """One request, and what it comes to if it is allowed."""

    method: str
    path: str
    done: int
    says: bytes = b""
    body: Any = None
    more: tuple[tuple[bytes, bytes], ...] = ()
    server: str | None = None
    holder: Holder | None = None
    """Whose the key is that the path names."""

    missing: bool = False
    """What the path names is not there."""


DONE: Final = {
    ("POST", "/admin/keys"): 201,
    ("POST", "/admin/tenants"): 201,
    ("GET", "/servers/{id}/mcp"): 400,
    ("POST", "/servers/{id}/mcp"): 400,
    ("DELETE", "/servers/{id}/mcp"): 400,
    ("POST", "/servers/{id}/messages"): 404,
}
"""Other than 200. Without a session there is nothing to do at the endpoints that have them."""

SAYS: Final = {("POST", "/servers/{id}/messages"): b"Session not found"}
PING: Final = {"jsonrpc": "2.0", "id": 1, "method": "ping"}


def body_for(method: str, path: str) -> Any:
    """A body that is right."""
    bodies: dict[tuple[str, str], Any] = {
        ("POST", "/auth/explain"): {"action": "servers:list"},
        ("POST", "/servers/{id}/mcp"): PING,
        ("POST", "/servers/{id}/messages"): PING,
        ("POST", "/admin/keys"): small_key(),
        ("POST", "/admin/keys/verify"): {"key": "x"},
        ("POST", "/admin/keys/import"): {"keys": [{}]},
        ("PATCH", "/admin/keys/{key}"): {"metadata": {"seen": "yes"}},
        ("POST", "/admin/tenants"): {"id": new_name(), "namespaces": []},
        ("PATCH", "/admin/tenants/{tenant}"): {"name": "other"},
    }
    return bodies.get((method, path))


def cells(front: Face, method: str, path: str) -> Iterator[Cell]:
    """Every thing that a route can be asked about."""
    done, body = DONE.get((method, path), 200), body_for(method, path)
    says = SAYS.get((method, path), b"")
    if path in {"/mcp", "/rpc"}:
        for name in (*WHERE, "missing"):
            more = ((b"X-Server-ID", name.encode()),) if path == "/rpc" else ()
            envelope = PING if path == "/rpc" else {**PING, "server_id": name}
            yield Cell(method, path, done, body=envelope, more=more, server=name)
    elif "{id}" in path:
        for name in (*WHERE, "missing"):
            where = path.replace("{id}", name)
            yield Cell(method, where, done, says=says, body=body, server=name)
    elif "{key}" in path:
        for holder in KEYS_OF:
            tenant = None if holder == PLATFORM else holder
            key_id = made(front, "/admin/keys", **small_key(), tenant=tenant)
            yield Cell(method, path.replace("{key}", key_id), done, body=body, holder=holder)
        where = path.replace("{key}", "key_000000000000")
        yield Cell(method, where, done, body=body, missing=True)
    elif "{tenant}" in path:
        new_tenant = made(front, "/admin/tenants", id=new_name(), namespaces=[])
        yield Cell(method, path.replace("{tenant}", new_tenant), done, body=body)
        yield Cell(method, path.replace("{tenant}", "missing"), done, body=body, missing=True)
    else:
        yield Cell(method, path, done, body=body)


def expected(who: Who, needs: str, cell: Cell) -> int:
    """The status, from the tables alone; 0 stands for "what was asked for is done"."""
    if needs == NOBODY:
        return 0
    if who.refused:
        return who.refused
    if needs == ANYBODY:
        return 0
    if cell.server is not None and not who.reaches(cell.server):
        return 404
    if not who.may(needs):
        return 404 if cell.server is not None and not who.may("servers:read") else 403
    if cell.missing or (cell.holder is not None and not who.governs(cell.holder)):
        return 404
    return 0


def test_what_is_expected_is_of_every_route() -> None:
    assert {*DONE, *SAYS} <= {*NEEDS}
    assert {name: frozenset(granted) for name, granted in BUILT_IN.items()} == {
        name: granted for name, granted in ROLES.items() if name != "stopper"
    }


@pytest.mark.parametrize("who", CALLERS, ids=lambda one: one.name)
def test_what_a_key_may_do(front: Face, who: Who) -> None:
    for (method, path), needs in NEEDS.items():
        for cell in cells(front, method, path):
            answer = send(front, who, method, cell.path, cell.body, *cell.more)
            status = expected(who, needs, cell)
            where = (who.name, cell, answer)
            assert answer.status == (status or cell.done), where
            if status == 0:
                assert cell.says in answer.body, where
            elif who.refused:
                assert_shut_out(who, answer)
            elif answer.body:
                assert_denied(needs, status, answer)
            if status == 404:
                assert not answer.body or b"Session" not in answer.body, where


def assert_shut_out(who: Who, answer: Answer) -> None:
    told = {401: b"API key required", 403: b"Invalid API key"}[who.refused]
    assert told in answer.body or not answer.body
    # Why is told to nobody but who sent the whole key.
    assert answer.all("x-auth-reason") == ([who.reason] if who.reason else [])
    assert answer.all("cache-control") == ["no-store"]


def assert_denied(needs: str, status: int, answer: Answer) -> None:
    told = json.loads(answer.body)
    # JSON-RPC has its own place for it.
    details = told["error"]["data"] if isinstance(told["error"], dict) else told
    code = {403: "permission_denied", 404: "not_found"}[status]
    assert details["code"] == code
    assert details.get("permission") == (needs if status == 403 else None)
    assert "explain" in details or status == 404
