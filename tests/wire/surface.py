"""The routes of the program, and what each takes, written down apart from it.

A route that is added has to be added here too, with its permission, or tests fail.
"""

from __future__ import annotations

from typing import Final

import anyio

from open_mcp_gateway.app import running
from open_mcp_gateway.catalog.model import Snapshot
from open_mcp_gateway.clock import SystemClock
from open_mcp_gateway.config.model import Config
from open_mcp_gateway.inbound.handlers import Handler
from open_mcp_gateway.inbound.management import ReloadReport
from open_mcp_gateway.inbound.routes import AnyKey, Open, Route, Router

METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")

NOBODY: Final = "open"
ANYBODY: Final = "any key"

_READ: Final = {
    "/health": NOBODY,
    "/ready": NOBODY,
    "/whoami": ANYBODY,
    "/openapi.json": ANYBODY,
    "/servers": "servers:list",
    "/servers/{id}": "servers:read",
    "/stats": "stats:read",
    "/admin/roles": "keys:read",
    "/admin/keys": "keys:read",
    "/admin/keys/{key}": "keys:read",
    "/admin/tenants": "tenants:read",
    "/admin/tenants/{tenant}": "tenants:read",
}
_DONE: Final = {
    ("POST", "/auth/explain"): ANYBODY,
    ("POST", "/servers/{id}/start"): "servers:start",
    ("POST", "/servers/{id}/stop"): "servers:stop",
    ("POST", "/servers/{id}/restart"): "servers:restart",
    ("POST", "/admin/reload"): "catalog:reload",
    ("POST", "/mcp"): "mcp:call",
    ("POST", "/rpc"): "mcp:call",
    ("POST", "/servers/{id}/mcp"): "mcp:call",
    ("GET", "/servers/{id}/mcp"): "mcp:call",
    ("DELETE", "/servers/{id}/mcp"): "mcp:call",
    ("GET", "/servers/{id}/sse"): "mcp:call",
    ("POST", "/servers/{id}/messages"): "mcp:call",
    ("POST", "/admin/keys"): "keys:write",
    ("POST", "/admin/keys/verify"): "keys:read",
    ("POST", "/admin/keys/import"): "keys:write",
    ("PATCH", "/admin/keys/{key}"): "keys:write",
    ("DELETE", "/admin/keys/{key}"): "keys:write",
    ("POST", "/admin/tenants"): "tenants:write",
    ("PATCH", "/admin/tenants/{tenant}"): "tenants:write",
    ("DELETE", "/admin/tenants/{tenant}"): "tenants:write",
}
NEEDS: Final = {
    **_DONE,
    **{(method, path): needs for path, needs in _READ.items() for method in METHODS[:2]},
}
"""What it takes to use each method of each path."""


def router() -> Router[Handler]:
    """The table of a whole gateway, as it is wired when the program starts."""

    async def made() -> Router[Handler]:
        async with running(
            Config(auth_enabled=True),
            Snapshot(),
            environ={},
            clock=SystemClock(),
            reload=no_reload,
        ) as gateway:
            return gateway.dispatcher.router

    return anyio.run(made)


def needs_of(route: Route[Handler]) -> str:
    """What a route declares, in the words of ``NEEDS``."""
    if isinstance(route.permission, Open):
        return NOBODY
    return ANYBODY if isinstance(route.permission, AnyKey) else str(route.permission)


async def no_reload() -> ReloadReport:
    raise AssertionError("nothing is reloaded here")
