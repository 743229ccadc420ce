"""The programs of ``examples/keys`` against a running gateway: each makes a key and sees it end."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from open_mcp_gateway.keystore.open import create_store
from tests.environments import node
from tests.gateway import DEMO
from tests.process.talk import KEY, Running, run_gateway

EXAMPLES = Path(__file__).parents[2] / "examples/keys"

SAYS = re.compile(
    r"made (?P<id>key_[0-9A-Za-z]{12})\n"
    r"demo/add: 5\n"
    r"demo/echo: Unknown tool: echo\n"
    r"why: not_in_scope\n"
    r"what would help: /scope/tools/- demo/echo\n"
    r"revoked: 403 revoked\n"
)


def command(name: str) -> list[str]:
    """How the first lines of each file say that it is run."""
    return {
        "keys.sh": [],
        "keys.py": [sys.executable],
        "keys.mjs": [str(node())],
        "keys.mts": [str(node()), "--experimental-strip-types", "--no-warnings"],
    }[name] + [str(EXAMPLES / name)]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("examples")
    create_store("sqlite", path=folder / "keys.db").close()
    with run_gateway(folder, [DEMO], {"auth": {"store": "keys.db"}}) as gateway:
        yield gateway


def run(name: str, running: Running, key: str = KEY) -> subprocess.CompletedProcess[str]:
    # Without the machine's own variables, which may send requests by way of a proxy.
    env = {
        "PATH": os.environ["PATH"],
        "GATEWAY": running.gateway.url,
        "MCP_GATEWAY_API_KEY": key,
    }
    return subprocess.run(command(name), check=False, capture_output=True, text=True, env=env)


FILES = sorted(path.name for path in EXAMPLES.glob("keys.*"))


def test_the_page_beside_them_shows_how_each_is_run_and_what_it_prints() -> None:
    page = (EXAMPLES / "README.md").read_text()
    assert SAYS.search(page.partition("Each prints the same:")[2])
    run_with = re.findall(r"^(?:.* )?examples/keys/(keys\.\w+)$", page, re.MULTILINE)
    assert sorted(run_with) == FILES == ["keys.mjs", "keys.mts", "keys.py", "keys.sh"]


def test_the_configuration_beside_them_is_right(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("gateway-http")
    done = subprocess.run(
        [program, "--config", EXAMPLES / "config.yaml", "--validate"],
        check=False,
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"MCP_GATEWAY_API_KEY": KEY},
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", FILES)
def test_a_key_from_its_making_to_its_end(running: Running, name: str) -> None:
    done = run(name, running)
    assert (done.returncode, done.stderr) == (0, "")
    said = SAYS.fullmatch(done.stdout)
    assert said is not None, done.stdout
    key: dict[str, Any] = running.caller.get(f"/admin/keys/{said['id']}").json
    assert (key["status"], key["scope"]) == ("revoked", {"tools": ["demo/add"]})
    log = "\n".join(running.gateway.lines)
    assert said["id"] in log
    assert "mgk_" not in log


@pytest.mark.parametrize("name", FILES)
def test_without_the_right_to_make_keys_it_says_so(running: Running, name: str) -> None:
    done = run(name, running, key="test-key-of-a-stranger")
    assert done.returncode == 1
    assert done.stdout == ""
    assert "403" in done.stderr
    assert "Invalid API key" in done.stderr
