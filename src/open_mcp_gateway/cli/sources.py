"""Options that say where configuration and catalog are, the same for every command."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterable
from pathlib import Path

from open_mcp_gateway.config.load import Overrides, find_config
from open_mcp_gateway.config.model import LogLevel
from open_mcp_gateway.errors import Problem
from open_mcp_gateway.reload import Sources

LEVELS = [str(level) for level in LogLevel]


def add_source_options(parser: argparse.ArgumentParser) -> None:
    """``--config``, ``--catalog``, ``--listen-addr``, ``--log-level``."""
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="config.yaml; else ./config.yaml, ~/.config/mcp-gateway/, /etc/mcp-gateway/",
    )
    parser.add_argument("--catalog", metavar="FILE", help="overrides catalog_path")
    parser.add_argument("--listen-addr", metavar="HOST:PORT", help="overrides listen_addr")
    parser.add_argument("--log-level", choices=LEVELS, help="overrides log_level")


def sources_from(options: argparse.Namespace) -> Sources:
    """What the options point to. InvalidConfig if a file named by an option is not there."""
    environ = dict(os.environ)
    overrides = Overrides(
        listen_addr=options.listen_addr,
        catalog_path=options.catalog,
        log_level=options.log_level,
    )
    config_path = find_config(options.config, environ, Path.cwd())
    return Sources(config_path, overrides, environ)


def print_warnings(warnings: Iterable[Problem]) -> None:
    """One line each on stderr."""
    for problem in warnings:
        print(f"warning: {problem}", file=sys.stderr)
