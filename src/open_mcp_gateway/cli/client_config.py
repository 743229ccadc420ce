"""``client-config``: the block to paste into a client, for HTTP with a key and for stdio."""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from msgspec import Struct

from open_mcp_gateway.cli.apikey import KEY_VARIABLE

HELP = "Print what to paste into a client's configuration."
PASTE_KEY: Final = "PASTE-THE-KEY-HERE"
"""Stands where a client takes the key in its file only; this program never knows a key."""


class Target(Struct, frozen=True):
    """What to connect to."""

    name: str
    server: str
    gateway: str
    """Base URL of the gateway, without a slash at the end."""

    program: str
    """Full path of ``gateway-stdio``: desktop clients do not search the shell's PATH."""

    @property
    def url(self) -> str:
        return f"{self.gateway}/servers/{self.server}/mcp"

    @property
    def arguments(self) -> list[str]:
        return ["--server", self.server, "--gateway", self.gateway]


class Block(Struct, frozen=True):
    """One thing to paste: where, how it connects, and the text."""

    place: str
    transport: str
    text: str


def _servers(target: Target, entry: Mapping[str, object], member: str = "mcpServers") -> str:
    return json.dumps({member: {target.name: entry}}, indent=2)


def _stdio_entry(target: Target, key: str) -> dict[str, object]:
    return {"command": target.program, "args": target.arguments, "env": {KEY_VARIABLE: key}}


def _claude_desktop(target: Target) -> list[Block]:
    place = "claude_desktop_config.json (Settings > Developer > Edit Config)"
    bridge = {
        "command": "npx",
        "args": [
            "-y",
            "mcp-remote",
            target.url,
            "--header",
            f"Authorization: Bearer ${{{KEY_VARIABLE}}}",
        ],
        "env": {KEY_VARIABLE: PASTE_KEY},
    }
    return [
        Block(place, "stdio", _servers(target, _stdio_entry(target, PASTE_KEY))),
        Block(place, "http", _servers(target, bridge)),
    ]


def _claude_code(target: Target) -> list[Block]:
    header = f'--header "Authorization: Bearer ${KEY_VARIABLE}"'
    http = f"claude mcp add --transport http {target.name} {target.url} {header}"
    stdio = (
        f'claude mcp add {target.name} --env {KEY_VARIABLE}="${KEY_VARIABLE}" -- '
        f"{shlex.join([target.program, *target.arguments])}"
    )
    return [Block("a shell", "http", http), Block("a shell", "stdio", stdio)]


def _cursor(target: Target) -> list[Block]:
    place = "~/.cursor/mcp.json"
    key = f"${{env:{KEY_VARIABLE}}}"
    http: dict[str, object] = {"url": target.url, "headers": {"Authorization": f"Bearer {key}"}}
    return [
        Block(place, "http", _servers(target, http)),
        Block(place, "stdio", _servers(target, _stdio_entry(target, key))),
    ]


def _vscode(target: Target) -> list[Block]:
    key = "${input:mcp-gateway-key}"
    asked = [
        {
            "id": "mcp-gateway-key",
            "type": "promptString",
            "description": "Key of the MCP gateway",
            "password": True,
        }
    ]
    http = {"type": "http", "url": target.url, "headers": {"Authorization": f"Bearer {key}"}}
    stdio = {"type": "stdio", **_stdio_entry(target, key)}
    return [
        Block(
            ".vscode/mcp.json",
            transport,
            json.dumps({"inputs": asked, "servers": {target.name: entry}}, indent=2),
        )
        for transport, entry in (("http", http), ("stdio", stdio))
    ]


def _cline(target: Target) -> list[Block]:
    place = "cline_mcp_settings.json (MCP Servers > Configure)"
    http: dict[str, object] = {
        "type": "streamableHttp",
        "url": target.url,
        "headers": {"Authorization": f"Bearer {PASTE_KEY}"},
    }
    return [
        Block(place, "http", _servers(target, http)),
        Block(place, "stdio", _servers(target, _stdio_entry(target, PASTE_KEY))),
    ]


def _continue(target: Target) -> list[Block]:
    key = f"${{{{ secrets.{KEY_VARIABLE} }}}}"
    http = [
        "mcpServers:",
        f"  - name: {target.name}",
        "    type: streamable-http",
        f"    url: {target.url}",
        "    requestOptions:",
        "      headers:",
        f'        Authorization: "Bearer {key}"',
    ]
    stdio = [
        "mcpServers:",
        f"  - name: {target.name}",
        "    type: stdio",
        f"    command: {json.dumps(target.program)}",
        f"    args: {json.dumps(target.arguments)}",
        "    env:",
        f'      {KEY_VARIABLE}: "{key}"',
    ]
    place = "~/.continue/config.yaml"
    return [Block(place, "http", "\n".join(http)), Block(place, "stdio", "\n".join(stdio))]


def _inspector(target: Target) -> list[Block]:
    run = "npx -y @modelcontextprotocol/inspector --cli"
    http = (
        f"{run} {target.url} --transport http "
        f'--header "Authorization: Bearer ${KEY_VARIABLE}" --method tools/list'
    )
    stdio = f"{run} {shlex.join([target.program, *target.arguments])} --method tools/list"
    return [Block("a shell", "http", http), Block("a shell", "stdio", stdio)]


CLIENTS: Final[dict[str, Callable[[Target], list[Block]]]] = {
    "claude-desktop": _claude_desktop,
    "claude-code": _claude_code,
    "cursor": _cursor,
    "vscode": _vscode,
    "cline": _cline,
    "continue": _continue,
    "inspector": _inspector,
}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("client", choices=sorted(CLIENTS))
    parser.add_argument("-s", "--server", required=True, metavar="ID", help="which server")
    parser.add_argument(
        "-g",
        "--gateway",
        default="http://127.0.0.1:4444",
        metavar="URL",
        help="the gateway (default %(default)s)",
    )
    parser.add_argument("--name", help="what the client calls it (default: the server's id)")
    parser.add_argument(
        "--transport", choices=("http", "stdio"), help="only this one (default: both)"
    )


def run(options: argparse.Namespace) -> int:
    """Print the blocks; comments go to stderr, so that one transport can be piped into a file."""
    target = Target(
        name=options.name or options.server,
        server=options.server,
        gateway=options.gateway.rstrip("/"),
        program=_program(),
    )
    for block in CLIENTS[options.client](target):
        if options.transport in (None, block.transport):
            print(f"# {block.transport}, for {block.place}:", file=sys.stderr)
            print(block.text, flush=True)
            print(file=sys.stderr)
    return 0


def _program() -> str:
    """``gateway-stdio`` beside the running interpreter, else on PATH."""
    beside = Path(sys.executable).with_name("gateway-stdio")
    if beside.exists():
        return str(beside)
    return shutil.which("gateway-stdio") or "gateway-stdio"
