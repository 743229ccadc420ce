"""What the commands about keys, tenants and roles have in common: where they work, how they end."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, TypeAlias

from open_mcp_gateway.cli.apikey import KEY_VARIABLE, add_key_option, key_of
from open_mcp_gateway.cli.local import StoreWay
from open_mcp_gateway.cli.sources import print_warnings
from open_mcp_gateway.cli.store import opened
from open_mcp_gateway.cli.ways import EXIT_REFUSED, EXIT_USAGE, Failed, GatewayWay, Way
from open_mcp_gateway.config.auth import store_location
from open_mcp_gateway.config.load import Overrides, find_config, load_config
from open_mcp_gateway.config.model import Config, StoreLocation
from open_mcp_gateway.errors import InvalidConfig, Problem
from open_mcp_gateway.settings import configured

Command: TypeAlias = Callable[[argparse.Namespace], int]

WHERE: Final = """\
Without --gateway the store is used directly: whoever may write it needs no key. A gateway that
runs on the same store follows within a fraction of a second. Run this as the user that the gateway
runs as, so that the store stays its own.
"""

_NO_STORE: Final = (
    "is not there; write where the store is, or use --store, or --gateway for a running gateway"
)


def add_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    run: Command,
    text: str,
) -> argparse.ArgumentParser:
    """A command of its own below ``keys`` and its like."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=text, description=text, allow_abbrev=False
    )
    parser.set_defaults(run=lambda options: _ended(run, options))
    return parser


def _ended(run: Command, options: argparse.Namespace) -> int:
    if isinstance(sys.stdout, io.TextIOWrapper):  # names are Unicode, a terminal need not be
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        return read_or_not(run)(options)
    except Failed as failure:
        print(f"error: {failure}", file=sys.stderr)
        return failure.exit_code
    except UnicodeEncodeError:
        print("error: an option holds bytes that are not UTF-8; mend it", file=sys.stderr)
        return EXIT_USAGE


def read_or_not(run: Command) -> Command:
    """``run``, which writes to stdout last of all, made to end quietly where nobody reads it."""

    def printed(options: argparse.Namespace) -> int:
        try:
            code = run(options)
            sys.stdout.flush()
        except BrokenPipeError:  # whoever reads has seen enough
            silence_stdout()
            return EXIT_REFUSED
        return code

    return printed


def silence_stdout() -> None:
    """After a failed write: what is still to be written must not fail once more at the end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def add_store_options(parser: argparse.ArgumentParser) -> None:
    """``--config`` and ``--store``."""
    group = parser.add_argument_group("on the store")
    group.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="the configuration whose auth.store is used (default: as for serve)",
    )
    group.add_argument(
        "--store",
        metavar="PLACE",
        help="another store: a path, sqlite:///absolute/path or postgresql://…; without --config "
        "nothing is known of configured keys and tenants",
    )


def add_place_options(parser: argparse.ArgumentParser) -> None:
    """Those of ``add_store_options``, ``--gateway`` and ``--api-key-env``; and ``--json``."""
    add_store_options(parser)
    group = parser.add_argument_group("through a running gateway")
    group.add_argument("-g", "--gateway", metavar="URL", help="its address")
    add_key_option(group)
    parser.add_argument("--json", action="store_true", help="print what the HTTP API answers")


@contextmanager
def way_of(options: argparse.Namespace, *, create: bool = False) -> Iterator[Way]:
    """The way that the options choose; with ``create`` the store of the configuration is made
    where there is none.

    Raises:
        InvalidConfig: they contradict each other, or lead nowhere.
        StoreUnavailable: the store does not answer.
    """
    environ = dict(os.environ)
    if options.gateway is not None:
        if options.store is not None or options.config is not None:
            text = "is one way, --store and --config are the other; leave one out"
            raise InvalidConfig([Problem("--gateway", text)])
        key = key_of(options.api_key_env, environ)
        yield GatewayWay(options.gateway, key, variable=options.api_key_env or KEY_VARIABLE)
        return
    if options.api_key_env is not None:
        text = "is for --gateway; the store asks for no key"
        raise InvalidConfig([Problem("--api-key-env", text)])
    config, place = store_of(options)
    with opened(place, create=create and options.store is None) as store:
        yield StoreWay(store, configured(config))


def store_of(options: argparse.Namespace) -> tuple[Config, StoreLocation]:
    """The configuration that counts, and the store. Raises InvalidConfig: none is named."""
    environ = dict(os.environ)
    config = Config()
    path = options.config
    if options.store is None or path is not None:
        path = find_config(path, environ, Path.cwd())
        loaded = load_config(path, Overrides(), environ)
        print_warnings(loaded.warnings)
        config = loaded.config
    place: StoreLocation | str | None = config.store
    if options.store is not None:
        place = store_location(options.store, Path.cwd(), environ)
    if isinstance(place, str):
        raise InvalidConfig([Problem("--store", place)])
    if place is None:
        where = "auth.store" if path is None else f"{path} auth.store"
        raise InvalidConfig([Problem(where, _NO_STORE)])
    return config, place
