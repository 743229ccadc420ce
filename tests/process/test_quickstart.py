"""What ``make run`` does once everything is installed: the key, the lines to try, the servers."""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import json
import shlex
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from urllib.parse import urlsplit

import pytest

from tests.environments import NotBuilt

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "scripts/quickstart.py"
KEY_FILE = ROOT / ".run/api_key"
TIME_SERVER = ROOT / ".run/time-server/bin/mcp-server-time"


@pytest.fixture
def quickstart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, its key in a folder of the test."""
    spec = importlib.util.spec_from_file_location("quickstart", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "KEY_FILE", tmp_path / "run/api_key")
    return module


@contextlib.contextmanager
def started(address: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The script running as the gateway, and what it printed before."""
    command = [sys.executable, str(SCRIPT), address]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, cwd="/") as process:
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            printed = "".join(iter(process.stdout.readline, "Ctrl-C stops it.\n"))
            first = process.stderr.readline()
            assert "is listening" in first, first + process.stderr.read()
            yield process, printed
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def free_address() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{listener.getsockname()[1]}"


def send(line: str) -> object:
    """Send what a curl command line would, and read the JSON that comes back."""
    words = iter(shlex.split(line.replace("$(cat .run/api_key)", KEY_FILE.read_text().strip())))
    headers, body, url = {}, None, ""
    for word in words:
        if word == "-H":
            name, _, value = next(words).partition(": ")
            headers[name] = value
        elif word == "-d":
            body = next(words)
        else:
            url = word  # the last one; curl and -s before it do not matter
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=60)
    with contextlib.closing(connection):
        connection.request("POST" if body else "GET", parts.path, body, headers)
        response = connection.getresponse()
        assert response.status == 200, response.read()
        return json.load(response)


def test_the_printed_lines_work() -> None:
    if not TIME_SERVER.exists():
        raise NotBuilt(f"{TIME_SERVER.relative_to(ROOT)} is missing: `make test` builds it")
    address = free_address()
    with started(address) as (process, printed):
        assert KEY_FILE.read_text().strip() not in printed
        assert stat.S_IMODE(KEY_FILE.stat().st_mode) == 0o600
        blocks = [block for block in printed.split("\n\n") if block.startswith("  curl")]
        servers, tools, time = (send(block.replace("\\\n", " ")) for block in blocks)
    assert process.returncode == 0
    assert isinstance(servers, list)
    assert [server["id"] for server in servers] == ["demo", "time"]
    assert isinstance(tools, dict)
    names = [tool["name"] for tool in tools["result"]["tools"]]
    assert names == ["add", "echo", "now", "roll_dice"]
    assert isinstance(time, dict)
    assert "Europe/Paris" in time["result"]["content"][0]["text"]


def test_the_readme_shows_the_lines_that_are_printed(quickstart: ModuleType) -> None:
    readme = "".join((ROOT / "README.md").read_text().split())
    printed = quickstart.LINES.format(address="127.0.0.1:4444")
    for block in printed.split("\n\n"):
        if block.startswith("  curl"):
            assert "".join(block.split()) in readme


def test_a_key_is_made_once_for_its_owner_alone(quickstart: ModuleType) -> None:
    key = quickstart.make_key()
    assert len(key) >= 43  # 256 bits
    assert quickstart.KEY_FILE.read_text() == key + "\n"
    assert stat.S_IMODE(quickstart.KEY_FILE.stat().st_mode) == 0o600
    assert quickstart.make_key() is None
    assert quickstart.KEY_FILE.read_text() == key + "\n"


def test_a_taken_address_is_said(quickstart: ModuleType) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
        assert quickstart.taken(address)
        done = subprocess.run(
            [sys.executable, SCRIPT, address], check=False, capture_output=True, text=True
        )
    assert done.returncode == 1
    assert done.stderr.startswith(f"{address} is taken")
    assert not quickstart.taken(free_address())
