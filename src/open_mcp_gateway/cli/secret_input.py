"""A key as it is given to a command: on stdin, never among the arguments, which others can see."""

from __future__ import annotations

import argparse
import getpass
import sys
from typing import Final

from open_mcp_gateway.auth.apikeys import MAX_KEY_BYTES
from open_mcp_gateway.cli.ways import EXIT_USAGE, Failed

STDIN_HELP: Final = "The key is read from stdin; on a terminal it is asked for and not shown."


def refuse_arguments(parser: argparse.ArgumentParser) -> None:
    """Take what is written where a key does not belong, so that ``read_key`` can refuse it without
    saying it again."""
    parser.add_argument("surplus", nargs="*", help=argparse.SUPPRESS)


def read_key(options: argparse.Namespace) -> str:
    """The key, without the line break at its end. Raises Failed: there is none."""
    if options.surplus:
        raise Failed(
            "give the key on stdin: others can see a command line, and a shell remembers it. "
            "Revoke a key that was shown like that",
            EXIT_USAGE,
        )
    if sys.stdin.isatty():
        text = getpass.getpass("Key: ")
    else:
        raw = sys.stdin.buffer.read(MAX_KEY_BYTES + 3)
        text = raw.decode("utf-8", "replace")
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise Failed("there is no key on stdin", EXIT_USAGE)
    return text
