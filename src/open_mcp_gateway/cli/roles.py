"""``roles``: what the roles are that a key can have."""

from __future__ import annotations

import argparse
from typing import Final

from open_mcp_gateway.cli.admin import WHERE, add_command, add_place_options, way_of
from open_mcp_gateway.cli.shown import print_json, print_table
from open_mcp_gateway.cli.ways import content_of

HELP: Final = "List the roles and what they grant."


def add_options(parser: argparse.ArgumentParser) -> None:
    """The one command below ``roles``."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = f"{HELP}\n\n{WHERE}"
    commands = parser.add_subparsers(dest="roles_command", required=True, metavar="command")
    add_place_options(add_command(commands, "list", list_roles, HELP))


def list_roles(options: argparse.Namespace) -> int:
    """Every role with its permissions."""
    with way_of(options) as way:
        found = content_of(way, way.send("GET", "/admin/roles"))
    if options.json:
        print_json(found)
        return 0
    roles = [{"name": name, "grants": granted} for name, granted in found["roles"].items()]
    print_table({"name": "NAME", "grants": "GRANTS"}, roles)
    return 0
