"""The REST answers about servers: lists, details, start, stop, restart, figures, reload."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Protocol
from urllib.parse import parse_qs

import msgspec
from msgspec import Struct

from open_mcp_gateway.access.authorize import visible
from open_mcp_gateway.access.permit import Clearance, Permit
from open_mcp_gateway.auth.principal import Holder, Permission, Principal
from open_mcp_gateway.catalog.diff import diff
from open_mcp_gateway.catalog.model import CatalogEntry, Snapshot
from open_mcp_gateway.clock import Clock, rfc3339
from open_mcp_gateway.errors import ReloadFailed, UpstreamUnavailable
from open_mcp_gateway.inbound.handlers import (
    Handler,
    McpPoint,
    OnGateway,
    OnServer,
    Probe,
    server_in_envelope,
    server_in_header,
)
from open_mcp_gateway.inbound.routes import OPEN, Open, Route, RouteKind
from open_mcp_gateway.names import ServerId
from open_mcp_gateway.pipeline.reply import Reply
from open_mcp_gateway.supervisor.states import ServerState, ServerStatus


class ServerControl(Protocol):
    """The part of the fleet that management needs."""

    def status(self, server_id: ServerId, holder: Holder) -> ServerStatus: ...
    async def start(self, permit: Permit) -> bool: ...
    async def stop(self, permit: Permit) -> bool: ...
    async def restart(self, permit: Permit) -> None: ...


class ReloadReport(Struct, frozen=True, kw_only=True):
    """The catalog before a reload and after it."""

    before: Snapshot
    after: Snapshot


class Management:
    """Handlers for every route; ``catalog`` gives the snapshot in force."""

    def __init__(
        self,
        fleet: ServerControl,
        clock: Clock,
        *,
        catalog: Callable[[], Snapshot],
        reload: Callable[[], Awaitable[ReloadReport]],
    ) -> None:
        self.fleet = fleet
        self.clock = clock
        self.catalog = catalog
        self.ready = True
        """False while the gateway drains."""

        self.store_lost = False
        """Whether keys of the store open nothing, since it does not answer."""

        self._reload = reload
        self._started_s = clock.monotonic()
        self.last_reload = clock.now()
        """When the catalog in force was loaded."""

    def routes(self) -> list[Route[Handler]]:
        """The whole table: adding an endpoint is adding a line."""
        return [
            _route("GET", "/health", OPEN, Probe(_health)),
            _route("GET", "/ready", OPEN, Probe(self.readiness)),
            _route("GET", "/servers", Permission.SERVERS_LIST, OnGateway(self.list)),
            _route("GET", "/servers/{id}", Permission.SERVERS_READ, OnServer(self.show)),
            _route("POST", "/servers/{id}/start", Permission.SERVERS_START, OnServer(self.start)),
            _route("POST", "/servers/{id}/stop", Permission.SERVERS_STOP, OnServer(self.stop)),
            _route(
                "POST", "/servers/{id}/restart", Permission.SERVERS_RESTART, OnServer(self.restart)
            ),
            _route("GET", "/stats", Permission.STATS_READ, OnGateway(self.stats)),
            _route("POST", "/admin/reload", Permission.CATALOG_RELOAD, OnGateway(self.reload)),
            _route("POST", "/mcp", Permission.MCP_CALL, McpPoint(server_in_envelope)),
            _route("POST", "/rpc", Permission.MCP_CALL, McpPoint(server_in_header)),
        ]

    def readiness(self) -> Reply:
        """200 while new requests are welcome, 503 while the gateway drains or its store is lost."""
        if self.ready and not self.store_lost:
            return Reply(200, b'{"status":"ready"}')
        body = b'{"status":"store_lost"}' if self.ready else b'{"status":"draining"}'
        return Reply(503, body, ((b"retry-after", b"1"),))

    async def list(self, clearance: Clearance, query: bytes) -> Reply:
        """Every server the caller may see, in catalog order; each ``?tag=T`` narrows."""
        wanted = parse_qs(query.decode("ascii", "replace")).get("tag", [])
        entries = visible(clearance.principal, self.catalog())
        chosen = [entry for entry in entries if all(tag in entry.spec.tags for tag in wanted)]
        holder = clearance.principal.holder
        return _ok([self._summary(entry, self._status(entry, holder)) for entry in chosen])

    async def show(self, permit: Permit) -> Reply:
        """One server, with everything secret about it shown as ``***``."""
        entry = permit.entry
        runtime = msgspec.to_builtins(entry.shown.runtime)
        runtime = {name: value for name, value in runtime.items() if value is not None}
        status = self._status(entry, permit.principal.holder)
        details = self._summary(entry, status) | {
            "runtime": runtime | {"type": entry.runtime_type},
            "env": entry.shown.env,
            "connection_count": status.connection_count,
        }
        if status.last_error is not None:
            details["last_error"] = status.last_error
        return _ok(details)

    async def start(self, permit: Permit) -> Reply:
        """Start the server now, whatever its history."""
        try:
            started = await self.fleet.start(permit)
        except UpstreamUnavailable as error:
            text = f"Failed to start server: {error.public}"
            raise UpstreamUnavailable(text, retry_after_s=error.retry_after_s) from error
        return _moved(permit, "running", "Server started successfully", "already running", started)

    async def stop(self, permit: Permit) -> Reply:
        """Stop the server now; calls in flight fail."""
        stopped = await self.fleet.stop(permit)
        return _moved(permit, "stopped", "Server stopped successfully", "already stopped", stopped)

    async def restart(self, permit: Permit) -> Reply:
        """Replace the running process by a new one that is ready first."""
        try:
            await self.fleet.restart(permit)
        except UpstreamUnavailable as error:
            text = f"Failed to restart server: {error.public}"
            raise UpstreamUnavailable(text, retry_after_s=error.retry_after_s) from error
        return _moved(permit, "running", "Server restarted successfully", "", True)

    async def stats(self, clearance: Clearance, _: bytes) -> Reply:
        """Figures over the servers the caller may see, and nothing else."""
        entries = visible(clearance.principal, self.catalog(), Permission.STATS_READ)
        holder = clearance.principal.holder
        statuses = {entry.spec.id: self._status(entry, holder) for entry in entries}
        active = sum(status.state is ServerState.RUNNING for status in statuses.values())
        return _ok(
            {
                "uptime_seconds": int(self.clock.monotonic() - self._started_s),
                "total_requests": sum(status.request_count for status in statuses.values()),
                "active_servers": active,
                "total_servers": len(statuses),
                "last_reload": rfc3339(self.last_reload),
                "servers": {name: _figures(status) for name, status in statuses.items()},
            }
        )

    async def reload(self, clearance: Clearance, _query: bytes) -> Reply:
        """Read configuration and catalog again; nothing changes if either has a mistake.

        Counted is the difference that the caller could see by listing servers before and after.
        """
        try:
            report = await self._reload()
        except ReloadFailed as error:
            raise ReloadFailed(f"Failed to reload catalog: {error.public}") from error
        before = _as_seen(clearance.principal, report.before)
        after = _as_seen(clearance.principal, report.after)
        changes = diff(before, after)
        counts = {
            "servers_loaded": len(after.entries),
            "servers_added": len(changes.added),
            "servers_removed": len(changes.removed),
            "servers_modified": len(changes.modified),
        }
        return _ok({"status": "ok", "message": "Catalog reloaded"} | counts)

    def _status(self, entry: CatalogEntry, holder: Holder) -> ServerStatus:
        return self.fleet.status(entry.spec.id, holder)

    def _summary(self, entry: CatalogEntry, status: ServerStatus) -> dict[str, object]:
        spec = entry.shown
        known: dict[str, object | None] = {
            "id": spec.id,
            "display_name": spec.display_name,
            "description": spec.description,
            "status": status.state,
            "tags": spec.tags,
            "namespace": spec.namespace,
            "runtime_type": entry.runtime_type,
            "started_at": _time(status.started_at),
            "last_activity": _time(status.last_activity),
            "request_count": status.request_count,
            "uptime_seconds": status.uptime_seconds,
        }
        return {name: value for name, value in known.items() if value is not None}


def _route(
    method: str, path: str, permission: Permission | Open, handler: Handler
) -> Route[Handler]:
    kind = RouteKind.MCP if isinstance(handler, McpPoint) else RouteKind.MANAGEMENT
    return Route(methods=(method,), path=path, permission=permission, handler=handler, kind=kind)


def _as_seen(principal: Principal, snapshot: Snapshot) -> Snapshot:
    return Snapshot({entry.spec.id: entry for entry in visible(principal, snapshot)})


def _health() -> Reply:
    return Reply(200, b'{"status":"ok"}')


def _ok(value: object) -> Reply:
    return Reply(200, msgspec.json.encode(value))


def _moved(permit: Permit, state: str, done: str, already: str, moved: bool) -> Reply:
    message = done if moved else f"Server {already}"
    return _ok({"id": permit.entry.spec.id, "status": state, "message": message})


def _figures(status: ServerStatus) -> dict[str, object]:
    known: dict[str, object | None] = {
        "status": status.state,
        "request_count": status.request_count,
        "error_count": status.error_count,
        "uptime_seconds": status.uptime_seconds,
        "last_activity": _time(status.last_activity),
    }
    return {name: value for name, value in known.items() if value is not None}


def _time(moment: datetime | None) -> str | None:
    return None if moment is None else rfc3339(moment)
