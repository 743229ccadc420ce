"""Run the wired gateway on its sockets until a signal says stop."""

from __future__ import annotations

import contextlib
import gc
import logging
import signal
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import uvicorn
from anyio.abc import TaskGroup

from open_mcp_gateway import __version__
from open_mcp_gateway.app import Gateway, running
from open_mcp_gateway.catalog.model import Snapshot
from open_mcp_gateway.clock import SystemClock
from open_mcp_gateway.config.model import Config, ListenAddress
from open_mcp_gateway.config.watch import watch
from open_mcp_gateway.descriptors import DescriptorWatch, raise_limit
from open_mcp_gateway.inbound.hot import Connection
from open_mcp_gateway.keystore.store import KeyStore
from open_mcp_gateway.outbound.leftovers import find_leftovers
from open_mcp_gateway.reload import Reloader, Sources

log = logging.getLogger(__name__)

SWEEP_S = 5.0
"""How often idle and stuck client connections are looked for."""

BACKLOG = 2048


class _Server(uvicorn.Server):
    """uvicorn's server with signals left to ``serve``, so that a stop by signal ends with 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def bind(address: ListenAddress) -> socket.socket:
    """A listening socket. Raises OSError if the address cannot be had."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    info = socket.getaddrinfo(
        address.host, address.port, family if _is_literal(address.host) else 0, socket.SOCK_STREAM
    )[0]
    listener = socket.socket(info[0], info[1], info[2])
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(info[4])
        listener.listen(BACKLOG)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def _is_literal(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()


async def serve(
    config: Config,
    snapshot: Snapshot,
    sources: Sources,
    listener: socket.socket,
    store: KeyStore | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then drain: requests in flight end, servers stop.

    A second signal ends the wait for requests.
    """
    raise_limit()
    reloader = Reloader(sources)
    # Caught from before the first word in the log until the last server has stopped: a signal in
    # between must not end the program with servers left behind.
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async with running(
            config,
            snapshot,
            environ=sources.environ,
            clock=SystemClock(),
            reload=reloader.reload,
            store=store,
        ) as gateway:
            reloader.gateway = gateway
            server = _Server(_uvicorn_config(config, gateway))
            reload = reloader.reload_changed
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(_obey, signals, server, gateway, reload, tasks)
                tasks.start_soon(_sweep, server, gateway)
                if config.hot_reload:
                    paths = partial(_watched, sources, gateway)
                    await tasks.start(
                        partial(watch, paths, reload, last_read=lambda: sources.digests)
                    )
                _settle_memory()
                _announce(config, gateway, listener)
                await server.serve(sockets=[listener])
                _cut_off(server)
                tasks.cancel_scope.cancel()
    log.info("stopped")


def _watched(sources: Sources, gateway: Gateway) -> list[Path]:
    return list(sources.watched(gateway.config))


def _uvicorn_config(config: Config, gateway: Gateway) -> uvicorn.Config:
    prepared = uvicorn.Config(
        gateway.application,
        http=Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        # Requests in flight end by their own deadlines; this only bounds what ignores them.
        timeout_graceful_shutdown=config.max_request_seconds + 5,
        ssl_certfile=config.tls.cert if config.tls else None,
        ssl_keyfile=str(config.tls.key) if config.tls else None,
    )
    prepared.load()
    if prepared.ssl is not None:
        prepared.ssl.minimum_version = ssl.TLSVersion.TLSv1_2
    return prepared


async def _obey(
    signals: AsyncIterator[signal.Signals],
    server: _Server,
    gateway: Gateway,
    reload: Callable[[], Coroutine[Any, Any, None]],
    tasks: TaskGroup,
) -> None:
    async for number in signals:
        if number == signal.SIGHUP:
            # Not here: whatever a reload waits for, the next signal may say stop.
            tasks.start_soon(reload)
        elif server.should_exit:
            log.warning("stopping at once", extra={"signal": number.name})
            server.force_exit = True
        else:
            log.info("stopping", extra={"signal": number.name})
            gateway.begin_drain()
            server.should_exit = True


async def _sweep(server: _Server, gateway: Gateway) -> None:
    descriptors = DescriptorWatch()
    while True:
        await anyio.sleep(SWEEP_S)
        now_s = anyio.current_time()
        descriptors.look(now_s)
        for connection in list(server.server_state.connections):
            if isinstance(connection, Connection):
                connection.close_if_quiet(now_s)
        gateway.sweep()


def _cut_off(server: _Server) -> None:
    """Close what outlasted the drain, so that no client waits for an answer that cannot come."""
    for connection in list(server.server_state.connections):
        if connection.transport is not None:
            connection.transport.abort()


def _settle_memory() -> None:
    """What exists now stays: the collector need not look at it again, and may look less often.

    A request leaves hardly anything that only the collector could free.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)


def _announce(config: Config, gateway: Gateway, listener: socket.socket) -> None:
    host, port = listener.getsockname()[:2]
    address = str(ListenAddress(host, port))
    log.info(
        "Open MCP Gateway is listening",
        extra={
            "version": __version__,
            "address": address,
            "tls": config.tls is not None,
            "servers": len(gateway.snapshot.entries),
            "hot_reload": config.hot_reload,
            "authentication": config.auth_enabled,
        },
    )
    if not config.auth_enabled:
        log.warning(
            "authentication is off: whoever reaches this address can use every server",
            extra={"address": address, "mend": "set api_key in config.yaml"},
        )
    for leftover in find_leftovers():
        log.warning(
            "a process of an earlier gateway is still running",
            extra={
                "pid": leftover.pid,
                "command": leftover.command,
                "mend": f"kill -s KILL -- -{leftover.pgid}",
            },
        )
