"""The composition root: configuration and catalog become one wired gateway."""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from typing import Final, NoReturn

import anyio
from anyio import to_thread
from anyio.abc import TaskGroup

from open_mcp_gateway.access.keyring import Keyring
from open_mcp_gateway.access.standing import Standing
from open_mcp_gateway.auth.identify import NoAuthentication
from open_mcp_gateway.catalog.diff import Changes, diff
from open_mcp_gateway.catalog.model import Snapshot
from open_mcp_gateway.clock import Clock
from open_mcp_gateway.config.model import Config
from open_mcp_gateway.inbound.admin_tenants import admin_routes
from open_mcp_gateway.inbound.admission import Authenticator
from open_mcp_gateway.inbound.asgi import Application
from open_mcp_gateway.inbound.dispatch import Dispatcher
from open_mcp_gateway.inbound.explaining import Explaining
from open_mcp_gateway.inbound.handlers import Handler
from open_mcp_gateway.inbound.management import Management, ReloadReport
from open_mcp_gateway.inbound.mcp import McpEndpoint
from open_mcp_gateway.inbound.openapi import OpenApi
from open_mcp_gateway.inbound.routes import Route, Router
from open_mcp_gateway.inbound.sse import SseEndpoint
from open_mcp_gateway.inbound.whoami import Whoami
from open_mcp_gateway.keystore.store import KeyStore
from open_mcp_gateway.names import KeyId, ServerId
from open_mcp_gateway.operations.changes import Changer
from open_mcp_gateway.operations.follow import Follower
from open_mcp_gateway.operations.inforce import NOTHING_STORED, KeysInForce
from open_mcp_gateway.operations.keys import KeyAdmin
from open_mcp_gateway.outbound.open import opener_for
from open_mcp_gateway.outbound.verdicts import EraVerdicts
from open_mcp_gateway.pipeline.errand import Means
from open_mcp_gateway.pipeline.forward import Forwarder
from open_mcp_gateway.pipeline.modern import ModernFace
from open_mcp_gateway.pipeline.sessions import Sessions
from open_mcp_gateway.pipeline.states import StateSeal
from open_mcp_gateway.settings import (
    configured,
    fleet_settings,
    is_deserted,
    origin_policy,
    path_of,
)
from open_mcp_gateway.supervisor.fleet import Fleet
from open_mcp_gateway.telemetry.logs import set_level

log = logging.getLogger(__name__)

LOOK_S: Final = 0.5
"""How often it is looked whether a key has expired whose streams are to end."""


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
        keys: KeysInForce,
        store: KeyStore | None,
        reload: Callable[[], Awaitable[ReloadReport]],
    ) -> None:
        self.config = config
        self.fleet = fleet
        self.clock = clock
        self.keys = keys
        self.changer = Changer(store, keys, self.turn_keys)
        self._next_end_s = keys.keyring.identifier.next_end_s()
        self.means = Means(
            fleet,
            tasks,
            clock,
            request_timeout_s=config.request_timeout_seconds,
            max_request_s=config.max_request_seconds,
            start_timeout_s=config.start_timeout_seconds,
        )
        self.means.handles.turn(keys.keyring.keys)
        self.forwarder = Forwarder(self.means, snapshot)
        self.sessions = Sessions(self.means)
        self.modern = ModernFace(self.means, StateSeal(clock))
        self.management = Management(fleet, clock, catalog=lambda: self.snapshot, reload=reload)
        endpoint = McpEndpoint(self.sessions, self.modern)
        about_keys = self._about_keys()
        self.sse = SseEndpoint(self.means, path_of(config.public_url))
        self.dispatcher = Dispatcher(
            Router(
                [*self.management.routes(), *endpoint.routes(), *self.sse.routes(), *about_keys]
            ),
            self.forwarder,
            tasks,
            origin=origin_policy(config),
            authenticator=self._authenticator(),
            max_body_bytes=config.max_body_bytes,
            access_log=config.access_log,
            now=clock.wall,
        )
        self._ended_by = self.dispatcher.authenticator
        self.application = Application(self.dispatcher)
        fleet.on_opened = self._rejoin
        fleet.on_left = self.modern.end_listening

    def _about_keys(self) -> list[Route[Handler]]:
        keyring, wall = lambda: self.keyring, self.clock.wall
        explaining = Explaining(keyring=keyring, catalog=lambda: self.snapshot, now=wall)
        admin = KeyAdmin(self.changer, self.clock, secrets.randbits)
        described = OpenApi(lambda: self.dispatcher.router.routes)
        return [
            *Whoami(keyring=keyring, now=wall).routes(),
            *explaining.routes(),
            *admin_routes(admin),
            *described.routes(),
        ]

    @property
    def keyring(self) -> Keyring:
        """The keys in force."""
        return self.keys.keyring

    @property
    def snapshot(self) -> Snapshot:
        """The catalog in force."""
        return self.forwarder.snapshot

    def apply(self, config: Config, snapshot: Snapshot, changes: Changes) -> None:
        """Put new settings and a new catalog in force in one step, without a pause.

        Bind address, TLS, key store and file watching keep what they had at start.
        """
        origin = origin_policy(config)
        wanted = configured(config)
        keyring = self.keys.reconfigured(wanted)
        # Nothing below can fail, so there is no state half way between old and new.
        self.config = config
        self.means.request_timeout_s = config.request_timeout_seconds
        self.means.max_request_s = config.max_request_seconds
        self.means.start_timeout_s = config.start_timeout_seconds
        self.dispatcher.origin = origin
        self.dispatcher.max_body_bytes = config.max_body_bytes
        self.dispatcher.access_log = config.access_log
        self.forwarder.snapshot = snapshot
        self.fleet.reconfigure(fleet_settings(config, keyring))
        self.fleet.apply(snapshot, changes)
        self.sessions.hang_up(changes.removed)
        self.sse.hang_up(changes.removed)
        self.management.last_reload = self.clock.now()
        self.keys.adopt(wanted, keyring)
        self.turn_keys(keyring)
        set_level(config.log_level)

    def turn_keys(self, keyring: Keyring) -> None:
        """Put other keys in force at once: whoever lost theirs is out, streams and all."""
        self.fleet.reconfigure(fleet_settings(self.config, keyring))
        self.dispatcher.authenticator = self._authenticator()
        self.means.handles.turn(keyring.keys)
        self.end_locked_out()
        self._next_end_s = -math.inf  # looked for soon: among many keys that takes a while

    def lose_store(self, lost: bool) -> None:
        """Keys of the store open nothing new while ``lost``; what they have open goes on."""
        self.management.store_lost = lost
        self.dispatcher.authenticator = self._authenticator()

    def end_expired(self) -> None:
        """Called about twice a second: an expiry has no event of its own."""
        if self._next_end_s <= self.clock.wall():
            # In this order: what expires between the two is ended, not passed over.
            self._next_end_s = self.keyring.identifier.next_end_s()
            self.end_locked_out()

    def take_used(self) -> Collection[KeyId]:
        """The keys that opened since this was last asked."""
        used, self.dispatcher.used = self.dispatcher.used, set()
        return used

    def end_locked_out(self) -> None:
        """End what is open by rights that are no longer in force: sessions, streams, calls."""
        authenticator, before = self.dispatcher.authenticator, self._ended_by
        self._ended_by = authenticator
        loss = Standing(authenticator, before, self.snapshot).loss
        self.forwarder.end_if(loss)
        self.sessions.lock_out(loss)
        self.sse.lock_out(loss)
        self.modern.end_if(loss)
        self.dispatcher.managed.end_if(loss)
        keyring, opens = self.keyring, authenticator.opens
        self.fleet.desert(lambda entry, key: is_deserted(entry, key, keyring, opens))

    def _authenticator(self) -> Authenticator:
        """Off only when the configuration says so by having no way to authenticate at all."""
        if not self.config.auth_enabled:
            return NoAuthentication()
        identifier = self.keyring.identifier
        return identifier.store_lost() if self.management.store_lost else identifier

    def _rejoin(self, server_id: ServerId) -> None:
        """A connection to a server has opened: sessions of an earlier one go on with it."""
        self.sessions.rejoin(server_id)
        self.sse.rejoin(server_id)

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
    store: KeyStore | None = None,
) -> AsyncIterator[Gateway]:
    """A gateway with its servers; on the way out every server is stopped and nothing is left.

    Raises:
        StoreUnavailable: the store does not answer.
    """
    stored = NOTHING_STORED if store is None else await to_thread.run_sync(store.read)
    keys = KeysInForce(configured(config), clock.wall, stored)
    settings = fleet_settings(config, keys.keyring)
    verdicts = EraVerdicts(clock.monotonic)
    opener = opener_for(config.outbound, environ, verdicts)
    fleet = Fleet(settings, opener, clock, ask_again=verdicts.pardon)
    fleet.apply(snapshot, diff(Snapshot(), snapshot))
    async with anyio.create_task_group() as supervision:
        await supervision.start(fleet.run)
        async with anyio.create_task_group() as requests:
            given = config, snapshot, fleet, requests
            gateway = Gateway(*given, clock=clock, keys=keys, store=store, reload=reload)
            async with anyio.create_task_group() as keeping:
                keeping.start_soon(_keep_time, gateway)
                if store is not None:
                    keeping.start_soon(_follower(store, gateway).run)
                yield gateway
                keeping.cancel_scope.cancel()
            requests.cancel_scope.cancel()
        await fleet.aclose()


def _follower(store: KeyStore, gateway: Gateway) -> Follower:
    return Follower(
        store,
        gateway.changer,
        gateway.clock,
        lost=gateway.lose_store,
        used=gateway.take_used,
    )


async def _keep_time(gateway: Gateway) -> NoReturn:
    while True:
        await anyio.sleep(LOOK_S)
        gateway.end_expired()
