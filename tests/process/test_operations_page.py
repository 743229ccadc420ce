"""The lines of ``docs/operations.md``, run in the order of the page against a running gateway."""

from __future__ import annotations

import json
import os
import re
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

from open_mcp_gateway.keystore.open import open_store
from tests.gateway import DEMO
from tests.process.talk import KEY, Caller, Running, run_gateway, wait_until

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/operations.md").read_text()
README = (ROOT / "README.md").read_text()
URL = "http://127.0.0.1:4444"
TENANT_KEY = "test-key-of-tenant-a-0123456789"
ENV = {
    "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    "MCP_GATEWAY_API_KEY": KEY,
    "TENANT_A_API_KEY": TENANT_KEY,
}
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


def sh(script: str, folder: Path, variables: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = ["sh", "-eu", "-c", script]
    return subprocess.run(
        command, check=False, cwd=folder, env=ENV | variables, capture_output=True, text=True
    )


@dataclass
class Shell:
    """Runs blocks in the folder of the gateway, after the one that defines ``ask``."""

    running: Running
    folder: Path
    variables: dict[str, str] = field(default_factory=dict)

    def run(self, beginning: str) -> subprocess.CompletedProcess[str]:
        """What a block wrote."""
        prelude = block("URL=").replace(URL, self.running.gateway.url)
        # An answer has no line end of its own.
        prelude = prelude.replace('"$@"; }', '"$@"; echo; }').replace("ask $URL/whoami", "")
        done = sh(prelude + block(beginning), self.folder, self.variables)
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    def ask(self, beginning: str) -> list[Any]:
        """What each request of a block was answered."""
        done = self.run(beginning)
        assert done.stderr == ""
        return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    folder = tmp_path_factory.mktemp("operations")
    (folder / "config.yaml").write_text(yaml.safe_dump(config()))
    first = sh(block("open-mcp-gateway keys create --config"), folder, {})
    assert (first.returncode, first.stdout) == (0, ""), first.stderr
    with run_gateway(folder, SERVERS, config(), ENV, key=None) as running:
        running.caller.key = KEY
        yield Shell(running, folder)


def test_the_first_key_is_an_admin_and_its_owners_alone(shell: Shell) -> None:
    file = shell.folder / "admin.key"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    first = shell.running.as_caller(file.read_text().strip())
    assert first.get("/whoami").json["role"] == "admin"


def test_the_command_line_goes_through_the_gateway(shell: Shell) -> None:
    done = shell.run("open-mcp-gateway keys create --gateway")
    key = (shell.folder / "robot.key").read_text().strip()
    whoami = shell.running.as_caller(key).get("/whoami").json
    assert (whoami["name"], whoami["tools"]) == ("robot", ["demo/add"])
    assert done.stdout.endswith(f"well formed, the checksum is right: {whoami['key_id']}\n")


def test_the_page_from_its_first_line_to_its_last(shell: Shell) -> None:
    made, changed = shell.ask('ask -d \'{"id":"tenant-b"')
    assert made["namespaces"] == ["staging"]
    assert changed["namespaces"] == ["staging", "development"]
    assert stat.S_IMODE((shell.folder / "admin.header").stat().st_mode) == 0o600

    (head,) = shell.ask('ask -d \'{"name":"head"')
    of_tenant = shell.running.as_caller(head["secret"])
    assert {one["tenant"] for one in of_tenant.get("/admin/keys").json["data"]} == {"tenant-b"}

    (agent,) = shell.ask('ask -d \'{"name":"agent"')
    of_agent = shell.running.as_caller(agent["secret"])
    tools = of_agent.call("lab", "tools/list").result["tools"]
    assert sorted(one["name"] for one in tools) == ["add", "now"]
    assert of_agent.call("demo", "tools/list").status == 404

    of_b, unused, expiring = shell.ask('ask "$URL/admin/keys?tenant=')
    assert {one["name"] for one in of_b["data"]} == {"agent", "head"}
    assert (unused["data"], expiring["data"]) == ([], [])

    shell.variables["ID"] = agent["id"]
    (why,) = shell.ask('ask -d \'{"action"')
    assert why["smallest_fix"] == [{"op": "add", "path": "/scope/tools/-", "value": "lab/echo"}]

    narrowed, off, on, ended = shell.ask('ask -X PATCH -d \'{"scope"')
    assert narrowed["scope"] == {"tools": ["lab/add"]}
    assert (off["status"], on["status"]) == ("disabled", "active")
    assert ended["reason"] == "project over"
    assert of_agent.get("/whoami").headers["x-auth-reason"] == "revoked"


def opens(caller: Caller) -> bool:
    return caller.get("/whoami").status == 200


def test_the_keys_in_a_minute_of_the_readme(shell: Shell) -> None:
    (lines,) = re.findall(r"^```sh\n(\S+ keys create.*?)^```", README, re.MULTILINE | re.DOTALL)
    lines = lines.replace(URL, shell.running.gateway.url).replace(".venv/bin/", "")
    done = sh(lines, shell.folder, {})
    assert done.returncode == 0, done.stderr
    secret, _, answer = done.stdout.strip().partition("\n")
    for one in (secret, json.loads(answer)["secret"]):
        caller = shell.running.as_caller(one)
        wait_until(partial(opens, caller), "the key opens")
        whoami = caller.get("/whoami").json
        assert (whoami["tenant"], whoami["tools"]) == ("tenant-a", ["files/read_file"])


def test_the_backup_is_a_whole_store_for_its_owner_alone(shell: Shell) -> None:
    assert shell.ask("(umask 077; python3") == []
    backup = shell.folder / "backup.db"
    assert stat.S_IMODE(backup.stat().st_mode) == 0o600
    with sqlite3.connect(shell.folder / "keys.db") as now, sqlite3.connect(backup) as then:
        asked = "SELECT rev FROM auth_meta"
        assert now.execute(asked).fetchall() == then.execute(asked).fetchall()
    now.close()
    then.close()
    open_store("sqlite", path=backup).close()


def test_a_key_moves_from_the_file_to_the_store(shell: Shell) -> None:
    (refused,) = shell.ask("HASH=")
    assert refused["data"][0]["code"] == "hash_taken"

    gateway, caller = shell.running.gateway, shell.running.caller
    written = yaml.safe_load(gateway.config_path.read_text())
    del written["tenants"][0]["api_key"]
    gateway.config_path.write_text(yaml.safe_dump(written))
    assert caller.post("/admin/reload").status == 200
    tenant = shell.running.as_caller(TENANT_KEY)
    assert tenant.get("/whoami").status == 403

    (moved,) = shell.ask("HASH=")
    assert moved["data"][0]["status"] == 201
    assert tenant.get("/whoami").json["key_id"] == moved["data"][0]["key"]["id"]
