"""The program ``open-mcp-gateway`` and the two shorter names for parts of it."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn, Protocol

from open_mcp_gateway import __version__
from open_mcp_gateway.cli import check, client_config, keys, roles, serve, stdio, tenants
from open_mcp_gateway.cli.admin import read_or_not
from open_mcp_gateway.cli.ways import EXIT_REFUSED
from open_mcp_gateway.errors import InvalidConfig, StoreUnavailable

EXIT_PROBLEMS = 2
"""Mistakes in files or options; argparse uses the same for its own."""


_KEY = re.compile(r"mgk_[0-9A-Za-z_]{13,}")
_OPTION = re.compile(r"--?[a-z][a-z-]*")


def main(arguments: Sequence[str] | None = None) -> int:
    """``open-mcp-gateway <command>``; returns the exit code."""
    return _run(all_commands(), arguments)


def all_commands() -> argparse.ArgumentParser:
    """The options of ``open-mcp-gateway``."""
    parser = _Parser(
        prog="open-mcp-gateway",
        description="One authenticated front door to every MCP server.",
        allow_abbrev=False,
    )
    _add_version(parser)
    commands = parser.add_subparsers(dest="command", required=True, metavar="command")
    for name, module in (
        ("serve", serve),
        ("stdio", stdio),
        ("check", check),
        ("client-config", client_config),
    ):
        run = read_or_not(module.run) if module in (check, client_config) else module.run
        _add(commands, name, module).set_defaults(run=run)
    for name, group in (("keys", keys), ("tenants", tenants), ("roles", roles)):
        _add(commands, name, group)
    return parser


def gateway_http(arguments: Sequence[str] | None = None) -> int:
    """``gateway-http``: ``open-mcp-gateway serve`` by its own name."""
    parser = _Parser(prog="gateway-http", description=serve.HELP, allow_abbrev=False)
    _add_version(parser)
    serve.add_options(parser)
    parser.set_defaults(run=serve.run)
    return _run(parser, arguments)


def gateway_stdio(arguments: Sequence[str] | None = None) -> int:
    """``gateway-stdio``: ``open-mcp-gateway stdio`` by its own name."""
    parser = _Parser(prog="gateway-stdio", description=stdio.HELP, allow_abbrev=False)
    _add_version(parser)
    stdio.add_options(parser)
    parser.set_defaults(run=stdio.run)
    return _run(parser, arguments)


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with options without saying a key again that stands where none belongs."""

    def error(self, message: str) -> NoReturn:
        super().error(_KEY.sub("mgk_***", message))


class _Command(Protocol):
    """A module that is a command, or a group of them."""

    HELP: str

    def add_options(self, parser: argparse.ArgumentParser) -> None: ...


def _add(
    commands: argparse._SubParsersAction[_Parser], name: str, module: _Command
) -> argparse.ArgumentParser:
    command: _Parser = commands.add_parser(
        name, help=module.HELP, description=module.HELP, allow_abbrev=False
    )
    module.add_options(command)
    return command


def _parsed(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """The options. What is not known is not said again beyond its name: it may be a key."""
    options, surplus = parser.parse_known_args(arguments)
    if surplus:
        names = [one.partition("=")[0] for one in surplus]
        known = [one for one in names if _OPTION.fullmatch(one)]
        parser.error(f"unknown arguments: {', '.join(known) or len(surplus)}; see --help")
    return options


def _add_version(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--version", action="version", version=f"%(prog)s {__version__}")


def _run(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> int:
    options = _parsed(parser, arguments)
    run: Callable[[argparse.Namespace], int] = options.run
    try:
        return run(options)
    except InvalidConfig as error:
        for problem in error.problems:
            print(f"error: {problem}", file=sys.stderr)
        return EXIT_PROBLEMS
    except StoreUnavailable as error:
        reason = " ".join((error.public, *getattr(error, "__notes__", ())))
        print(f"error: {reason.rstrip('.')}; check auth.store and try again", file=sys.stderr)
        return EXIT_REFUSED
    except KeyboardInterrupt:
        return 130
