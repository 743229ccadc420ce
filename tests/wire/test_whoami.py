"""What callers are told of themselves, over real sockets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import pytest

from open_mcp_gateway.access.policy import ROLES
from open_mcp_gateway.inbound.whoami import expiry_warnings
from tests.wire.faces import Face, face
from tests.wire.tenants import KEYS, NOW_S, SERVERS, TENANTS, get


@pytest.fixture(scope="module")
def front() -> Iterator[Face]:
    with face("hot", *SERVERS, keys=KEYS, tenants=TENANTS) as running:
        yield running


@pytest.fixture(scope="module")
def unlocked() -> Iterator[Face]:
    with face("hot", *SERVERS, keys=(), auth_enabled=False) as running:
        yield running


def me(front: Face, who: str | None) -> dict[str, Any]:
    answer = get(front, who, "/whoami")
    assert answer.status == 200, answer
    assert answer.all("cache-control") == ["no-store"]
    told: dict[str, Any] = json.loads(answer.body)
    return told


def test_a_platform_admin(front: Face) -> None:
    assert me(front, "root") == {
        "key_id": "root",
        "name": "root",
        "tenant": None,
        "role": "admin",
        "permissions": sorted(ROLES["admin"]),
        "namespaces": "*",
        "servers": "*",
        "tools": "*",
        "resources": "*",
        "prompts": "*",
        "expires_at": None,
        "auth": "api_key",
        "warnings": [],
    }


def test_a_narrowed_key_of_a_tenant(front: Face) -> None:
    assert me(front, "narrow") == {
        "key_id": "narrow",
        "name": "the narrow",
        "tenant": "alpha",
        "role": "caller",
        "permissions": sorted(ROLES["caller"]),
        "namespaces": ["prod"],
        "servers": "*",
        "tools": ["pg/query"],
        "resources": [],
        "prompts": [],
        "expires_at": None,
        "auth": "api_key",
        "warnings": [],
    }
    assert me(front, "caller")["namespaces"] == ["dev", "prod"]
    assert me(front, "denied")["deny_tools"] == ["git/*", "pg/drop*"]
    assert "tenants:read" not in me(front, "boss")["permissions"]


def test_a_key_that_ends_soon_is_told(front: Face) -> None:
    told = me(front, "dying")
    assert told["warnings"] == ["expires in 6 days"]
    ends = datetime.fromisoformat(told["expires_at"])
    assert ends.timestamp() == pytest.approx(NOW_S + 6.5 * 86_400, abs=0.01)


@pytest.mark.parametrize(
    ("left_s", "warnings"),
    [
        (14 * 86_400 + 1, []),
        (14 * 86_400, ["expires in 14 days"]),
        (86_400 * 1.9, ["expires in 1 day"]),
        (3600, ["expires in less than a day"]),
        (-1, ["expires in less than a day"]),
    ],
)
def test_when_it_warns(left_s: float, warnings: list[str]) -> None:
    assert expiry_warnings(left_s) == warnings


def test_without_authentication(unlocked: Face) -> None:
    told = me(unlocked, None)
    assert (told["auth"], told["key_id"], told["role"]) == ("none", "anonymous", "anonymous")
    assert told["expires_at"] is None
    assert not any(one.startswith(("keys:", "tenants:")) for one in told["permissions"])
    assert get(unlocked, None, "/admin/roles").status == 409


def test_it_is_for_callers_alone(front: Face) -> None:
    assert get(front, None, "/whoami").status == 401
    assert get(front, "revoked", "/whoami").status == 403
    assert get(front, "nobody", "/whoami").status == 403
    assert get(front, "blocked", "/whoami").all("x-auth-reason") == ["tenant_disabled"]


def test_the_roles(front: Face) -> None:
    for who in ("root", "auditor", "boss"):
        answer = get(front, who, "/admin/roles")
        roles = {name: sorted(granted) for name, granted in ROLES.items()}
        assert json.loads(answer.body) == {"roles": roles}
    for who in ("caller", "denied", "viewer"):
        assert get(front, who, "/admin/roles").status == 403
