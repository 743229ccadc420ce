"""A gateway with two tenants and keys of every kind, and the way to ask it."""

from __future__ import annotations

import json
import time
from typing import Any, Final

from open_mcp_gateway.access.policy import platform_admin
from open_mcp_gateway.auth.apikeys import digest_of
from open_mcp_gateway.auth.principal import PLATFORM, Holder
from open_mcp_gateway.auth.records import KeyRecord, TenantRecord
from open_mcp_gateway.auth.scope import ScopeText
from open_mcp_gateway.names import KeyId, Namespace, TenantId
from tests.rawhttp import Answer, request
from tests.wire.faces import Face, server

ALPHA: Final = TenantId("alpha")
BETA: Final = TenantId("beta")
GONE: Final = TenantId("gone")
OFF: Final = TenantId("off")

TENANTS: Final = (
    TenantRecord(id=ALPHA, namespaces=(Namespace("prod"), Namespace("dev"))),
    TenantRecord(id=BETA, namespaces=(Namespace("stage"),)),
    TenantRecord(id=GONE, namespaces=(Namespace("prod"),), deleted_at=1.0),
    TenantRecord(id=OFF, namespaces=(Namespace("prod"),), disabled_at=1.0),
)
SERVERS: Final = tuple(
    server(name, "echo", namespace=Namespace(namespace))
    for name, namespace in (("pg", "prod"), ("git", "dev"), ("web", "stage"))
)


def secret(name: str) -> bytes:
    """The secret of the key of that name."""
    return b"test-key-of-" + name.encode()


def key(name: str, holder: Holder, role: str, **more: Any) -> KeyRecord:
    """A key whose id is its name."""
    return KeyRecord(
        id=KeyId(name),
        holder=holder,
        name=f"the {name}",
        role=role,
        digests=(digest_of(secret(name)),),
        **more,
    )


NOW_S: Final = time.time()
KEYS: Final = (
    platform_admin(digest_of(secret("root")), KeyId("root")),
    key("auditor", PLATFORM, "auditor"),
    key("viewer", ALPHA, "viewer"),
    key("caller", ALPHA, "caller"),
    key("boss", ALPHA, "tenant-admin"),
    key("narrow", ALPHA, "caller", scope=ScopeText(tools=("pg/query",), namespaces=("prod",))),
    key("dying", ALPHA, "caller", expires_at=NOW_S + 6.5 * 86_400),
    key("denied", ALPHA, "operator", scope=ScopeText(deny_tools=("pg/drop*", "git/*"))),
    key("revoked", ALPHA, "caller", revoked_at=1.0),
    key("other", BETA, "caller"),
    key("blocked", OFF, "caller"),
)


def get(front: Face, who: str | None, path: str) -> Answer:
    """The answer to a GET with the key of that name."""
    return front.ask(request(path.encode(), *_auth(who)), b"GET")


def post(front: Face, who: str | None, path: str, body: object) -> Answer:
    """The answer to a POST of JSON, or of bytes as they are."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = (*_auth(who), (b"Content-Type", b"application/json"))
    return front.ask(request(path.encode(), *headers, method=b"POST", body=raw))


def _auth(who: str | None) -> tuple[tuple[bytes, bytes], ...]:
    return () if who is None else ((b"X-API-Key", secret(who)),)
