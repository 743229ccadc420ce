"""The lines of ``docs/operations.md``, run in the order of the page against a running gateway."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import stat
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from open_mcp_gateway.keystore.open import create_store, open_store
from tests.gateway import DEMO
from tests.process.talk import KEY, Running, run_gateway

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/operations.md").read_text()
README = (ROOT / "README.md").read_text()
URL = "http://127.0.0.1:4444"
TENANT_KEY = "test-key-of-tenant-a-0123456789"
SERVERS = [DEMO | {"namespace": "production"}, DEMO | {"id": "lab", "namespace": "staging"}]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def block(beginning: str) -> str:
    """The one that has a line which begins so."""
    (found,) = [
        one for one in blocks("sh") if any(line.startswith(beginning) for line in one.split("\n"))
    ]
    return found


def config() -> dict[str, Any]:
    """The parts of a configuration that the page shows, together."""
    merged: dict[str, Any] = {}
    for one in blocks("yaml"):
        merged |= yaml.safe_load(one)
    return merged


@dataclass
class Shell:
    """Runs blocks in the folder of the gateway, after the one that defines ``ask``."""

    running: Running
    folder: Path
    variables: dict[str, str] = field(default_factory=dict)

    def run(self, beginning: str) -> list[Any]:
        """What each request of a block was answered."""
        prelude = block("URL=").replace(URL, self.running.gateway.url)
        script = prelude + "echo ----\n" + block(beginning)
        # An answer has no line end of its own.
        script = script.replace('"$@"; }', '"$@"; echo; }')
        env = {"PATH": os.environ["PATH"], "MCP_GATEWAY_API_KEY": KEY} | self.variables
        done = subprocess.run(
            ["sh", "-eu", "-c", script],
            check=False,
            cwd=self.folder,
            env=env,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert done.stderr == ""
        return [json.loads(line) for line in done.stdout.partition("----\n")[2].splitlines()]


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    folder = tmp_path_factory.mktemp("operations")
    create_store("sqlite", path=folder / "keys.db").close()
    env = {"MCP_GATEWAY_API_KEY": KEY, "TENANT_A_API_KEY": TENANT_KEY}
    with run_gateway(folder, SERVERS, config(), env, key=None) as running:
        running.caller.key = KEY
        yield Shell(running, folder)


def test_the_page_from_its_first_line_to_its_last(shell: Shell) -> None:
    made, changed = shell.run('ask -d \'{"id":"tenant-b"')
    assert made["namespaces"] == ["staging"]
    assert changed["namespaces"] == ["staging", "development"]
    assert stat.S_IMODE((shell.folder / "admin.header").stat().st_mode) == 0o600

    (head,) = shell.run('ask -d \'{"name":"head"')
    of_tenant = shell.running.as_caller(head["secret"])
    assert {one["tenant"] for one in of_tenant.get("/admin/keys").json["data"]} == {"tenant-b"}

    (agent,) = shell.run('ask -d \'{"name":"agent"')
    of_agent = shell.running.as_caller(agent["secret"])
    tools = of_agent.call("lab", "tools/list").result["tools"]
    assert sorted(one["name"] for one in tools) == ["add", "now"]
    assert of_agent.call("demo", "tools/list").status == 404

    of_b, unused, expiring = shell.run('ask "$URL/admin/keys?tenant=')
    assert {one["name"] for one in of_b["data"]} == {"agent", "head"}
    assert (unused["data"], expiring["data"]) == ([], [])

    shell.variables["ID"] = agent["id"]
    (why,) = shell.run('ask -d \'{"action"')
    assert why["smallest_fix"] == [{"op": "add", "path": "/scope/tools/-", "value": "lab/echo"}]

    narrowed, off, on, ended = shell.run('ask -X PATCH -d \'{"scope"')
    assert narrowed["scope"] == {"tools": ["lab/add"]}
    assert (off["status"], on["status"]) == ("disabled", "active")
    assert ended["reason"] == "project over"
    assert of_agent.get("/whoami").headers["x-auth-reason"] == "revoked"


def test_the_key_in_a_minute_of_the_readme(shell: Shell) -> None:
    (line,) = re.findall(r"^curl (?:.*\\\n)*.*/admin/keys$", README, re.MULTILINE)
    made = json.loads(
        subprocess.run(
            ["sh", "-eu", "-c", line.replace(URL, shell.running.gateway.url)],
            check=True,
            env={"PATH": os.environ["PATH"], "MCP_GATEWAY_API_KEY": KEY},
            capture_output=True,
        ).stdout
    )
    assert made["permissions"] == ["mcp:call", "servers:list", "servers:read", "stats:read"]
    key = shell.running.as_caller(made["secret"])
    assert key.get("/whoami").json["tools"] == ["files/read_file"]


def test_the_backup_is_a_whole_store_for_its_owner_alone(shell: Shell) -> None:
    assert shell.run("(umask 077; python3") == []
    backup = shell.folder / "backup.db"
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    with sqlite3.connect(shell.folder / "keys.db") as now, sqlite3.connect(backup) as then:
        asked = "SELECT rev FROM auth_meta"
        assert now.execute(asked).fetchall() == then.execute(asked).fetchall()
    now.close()
    then.close()
    open_store("sqlite", path=backup).close()


def test_a_key_moves_from_the_file_to_the_store(shell: Shell) -> None:
    shell.variables["TENANT_A_API_KEY"] = TENANT_KEY
    (refused,) = shell.run("HASH=")
    assert refused["data"][0]["code"] == "hash_taken"

    gateway, caller = shell.running.gateway, shell.running.caller
    written = yaml.safe_load(gateway.config_path.read_text())
    del written["tenants"][0]["api_key"]
    gateway.config_path.write_text(yaml.safe_dump(written))
    assert caller.post("/admin/reload").status == 200
    tenant = shell.running.as_caller(TENANT_KEY)
    assert tenant.get("/whoami").status == 403

    (moved,) = shell.run("HASH=")
    assert moved["data"][0]["status"] == 201
    assert tenant.get("/whoami").json["key_id"] == moved["data"][0]["key"]["id"]
