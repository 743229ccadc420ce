"""``keys``: make, list, change, revoke, check and import keys."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import msgspec

from open_mcp_gateway.auth.keyformat import key_id_in
from open_mcp_gateway.cli import key_options
from open_mcp_gateway.cli.admin import (
    WHERE,
    add_command,
    add_place_options,
    add_store_options,
    silence_stdout,
    store_of,
    way_of,
)
from open_mcp_gateway.cli.batches import batches
from open_mcp_gateway.cli.secret_input import STDIN_HELP, read_key, refuse_arguments
from open_mcp_gateway.cli.shown import cell, print_json, print_members, print_table
from open_mcp_gateway.cli.store import opened
from open_mcp_gateway.cli.ways import EXIT_REFUSED, EXIT_USAGE, Failed, Way, content_of, plain
from open_mcp_gateway.names import KEY_ID
from open_mcp_gateway.operations.listing import FILTERS, MAX_LIMIT

HELP: Final = "Make, list, change and revoke API keys."
EXAMPLES: Final = """
examples:
  open-mcp-gateway keys create --name first --role admin
  open-mcp-gateway keys create --name ci --tenant acme --tools 'git/*' --expires-in 90d
  open-mcp-gateway keys list --gateway https://mcp.example.com --status active
  open-mcp-gateway keys revoke key_4fTz9QpLm2Xa --reason leaked
"""

_COLUMNS: Final = {
    "id": "ID",
    "name": "NAME",
    "tenant": "TENANT",
    "role": "ROLE",
    "status": "STATUS",
    "source": "SOURCE",
    "expires_at": "EXPIRES",
    "last_used_at": "LAST USED",
}
_MAX_IMPORT_BYTES: Final = 64 * 1024 * 1024


def add_options(parser: argparse.ArgumentParser) -> None:
    """The commands below ``keys``."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.description = f"{HELP}\n\n{WHERE}"
    parser.epilog = EXAMPLES
    commands = parser.add_subparsers(dest="keys_command", required=True, metavar="command")
    add_store_options(add_command(commands, "init", init, "Make an empty key store."))

    parser = add_command(commands, "create", create, "Make a key; stdout gets its secret, once.")
    add_place_options(parser)
    key_options.add_create_options(parser)

    parser = add_command(commands, "list", list_keys, "List keys, newest first.")
    add_place_options(parser)
    for name in FILTERS:
        parser.add_argument("--" + name.replace("_", "-"), **key_options.FILTER_HELP[name])

    parser = add_command(commands, "show", show, "Show one key, without its secret.")
    add_place_options(parser)
    _add_id(parser)

    parser = add_command(commands, "patch", patch, "Change a key; what is not named stays.")
    add_place_options(parser)
    _add_id(parser)
    key_options.add_patch_options(parser)

    parser = add_command(commands, "revoke", revoke, "Revoke a key for good.")
    add_place_options(parser)
    _add_id(parser)
    parser.add_argument("--reason", metavar="TEXT", help="kept with the key")
    parser.add_argument("--cascade", action="store_true", help="and all that were made with it")
    key_options.add_rev_option(parser)

    parser = add_command(commands, "verify", verify, "Say whether a key opens, and whose it is.")
    parser.epilog = f"{STDIN_HELP} Exit code 0 if it opens, 1 if not."
    add_place_options(parser)
    refuse_arguments(parser)

    parser = add_command(commands, "import", import_keys, "Make keys from digests of secrets.")
    add_place_options(parser)
    parser.add_argument(
        "file",
        type=Path,
        metavar="FILE",
        help='JSON: a list of {"name": …, "hash": "sha256:…", …}; - for stdin',
    )

    text = "Say without any store whether a key is well formed; never shows it."
    parser = add_command(commands, "inspect", inspect, text)
    parser.epilog = f"{STDIN_HELP} Exit code 0 if it is well formed, 1 if not."
    parser.add_argument("--json", action="store_true", help="print it as JSON")
    refuse_arguments(parser)


def init(options: argparse.Namespace) -> int:
    """A store that is there stays as it is."""
    _, place = store_of(options)
    with opened(place, create=True) as store:
        stored = store.read()
    live = sum(one.revoked_at is None for one in stored.keys)
    keys = "1 live key" if live == 1 else f"{live} live keys"
    print(f"the key store {place.path or 'in the database'} is there, with {keys}")
    return 0


def create(options: argparse.Namespace) -> int:
    """The secret alone goes to stdout, so that it can be piped to where it belongs."""
    body = key_options.create_body(options)
    with way_of(options, create=True) as way:
        answer = way.send("POST", "/admin/keys", msgspec.json.encode(body))
        made = content_of(way, answer, "id", "secret")
    _hand_over(made, as_json=options.json)
    if not (options.json or options.quiet):
        told = {name: made.get(name) for name in ("id", "name", "tenant", "role", "expires_at")}
        line = ", ".join(f"{name} {cell(value)}" for name, value in told.items())
        print(f"made {line}", file=sys.stderr)
        if made["secret"] is not None:
            print("the secret is shown this once and kept nowhere", file=sys.stderr)
    return 0


def _hand_over(made: Mapping[str, Any], *, as_json: bool) -> None:
    """The one moment a secret is seen. Raises Failed: nobody saw it."""
    try:
        if as_json:
            print_json(made)
        elif made["secret"] is not None:
            print(made["secret"])
        sys.stdout.flush()
    except OSError as error:
        silence_stdout()
        cause = error.strerror or type(error).__name__
        text = f"the key {made['id']} is made, but could not be written out ({cause}); revoke it"
        raise Failed(f"{text} and make another") from None


def list_keys(options: argparse.Namespace) -> int:
    """All pages."""
    given = {name: getattr(options, name) for name in FILTERS}
    wanted = {name: value for name, value in given.items() if value is not None}
    with way_of(options) as way:
        found = _pages(way, wanted)
    if options.json:
        print_json({"data": found, "next_cursor": None})
    else:
        print_table(_COLUMNS, found)
    return 0


def _pages(way: Way, wanted: Mapping[str, str]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    query = {**wanted, "limit": str(MAX_LIMIT)}
    while True:
        page = content_of(
            way, way.send("GET", f"/admin/keys?{urlencode(query)}"), "data", "next_cursor"
        )
        found += page["data"]
        if page["next_cursor"] is None:
            return found
        query["cursor"] = page["next_cursor"]


def show(options: argparse.Namespace) -> int:
    """One key."""
    target = _target(options)
    with way_of(options) as way:
        _print_one(options, content_of(way, way.send("GET", target)))
    return 0


def patch(options: argparse.Namespace) -> int:
    """Shows what the key is now."""
    target, body = _target(options), msgspec.json.encode(key_options.patch_body(options))
    with way_of(options) as way:
        _print_one(options, content_of(way, way.send("PATCH", target, body, rev=options.rev)))
    return 0


def revoke(options: argparse.Namespace) -> int:
    """Says what was revoked. The last administrator stays here too: another one is made with one
    command, and a store that nobody can manage through its gateway is never what is wanted."""
    query = {"cascade": "true"} if options.cascade else {}
    if options.reason is not None:
        query["reason"] = options.reason
    target = _target(options) + (f"?{urlencode(query)}" if query else "")
    with way_of(options) as way:
        done = content_of(way, way.send("DELETE", target, rev=options.rev), "id", "children")
    if options.json:
        print_json(done)
    else:
        print("\n".join(f"revoked {plain(one)}" for one in (done["id"], *done["children"])))
    return 0


def verify(options: argparse.Namespace) -> int:
    """Asks, and says what was answered."""
    body = msgspec.json.encode({"key": read_key(options)})
    with way_of(options) as way:
        said = content_of(way, way.send("POST", "/admin/keys/verify", body), "valid")
    _print_one(options, said)
    return 0 if said["valid"] else EXIT_REFUSED


def import_keys(options: argparse.Namespace) -> int:
    """Each key by itself; 1 if one was refused."""
    items = _items(options.file)
    outcome: list[dict[str, Any]] = []
    with way_of(options) as way:
        for batch in batches(items):
            body = msgspec.json.encode({"keys": batch})
            done = content_of(way, way.send("POST", "/admin/keys/import", body), "data")
            start = len(outcome)
            outcome += [one | {"index": start + one["index"]} for one in done["data"]]
    failed = [one for one in outcome if "key" not in one]
    if options.json:
        print_json({"data": outcome})
    else:
        print(f"imported {len(outcome) - len(failed)} of {len(outcome)} keys")
    for one in failed:
        excess = f" ({', '.join(one['excess'])})" if "excess" in one else ""
        text = plain(one["message"] + excess)
        print(f"error: item {one['index']}: {text}", file=sys.stderr)
    return EXIT_REFUSED if failed else 0


def _items(file: Path) -> Sequence[msgspec.Raw]:
    """The keys to import. Raises Failed."""
    try:
        if str(file) == "-":
            raw = sys.stdin.buffer.read(_MAX_IMPORT_BYTES + 1)
        else:
            with file.open("rb") as stream:
                raw = stream.read(_MAX_IMPORT_BYTES + 1)
    except OSError as error:
        raise Failed(f"{file}: {error.strerror or error}; name a file", EXIT_USAGE) from None
    if len(raw) > _MAX_IMPORT_BYTES:
        raise Failed(f"{file} is over {_MAX_IMPORT_BYTES} bytes; split it", EXIT_USAGE)
    try:
        found = msgspec.json.decode(raw, type=list[msgspec.Raw] | dict[str, list[msgspec.Raw]])
    except msgspec.DecodeError:
        text = 'must hold a JSON list of keys, or {"keys": [...]}'
        raise Failed(f"{file} {text}", EXIT_USAGE) from None
    if isinstance(found, dict):
        found = found.get("keys", []) if found.keys() == {"keys"} else []
    if not found:
        raise Failed(f"{file} holds no keys", EXIT_USAGE)
    return found


def inspect(options: argparse.Namespace) -> int:
    """Form and checksum alone: says nothing of whether there is such a key."""
    key_id = key_id_in(read_key(options))
    if options.json:
        print_json({"well_formed": key_id is not None, "key_id": key_id})
    elif key_id is not None:
        print(f"well formed, the checksum is right: {key_id}")
    else:
        print("not a key that this gateway makes, or not all of it, or mistyped")
    return 0 if key_id is not None else EXIT_REFUSED


def _add_id(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", help="key_… as in `keys list`")


def _target(options: argparse.Namespace) -> str:
    """The path of the key that is meant. Raises Failed."""
    if not KEY_ID.fullmatch(options.id):
        # Not said again: it may be the secret.
        raise Failed("ID is the id of a key, key_…; `keys list` shows them", EXIT_USAGE)
    return f"/admin/keys/{options.id}"


def _print_one(options: argparse.Namespace, thing: Mapping[str, Any]) -> None:
    if options.json:
        print_json(thing)
    else:
        print_members(thing)
