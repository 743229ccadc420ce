"""The options that say what a key is like, and the bodies they become."""

from __future__ import annotations

import argparse
from typing import Any, Final

from open_mcp_gateway.cli import wording
from open_mcp_gateway.cli.ways import EXIT_USAGE, Failed
from open_mcp_gateway.cli.wording import LIST_HELP, NEVER, SCOPE, UNSET, narrowed, pairs
from open_mcp_gateway.clock import SystemClock
from open_mcp_gateway.operations.tags import TAG

FILTER_HELP: Final[dict[str, dict[str, Any]]] = {
    "tenant": {"metavar": "ID", "help": "of that tenant"},
    "namespace": {"metavar": "NAME", "help": "that reach servers of that namespace"},
    "role": {"metavar": "ROLE", "help": "with that role"},
    "status": {"metavar": "STATUS", "help": "active, scheduled, disabled, expired or revoked"},
    "name": {"metavar": "NAME", "help": "of that name"},
    "created_by": {"metavar": "ID", "help": "that were made with that key"},
    "source": {"metavar": "SOURCE", "help": "config or api: kept in the file or in the store"},
    "expiring_within": {"metavar": "PERIOD", "help": "that expire within e.g. 7d"},
    "unused_for": {"metavar": "PERIOD", "help": "that nobody used for e.g. 30d"},
}

_SCOPE_HELP: Final = {
    "permissions": "of those of the role, e.g. servers:read",
    "namespaces": "of those of the tenant",
    "servers": "of the servers in these namespaces",
    "tools": "server/tool, or a beginning and '*'; resources and prompts not given are then none",
    "deny_tools": "server/tool that is refused in any case",
    "resources": "server/uri",
    "prompts": "server/prompt",
}


def _add_scope(parser: argparse.ArgumentParser, more: str) -> None:
    group = parser.add_argument_group("scope", f"Each a list: {LIST_HELP}. {more}")
    for name in SCOPE:
        option = "--" + name.replace("_", "-")
        group.add_argument(option, action="append", metavar="LIST", help=_SCOPE_HELP[name])


def add_create_options(parser: argparse.ArgumentParser) -> None:
    """What a new key is like."""
    parser.add_argument("--name", required=True, help="free among the live keys of its tenant")
    parser.add_argument("--role", help="see `roles list` (default: caller)")
    parser.add_argument("--tenant", metavar="ID", help="default: that of the key that is used")
    parser.add_argument(
        "--expires-in", metavar="PERIOD", help="e.g. 90d, 12h, 30m (default: never)"
    )
    parser.add_argument("--expires-at", metavar="MOMENT", help="e.g. 2030-12-31T18:00:00Z")
    parser.add_argument("--not-before", metavar="MOMENT", help="opens nothing until then")
    parser.add_argument(
        "--ip-allow", action="append", metavar="LIST", help="networks it may be used from"
    )
    _add_metadata(parser)
    parser.add_argument(
        "--hash",
        metavar="sha256:HEX",
        help="SHA-256 of a secret that was made elsewhere; then none is made",
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="print nothing but the secret")
    _add_scope(parser, "Absent: all that role and tenant give.")


def add_patch_options(parser: argparse.ArgumentParser) -> None:
    """What changes of a key."""
    parser.add_argument("--name", help="another name")
    parser.add_argument("--role", help="another role")
    parser.add_argument("--expires-in", metavar="PERIOD", help="from now on, e.g. 90d")
    parser.add_argument("--expires-at", metavar="MOMENT", help=f"a moment, or '{NEVER}'")
    parser.add_argument(
        "--not-before", metavar="MOMENT", help=f"a moment, or '{NEVER}' for no such moment"
    )
    parser.add_argument(
        "--ip-allow", action="append", metavar="LIST", help=f"networks; '{UNSET}': from anywhere"
    )
    _add_metadata(parser)
    parser.add_argument(
        "--unset-metadata", action="append", metavar="NAME", help="forget an entry; repeatable"
    )
    add_switch(parser)
    add_rev_option(parser)
    _add_scope(parser, f"'{UNSET}' takes the narrowing away.")


def _add_metadata(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--metadata", action="append", metavar="NAME=VALUE", help="kept with the key; repeatable"
    )


def add_switch(parser: argparse.ArgumentParser) -> None:
    """``--disable`` and ``--enable``."""
    switch = parser.add_mutually_exclusive_group()
    switch.add_argument(
        "--disable", dest="disabled", action="store_true", default=None, help="opens nothing"
    )
    switch.add_argument("--enable", dest="disabled", action="store_false", help="opens again")


def add_rev_option(parser: argparse.ArgumentParser) -> None:
    """``--rev``."""
    parser.add_argument("--rev", type=_rev, metavar="TAG", help="only if its rev is still this one")


def _rev(text: str) -> str:
    if not TAG.fullmatch(text):
        raise argparse.ArgumentTypeError("must be what is shown as rev")
    return text


def create_body(options: argparse.Namespace) -> dict[str, Any]:
    """The body of ``POST /admin/keys``. Raises Failed."""
    body: dict[str, Any] = {"name": options.name}
    for name in ("role", "tenant", "expires_in", "hash"):
        if getattr(options, name) is not None:
            body[name] = getattr(options, name)
    body |= _moments(options, "expires_at", "not_before")
    networks = wording.words("--ip-allow", options.ip_allow)
    if networks is not None:
        body["ip_allow"] = networks
    if options.metadata:
        body["metadata"] = pairs("--metadata", options.metadata)
    scope = wording.scope_of(options)
    return body | {"scope": scope} if scope else body


def patch_body(options: argparse.Namespace) -> dict[str, Any]:
    """The merge-patch for a key. Raises Failed, also if nothing would change."""
    body = _plain_changes(options, "name", "role", "disabled")
    body |= _moments(options, "expires_at", "not_before")
    if options.expires_in is not None:
        if "expires_at" in body:
            raise Failed("give one of --expires-in and --expires-at", EXIT_USAGE)
        body["expires_at"] = wording.after("--expires-in", options.expires_in, SystemClock())
    changed, networks = narrowed("--ip-allow", options.ip_allow)
    if changed:
        body["ip_allow"] = networks
    metadata: dict[str, str | None] = dict.fromkeys(options.unset_metadata or ())
    metadata |= pairs("--metadata", options.metadata)
    if metadata:
        body["metadata"] = metadata
    scope = wording.scope_changes(options)
    if scope:
        body["scope"] = scope
    return some(body)


def tenant_body(options: argparse.Namespace) -> dict[str, Any]:
    """The merge-patch for a tenant. Raises Failed, also if nothing would change."""
    body = _plain_changes(options, "name", "disabled")
    namespaces = wording.words("--namespaces", options.namespaces)
    if namespaces is not None:
        body["namespaces"] = namespaces
    return some(body)


def some(body: dict[str, Any]) -> dict[str, Any]:
    """``body`` if it changes anything. Raises Failed."""
    if not body:
        raise Failed("nothing to change: give an option that says what; see --help", EXIT_USAGE)
    return body


def _plain_changes(options: argparse.Namespace, *names: str) -> dict[str, Any]:
    given = {name: getattr(options, name) for name in names}
    return {name: value for name, value in given.items() if value is not None}


def _moments(options: argparse.Namespace, *names: str) -> dict[str, Any]:
    found = {}
    for name in names:
        text = getattr(options, name)
        if text is not None:
            found[name] = wording.when("--" + name.replace("_", "-"), text)
    return found
