"""Make the key of `make run` if there is none, show what to try, and become the gateway."""

from __future__ import annotations

import os
import secrets
import socket
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
KEY_FILE = ROOT / ".run/api_key"
GATEWAY = ROOT / ".venv/bin/gateway-http"
CONFIG = ROOT / "examples/quickstart/config.yaml"

LINES = """\
Try it from another terminal, in this folder:

  curl -s -H "Authorization: Bearer $(cat .run/api_key)" http://{address}/servers

  curl -s -H "Authorization: Bearer $(cat .run/api_key)" -H 'Content-Type: application/json' \\
    -d '{{"server_id":"demo","jsonrpc":"2.0","id":1,"method":"tools/list"}}' http://{address}/mcp

  curl -s -H "Authorization: Bearer $(cat .run/api_key)" -H 'Content-Type: application/json' \\
    -d '{{"server_id":"time","jsonrpc":"2.0","id":2,"method":"tools/call","params":
        {{"name":"get_current_time","arguments":{{"timezone":"Europe/Paris"}}}}}}' http://{address}/mcp

Ctrl-C stops it.
"""


def make_key() -> str | None:
    """A new key in KEY_FILE, readable by its owner alone; None when there was one already."""
    KEY_FILE.parent.mkdir(mode=0o700, exist_ok=True)
    try:
        descriptor = os.open(KEY_FILE, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return None
    key = secrets.token_urlsafe(32)
    with os.fdopen(descriptor, "w") as file:
        file.write(key + "\n")
    return key


def taken(address: str) -> bool:
    """Whether something listens there already. Any other trouble is the gateway's to report."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=1):
            return True
    except (OSError, ValueError):
        return False


def main(address: str) -> None:
    if taken(address):
        raise SystemExit(
            f"{address} is taken by another program.\n"
            "Choose another address: make run ADDR=127.0.0.1:4445"
        )
    key = make_key()
    if key is not None and sys.stdout.isatty():
        # A terminal forgets; a pipe may end in a log file.
        print(f"\nYour API key, also in .run/api_key: {key}")
    else:
        print("\nThe API key is in .run/api_key.")
    print(f"\n{LINES.format(address=address)}", flush=True)
    os.execv(GATEWAY, [str(GATEWAY), "--config", str(CONFIG), "--listen-addr", address])


if __name__ == "__main__":
    main(sys.argv[1])
