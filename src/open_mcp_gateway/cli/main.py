"""The program ``open-mcp-gateway`` and the two shorter names for parts of it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from open_mcp_gateway import __version__
from open_mcp_gateway.cli import check, client_config, serve, stdio
from open_mcp_gateway.cli.serve import EXIT_FAILED
from open_mcp_gateway.errors import InvalidConfig, StoreUnavailable

EXIT_PROBLEMS = 2
"""Mistakes in files or options; argparse uses the same for its own."""


def main(arguments: Sequence[str] | None = None) -> int:
    """``open-mcp-gateway <command>``; returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="open-mcp-gateway", description="One authenticated front door to every MCP server."
    )
    _add_version(parser)
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, module in (
        ("serve", serve),
        ("stdio", stdio),
        ("check", check),
        ("client-config", client_config),
    ):
        command = commands.add_parser(name, help=module.HELP, description=module.HELP)
        module.add_options(command)
        command.set_defaults(run=module.run)
    return _run(parser, arguments)


def gateway_http(arguments: Sequence[str] | None = None) -> int:
    """``gateway-http``: ``open-mcp-gateway serve`` by its own name."""
    parser = argparse.ArgumentParser(prog="gateway-http", description=serve.HELP)
    _add_version(parser)
    serve.add_options(parser)
    parser.set_defaults(run=serve.run)
    return _run(parser, arguments)


def gateway_stdio(arguments: Sequence[str] | None = None) -> int:
    """``gateway-stdio``: ``open-mcp-gateway stdio`` by its own name."""
    parser = argparse.ArgumentParser(prog="gateway-stdio", description=stdio.HELP)
    _add_version(parser)
    stdio.add_options(parser)
    parser.set_defaults(run=stdio.run)
    return _run(parser, arguments)


def _add_version(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")


def _run(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> int:
    options = parser.parse_args(arguments)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except InvalidConfig as error:
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)
        return EXIT_PROBLEMS
    except StoreUnavailable as error:
        # It was there when it was opened.
        reason = "; ".join((error.public, *getattr(error, "__notes__", ())))
        print(f"error: auth.store: {reason}", file=sys.stderr)
        return EXIT_FAILED
    except KeyboardInterrupt:
        return 130
