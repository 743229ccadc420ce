"""The key of a gateway that a command talks to. From a variable alone: others see command lines."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from typing import Final

from open_mcp_gateway.auth.apikeys import is_well_formed
from open_mcp_gateway.auth.keyformat import key_id_in
from open_mcp_gateway.errors import InvalidConfig, Problem

KEY_VARIABLE: Final = "MCP_GATEWAY_API_KEY"


def add_key_option(parser: argparse._ActionsContainer) -> None:
    """``--api-key-env``."""
    parser.add_argument(
        "--api-key-env",
        metavar="NAME",
        help=f"variable that holds the gateway's key (default {KEY_VARIABLE}, if it is set)",
    )


def key_of(name: str | None, environ: Mapping[str, str]) -> str | None:
    """The key; None when no variable is named and the usual one is not set. Raises InvalidConfig.

    A gateway without authentication needs none. One that is empty is a mistake in any case.
    """
    if name is not None and key_id_in(name) is not None:
        text = "takes the name of a variable, not a key; revoke this one: others may have seen it"
        raise InvalidConfig([Problem("--api-key-env", text)])
    where = KEY_VARIABLE if name is None else f"--api-key-env {name}"
    key = environ.get(KEY_VARIABLE if name is None else name)
    if key is None:
        if name is None:
            return None
        raise InvalidConfig([Problem(where, "the environment variable is not set; set it")])
    if not key.strip():
        raise InvalidConfig([Problem(where, "the environment variable is empty; write the key")])
    if not is_well_formed(key.encode("utf-8", "surrogateescape")):
        text = "the environment variable holds what no key holds; visible ASCII, no spaces"
        raise InvalidConfig([Problem(where, text)])
    return key
