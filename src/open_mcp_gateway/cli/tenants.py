"""``tenants``: make, list, change and delete tenants."""

from __future__ import annotations

import argparse
from typing import Any, Final

import msgspec

from open_mcp_gateway.cli import key_options, wording
from open_mcp_gateway.cli.admin import WHERE, add_command, add_place_options, way_of
from open_mcp_gateway.cli.shown import print_json, print_members, print_table
from open_mcp_gateway.cli.ways import EXIT_USAGE, Failed, content_of
from open_mcp_gateway.names import TENANT_ID

HELP: Final = "Make, list, change and delete tenants."
EXAMPLES: Final = """
examples:
  open-mcp-gateway tenants create acme --namespaces production,staging
  open-mcp-gateway tenants patch acme --disable
  open-mcp-gateway tenants list --json
"""

_COLUMNS: Final = {
    "id": "ID",
    "name": "NAME",
    "namespaces": "NAMESPACES",
    "disabled": "DISABLED",
    "source": "SOURCE",
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """The commands below ``tenants``."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = f"{HELP}\n\n{WHERE}"
    parser.epilog = EXAMPLES
    commands = parser.add_subparsers(dest="tenants_command", required=True, metavar="command")
    parser = add_command(commands, "list", list_tenants, "List tenants by their ids.")
    add_place_options(parser)

    parser = add_command(commands, "create", create, "Make a tenant.")
    add_place_options(parser)
    _add_id(parser)
    _add_namespaces(parser, required=True)
    parser.add_argument("--name", help="for people")

    parser = add_command(commands, "show", show, "Show one tenant.")
    add_place_options(parser)
    _add_id(parser)

    parser = add_command(commands, "patch", patch, "Change a tenant; what is not named stays.")
    add_place_options(parser)
    _add_id(parser)
    _add_namespaces(parser, required=False)
    parser.add_argument("--name", help="for people")
    key_options.add_switch(parser)
    key_options.add_rev_option(parser)

    parser = add_command(commands, "delete", delete, "Delete a tenant that has no live keys.")
    add_place_options(parser)
    _add_id(parser)
    key_options.add_rev_option(parser)


def list_tenants(options: argparse.Namespace) -> int:
    """Every tenant."""
    with way_of(options) as way:
        found = content_of(way, way.send("GET", "/admin/tenants"), "data")
    if options.json:
        print_json(found)
    else:
        print_table(_COLUMNS, found["data"])
    return 0


def create(options: argparse.Namespace) -> int:
    """Shows what was made."""
    body: dict[str, Any] = {
        "id": options.id,
        "namespaces": wording.words("--namespaces", options.namespaces),
    }
    if options.name is not None:
        body["name"] = options.name
    return _told(options, "POST", "/admin/tenants", body)


def show(options: argparse.Namespace) -> int:
    """One tenant."""
    return _told(options, "GET", _target(options))


def patch(options: argparse.Namespace) -> int:
    """Shows what the tenant is now."""
    body = key_options.tenant_body(options)
    return _told(options, "PATCH", _target(options), body, options.rev)


def delete(options: argparse.Namespace) -> int:
    """Says what was deleted."""
    return _told(options, "DELETE", _target(options), rev=options.rev)


def _told(
    options: argparse.Namespace,
    method: str,
    target: str,
    body: dict[str, Any] | None = None,
    rev: str | None = None,
) -> int:
    raw = None if body is None else msgspec.json.encode(body)
    with way_of(options) as way:
        thing = content_of(way, way.send(method, target, raw, rev=rev))
    if options.json:
        print_json(thing)
    else:
        print_members(thing)
    return 0


def _add_id(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", help="the id of the tenant")


def _add_namespaces(parser: argparse.ArgumentParser, *, required: bool) -> None:
    parser.add_argument(
        "--namespaces",
        action="append",
        required=required,
        metavar="LIST",
        help=f"what its keys may reach at most: {wording.NAMES_HELP}",
    )


def _target(options: argparse.Namespace) -> str:
    """The path of the tenant that is meant. Raises Failed."""
    if not TENANT_ID.fullmatch(options.id):
        raise Failed("ID is the id of a tenant; `tenants list` shows them", EXIT_USAGE)
    return f"/admin/tenants/{options.id}"
