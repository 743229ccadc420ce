"""``stdio``: one server for one local client, in this process or through a running gateway."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import NoReturn

import anyio
from anyio.abc import TaskStatus

from open_mcp_gateway.app import running
from open_mcp_gateway.auth.identify import anonymous
from open_mcp_gateway.catalog.load import load_catalog
from open_mcp_gateway.catalog.model import CatalogEntry, Snapshot
from open_mcp_gateway.cli.apikey import KEY_VARIABLE, add_key_option, key_of
from open_mcp_gateway.cli.sources import LEVELS, print_warnings
from open_mcp_gateway.clock import SystemClock
from open_mcp_gateway.config.model import Config
from open_mcp_gateway.errors import InvalidConfig, Problem, ReloadFailed
from open_mcp_gateway.inbound.management import ReloadReport
from open_mcp_gateway.inbound.stdio import StdioFace
from open_mcp_gateway.outbound.endpoint import BadUrl, parse
from open_mcp_gateway.outbound.gateway import gateway_entry, gateway_opener
from open_mcp_gateway.outbound.open import Opener
from open_mcp_gateway.outbound.settings import OutboundSettings
from open_mcp_gateway.pipeline.errand import Means
from open_mcp_gateway.pipeline.forward import Forwarder
from open_mcp_gateway.pipeline.modern import ModernFace
from open_mcp_gateway.pipeline.sole import NoSeal, SoleHandles
from open_mcp_gateway.supervisor.direct import Direct
from open_mcp_gateway.supervisor.fleet import Fleet
from open_mcp_gateway.telemetry import logs

log = logging.getLogger(__name__)

HELP = "Serve one MCP server on stdin and stdout."
MAX_LINE_BYTES = 64 * 1024 * 1024
MAX_REQUEST_S = 600
EXIT_FAILED = 1

STOPPING = OutboundSettings(stop_grace_s=1.0, term_grace_s=0.75)
"""Servers get less time to end than under a gateway: clients give a program two seconds after
closing its stdin, and as much again after SIGTERM, before they kill it."""

ALONE = Config(
    idle_timeout_seconds=0,
    request_timeout_seconds=MAX_REQUEST_S,
    max_request_seconds=MAX_REQUEST_S,
    outbound=STOPPING,
)
"""For the servers of one client, which has its own patience and whose end is theirs: stopping an
idle one would lose what it remembers. A catalog entry may still say otherwise."""

THEIR_OWN_S = 7 * 24 * 3600.0
"""Bound on calls through a gateway, which has times of its own that are to hold. Whether it is
still there is asked meanwhile: ``outbound/pulse.py``."""


class Stopping:
    """The wish to end, which may come before there is anything to be ended."""

    def __init__(self) -> None:
        self._stop: Callable[[], None] | None = None
        self._asked = False

    def ask(self) -> None:
        self._asked = True
        if self._stop is not None:
            self._stop()

    def tell(self, stop: Callable[[], None]) -> None:
        """Call ``stop`` when it is asked for; at once if it was."""
        self._stop = stop
        if self._asked:
            stop()


Program = Callable[[Stopping], Awaitable[None]]
"""Serves until the client is through or it is asked to stop."""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-s", "--server", required=True, metavar="ID", help="which server")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("-c", "--catalog", type=Path, metavar="FILE", help="start it from here")
    where.add_argument("-g", "--gateway", metavar="URL", help="reach it through a running gateway")
    add_key_option(parser)
    parser.add_argument("--log-level", choices=LEVELS, default="warn")


def run(options: argparse.Namespace) -> NoReturn:
    """Serve until the client closes stdin. InvalidConfig if an option or the catalog is wrong."""
    logs.configure(options.log_level, human=sys.stderr.isatty())
    program = _program(options, dict(os.environ))
    code = EXIT_FAILED
    try:
        anyio.run(_run, program, backend_options={"use_uvloop": sys.platform != "win32"})
        code = 0
    except Exception:
        # The last boundary: a thread may still wait for stdin, and the interpreter for it.
        log.exception("stdio program failed")
    finally:
        logging.shutdown()
        os._exit(code)


def _program(options: argparse.Namespace, environ: Mapping[str, str]) -> Program:
    if options.gateway is None:
        catalog = load_catalog(options.catalog.resolve(), environ)
        print_warnings(catalog.warnings)
        return partial(_in_process, catalog.snapshot, options.server, environ)
    name = options.api_key_env
    key = key_of(name, environ)
    entry = gateway_entry(options.gateway, options.server, key)
    try:
        parse(options.gateway)
    except BadUrl as error:
        raise InvalidConfig([Problem("--gateway", str(error))]) from error
    variable = KEY_VARIABLE if name is None else name
    hint = f"set {variable} to one of its keys" if key is None else f"check the key in {variable}"
    opener = gateway_opener(OutboundSettings(), environ, key_hint=hint)
    return partial(_through_gateway, entry, opener)


async def _run(program: Program) -> None:
    async with anyio.create_task_group() as tasks:
        stopping = Stopping()
        await tasks.start(_obey_signals, stopping)
        await program(stopping)
        tasks.cancel_scope.cancel()


async def _obey_signals(
    stopping: Stopping, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED
) -> None:
    """SIGTERM and SIGINT end the serving. While servers are being stopped they change nothing:
    whoever ended the program by a second one would leave its servers behind."""
    if sys.platform == "win32":  # signals cannot be awaited there, and no children are ours
        task_status.started()
        return
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        task_status.started()
        async for _ in signals:
            stopping.ask()


async def _in_process(
    snapshot: Snapshot, server_id: str, environ: Mapping[str, str], stopping: Stopping
) -> None:
    clock = SystemClock()
    async with running(ALONE, snapshot, environ=environ, clock=clock, reload=_no_reload) as gateway:
        await _serve(gateway.forwarder, gateway.fleet, server_id, stopping, relayed=False)


async def _through_gateway(entry: CatalogEntry, opener: Opener, stopping: Stopping) -> None:
    """The servers of a gateway are that gateway's to watch; here they are only reached."""
    server_id = entry.spec.id
    async with anyio.create_task_group() as tasks:
        servers = Direct(opener, tasks)
        means = Means(
            servers,
            tasks,
            SystemClock(),
            request_timeout_s=THEIR_OWN_S,
            max_request_s=THEIR_OWN_S,
        )
        try:
            forwarder = Forwarder(means, Snapshot({server_id: entry}))
            await _serve(forwarder, servers, server_id, stopping, relayed=True)
        finally:
            tasks.cancel_scope.cancel()
            await servers.aclose()


async def _serve(
    forwarder: Forwarder,
    servers: Fleet | Direct,
    server_id: str,
    stopping: Stopping,
    *,
    relayed: bool,
) -> None:
    means = forwarder.means
    means.handles = SoleHandles()
    modern = ModernFace(means, NoSeal(means.clock))
    face = StdioFace(
        forwarder,
        modern,
        anonymous(),
        server_id,
        stdin=0,
        stdout=1,
        max_line_bytes=MAX_LINE_BYTES,
        relayed=relayed,
    )
    servers.on_opened = face.rejoin
    if isinstance(servers, Fleet):
        servers.on_left = modern.end_listening
    stopping.tell(face.stop)
    await face.run()


async def _no_reload() -> ReloadReport:
    raise ReloadFailed("a stdio gateway has no files to reload")
