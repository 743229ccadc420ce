"""The real program in its own process, for tests that talk to it from outside."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

START_S: Final = 60.0
STOP_S: Final = 60.0

DEMO: Final[dict[str, Any]] = {
    "id": "demo",
    "runtime": {
        "type": "local-process",
        "command": sys.executable,
        "args": ["-m", "open_mcp_gateway.examples.demo_server"],
    },
}
"""A catalog entry of a real server that needs nothing else."""


class NotStarted(Exception):
    """The program ended, or said nothing of an address, instead of listening."""


@dataclass
class Gateway:
    """A running gateway. ``url`` has no slash at the end; ``key`` is the configured ``api_key``."""

    url: str
    host: str
    port: int
    process: subprocess.Popen[bytes]
    key: str | None
    config_path: Path
    catalog_path: Path
    lines: list[str] = field(default_factory=list)
    """Everything written to stderr so far, line by line."""

    def log(self) -> list[dict[str, Any]]:
        """The log lines so far, decoded."""
        return [json.loads(line) for line in list(self.lines) if line.startswith("{")]


@contextmanager
def start_gateway(
    directory: Path,
    config: Mapping[str, Any],
    catalog: Mapping[str, Any],
    env: Mapping[str, str] | None = None,
) -> Iterator[Gateway]:
    """Run ``serve`` on a free port with these files; afterwards stop it and expect exit code 0.

    ``config`` may leave out address, catalog path and log format. Nothing is added to it that has
    to do with authentication.
    """
    config_path = directory / "config.yaml"
    catalog_path = directory / "catalog.yaml"
    defaults = {
        "listen_addr": "127.0.0.1:0",
        "catalog_path": str(catalog_path),
        "log_format": "json",
    }
    config_path.write_text(yaml.safe_dump(defaults | dict(config)), "utf-8")
    catalog_path.write_text(yaml.safe_dump(dict(catalog)), "utf-8")
    process = subprocess.Popen(
        [sys.executable, "-m", "open_mcp_gateway", "serve", "--config", str(config_path)],
        cwd=directory,
        env=dict(os.environ) | dict(env or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    lines: list[str] = []
    addresses: queue.Queue[str | None] = queue.Queue()
    reader = threading.Thread(target=_read, args=(process, lines, addresses), daemon=True)
    reader.start()
    clean = False
    try:
        host, port = _address(addresses, lines)
        scheme = "https" if "tls" in config else "http"
        shown = f"[{host}]" if ":" in host else host
        yield Gateway(
            url=f"{scheme}://{shown}:{port}",
            host=host,
            port=port,
            process=process,
            key=config.get("api_key"),
            config_path=config_path,
            catalog_path=catalog_path,
            lines=lines,
        )
        clean = process.poll() is None
    finally:
        _stop(process, reader)
    if clean and process.returncode != 0:
        raise AssertionError(f"exit code {process.returncode}:\n" + "\n".join(lines[-40:]))


def _read(
    process: subprocess.Popen[bytes], lines: list[str], addresses: queue.Queue[str | None]
) -> None:
    if process.stderr is None:
        return
    for raw in process.stderr:
        line = raw.decode("utf-8", "replace").rstrip("\n")
        lines.append(line)
        if line.startswith("{") and '"address"' in line:
            addresses.put(json.loads(line)["address"])
    addresses.put(None)


def _address(addresses: queue.Queue[str | None], lines: list[str]) -> tuple[str, int]:
    try:
        address = addresses.get(timeout=START_S)
    except queue.Empty:
        address = None
    if address is None:
        raise NotStarted("\n".join(lines[-40:]))
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _stop(process: subprocess.Popen[bytes], reader: threading.Thread) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    reader.join(STOP_S)
    if process.stderr is not None:
        process.stderr.close()
