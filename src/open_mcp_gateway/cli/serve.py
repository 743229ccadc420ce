"""``serve``: the gateway over HTTP."""

from __future__ import annotations

import argparse
import contextlib
import sys

import anyio

from open_mcp_gateway import serve
from open_mcp_gateway.catalog.model import Snapshot
from open_mcp_gateway.cli import check
from open_mcp_gateway.cli.admin import read_or_not
from open_mcp_gateway.cli.sources import add_source_options, print_warnings, sources_from
from open_mcp_gateway.cli.store import opened
from open_mcp_gateway.config.model import Config, LogFormat
from open_mcp_gateway.keystore.store import KeyStore
from open_mcp_gateway.reload import Sources
from open_mcp_gateway.telemetry import logs

HELP = "Serve MCP servers over HTTP."
EXIT_FAILED = 1


def add_options(parser: argparse.ArgumentParser) -> None:
    add_source_options(parser)
    parser.add_argument(
        "--validate",
        action="store_true",
        help="print every mistake in configuration and catalog and exit (0 or 2)",
    )


def run(options: argparse.Namespace) -> int:
    """Serve until a signal. InvalidConfig if the files have mistakes; 1 if the port is taken."""
    if options.validate:
        return read_or_not(check.run)(options)
    sources = sources_from(options)
    config, catalog = sources.read()
    print_warnings((*config.warnings, *catalog.warnings))
    configure_logs(config.config)
    with contextlib.ExitStack() as open_here:
        store = None
        if config.config.store is not None:
            store = open_here.enter_context(opened(config.config.store))
        return _serve(config.config, catalog.snapshot, sources, store)


def _serve(config: Config, snapshot: Snapshot, sources: Sources, store: KeyStore | None) -> int:
    try:
        listener = serve.bind(config.listen_addr)
    except OSError as error:
        print(
            f"error: cannot listen on {config.listen_addr}: {error.strerror or error}; "
            "choose another address with --listen-addr or listen_addr",
            file=sys.stderr,
        )
        return EXIT_FAILED
    with listener:
        anyio.run(
            serve.serve,
            config,
            snapshot,
            sources,
            listener,
            store,
            backend_options={"use_uvloop": True},
        )
    return 0


def configure_logs(config: Config) -> None:
    """Human lines on a terminal, JSON elsewhere, unless the configuration says which."""
    human = sys.stderr.isatty()
    if config.log_format is not None:
        human = config.log_format is LogFormat.HUMAN
    logs.configure(config.log_level, human=human)
