"""The composition root: configuration and catalog become one wired gateway."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import anyio
from anyio.abc import TaskGroup

from open_mcp_gateway.access.keyring import Keyring
from open_mcp_gateway.auth.identify import NoAuthentication
from open_mcp_gateway.auth.principal import Principal
from open_mcp_gateway.catalog.diff import Changes, diff
from open_mcp_gateway.catalog.model import Isolation, Snapshot
from open_mcp_gateway.clock import Clock
from open_mcp_gateway.config.model import Config
from open_mcp_gateway.inbound.asgi import Application
from open_mcp_gateway.inbound.dispatch import Authenticator, Dispatcher, Handler
from open_mcp_gateway.inbound.explaining import Explaining
from open_mcp_gateway.inbound.management import Management, ReloadReport
from open_mcp_gateway.inbound.mcp import McpEndpoint
from open_mcp_gateway.inbound.origin import OriginPolicy
from open_mcp_gateway.inbound.routes import Route, Router
from open_mcp_gateway.inbound.sse import SseEndpoint
from open_mcp_gateway.inbound.whoami import Whoami
from open_mcp_gateway.outbound.open import opener_for
from open_mcp_gateway.pipeline.errand import Means
from open_mcp_gateway.pipeline.forward import Forwarder
from open_mcp_gateway.pipeline.modern import ModernFace
from open_mcp_gateway.pipeline.sessions import Sessions
from open_mcp_gateway.pipeline.states import StateSeal
from open_mcp_gateway.supervisor.fleet import Fleet
from open_mcp_gateway.supervisor.settings import FleetSettings
from open_mcp_gateway.telemetry.logs import set_level

log = logging.getLogger(__name__)


class Gateway:
    """One running gateway without its sockets; made by ``running``."""

    def __init__(
        self,
        config: Config,
        snapshot: Snapshot,
        fleet: Fleet,
        tasks: TaskGroup,
        *,
        clock: Clock,
        reload: Callable[[], Awaitable[ReloadReport]],
    ) -> None:
        self.config = config
        self.fleet = fleet
        self.clock = clock
        self.keyring = _keyring(config, clock)
        self.means = Means(
            fleet,
            tasks,
            clock,
            request_timeout_s=config.request_timeout_seconds,
            max_request_s=config.max_request_seconds,
            start_timeout_s=config.start_timeout_seconds,
        )
        self.forwarder = Forwarder(self.means, snapshot)
        self.sessions = Sessions(self.means)
        self.modern = ModernFace(self.means, self.means.handles, StateSeal(clock))
        self.management = Management(fleet, clock, catalog=lambda: self.snapshot, reload=reload)
        endpoint = McpEndpoint(self.sessions, self.modern)
        caller = self._about_callers()
        self.sse = SseEndpoint(self.means, _path_of(config.public_url))
        self.dispatcher = Dispatcher(
            Router([*self.management.routes(), *endpoint.routes(), *self.sse.routes(), *caller]),
            self.forwarder,
            tasks,
            origin=_origin_policy(config),
            authenticator=self._authenticator(),
            max_body_bytes=config.max_body_bytes,
            access_log=config.access_log,
            now=clock.wall,
        )
        self.application = Application(self.dispatcher)

    def _about_callers(self) -> list[Route[Handler]]:
        keyring, wall = lambda: self.keyring, self.clock.wall
        explaining = Explaining(keyring=keyring, catalog=lambda: self.snapshot, now=wall)
        return [*Whoami(keyring=keyring, now=wall).routes(), *explaining.routes()]

    @property
    def snapshot(self) -> Snapshot:
        """The catalog in force."""
        return self.forwarder.snapshot

    def apply(self, config: Config, snapshot: Snapshot, changes: Changes) -> None:
        """Put new settings and a new catalog in force in one step, without a pause.

        Bind address, TLS and file watching keep what they had at start.
        """
        origin = _origin_policy(config)
        keyring = _keyring(config, self.clock)
        # Nothing below can fail, so there is no state half way between old and new.
        self.config = config
        self.means.request_timeout_s = config.request_timeout_seconds
        self.means.max_request_s = config.max_request_seconds
        self.means.start_timeout_s = config.start_timeout_seconds
        self.dispatcher.origin = origin
        self.dispatcher.max_body_bytes = config.max_body_bytes
        self.dispatcher.access_log = config.access_log
        self.forwarder.snapshot = snapshot
        self.fleet.reconfigure(_fleet_settings(config, keyring))
        self.fleet.apply(snapshot, changes)
        self.management.last_reload = self.clock.now()
        self.turn_keys(keyring)
        set_level(config.log_level)

    def turn_keys(self, keyring: Keyring) -> None:
        """Put other keys in force at once: whoever lost theirs is out, streams and all."""
        self.keyring = keyring
        self.fleet.reconfigure(_fleet_settings(self.config, keyring))
        self.dispatcher.authenticator = self._authenticator()
        self.end_locked_out()

    def end_locked_out(self) -> None:
        """End what is open in the name of keys that are no longer in force."""
        authenticator = self.dispatcher.authenticator
        self._end_streams(lambda principal: not authenticator.holds(principal))

    def _authenticator(self) -> Authenticator:
        """Off only when the configuration says so by having no way to authenticate at all."""
        return self.keyring.identifier if self.config.auth_enabled else NoAuthentication()

    def _end_streams(self, unwanted: Callable[[Principal], bool]) -> None:
        """End what is open in the name of certain callers: sessions, streams, calls in flight."""
        self.sessions.end_if(lambda session: unwanted(session.principal))
        self.sse.end_if(lambda session: unwanted(session.principal))
        self.modern.end_if(unwanted)

    def begin_drain(self) -> None:
        """From now on nobody new is welcome; what is here goes on."""
        self.management.ready = False
        self.sessions.end_reading()
        self.sse.drain()
        self.modern.end_listening()

    def sweep(self) -> None:
        """Called every few seconds: what has no event of its own to happen at."""
        self.sessions.sweep()
        self.sse.sweep()
        self.modern.sweep()


@asynccontextmanager
async def running(
    config: Config,
    snapshot: Snapshot,
    *,
    environ: Mapping[str, str],
    clock: Clock,
    reload: Callable[[], Awaitable[ReloadReport]],
) -> AsyncIterator[Gateway]:
    """A gateway with its servers; on the way out every server is stopped and nothing is left."""
    settings = _fleet_settings(config, _keyring(config, clock))
    fleet = Fleet(settings, opener_for(config.outbound, environ), clock)
    fleet.apply(snapshot, diff(Snapshot(), snapshot))
    async with anyio.create_task_group() as supervision:
        await supervision.start(fleet.run)
        async with anyio.create_task_group() as requests:
            yield Gateway(config, snapshot, fleet, requests, clock=clock, reload=reload)
            requests.cancel_scope.cancel()
        await fleet.aclose()


def _fleet_settings(config: Config, keyring: Keyring) -> FleetSettings:
    tenants = any(one.deleted_at is None for one in keyring.tenants.values())
    return FleetSettings(
        idle_timeout_s=config.idle_timeout_seconds,
        health_check_interval_s=config.health_check_interval_seconds,
        start_timeout_s=config.start_timeout_seconds,
        drain_timeout_s=config.max_request_seconds,
        max_connections_per_server=config.max_connections_per_server,
        default_isolation=Isolation.TENANT if tenants else Isolation.SHARED,
    )


def _origin_policy(config: Config) -> OriginPolicy:
    return OriginPolicy(
        cors_enabled=config.cors_enabled,
        cors_origins=config.cors_origins,
        allowed_hosts=config.allowed_hosts,
        auth_enabled=config.auth_enabled,
        public_url=config.public_url,
        scheme="https" if config.tls else "http",
    )


def _path_of(public_url: str | None) -> str:
    """What a proxy in front puts before our paths."""
    return "" if public_url is None else urlsplit(public_url).path.rstrip("/")


def _keyring(config: Config, clock: Clock) -> Keyring:
    return Keyring(config.tenants, config.keys, clock.wall, roles=config.roles)
