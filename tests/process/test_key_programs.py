"""Keys from the command line, by real programs: the first admin, pipes, terminals, and a gateway
that runs on the same store."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml

from open_mcp_gateway.auth.keyformat import key_id_in, make_key
from tests.gateway import DEMO
from tests.process.talk import KEY, run_gateway, wait_until

PROGRAM = Path(sys.executable).with_name("open-mcp-gateway")
SOME_KEY = make_key(lambda bits: 1 << (bits - 1)).text


def run(
    *words: str, cwd: Path, env: Mapping[str, str] | None = None, stdin: str = ""
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [PROGRAM, *words],
        cwd=cwd,
        env={"PATH": os.environ["PATH"]} | dict(env or {}),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def done(*words: str, cwd: Path, env: Mapping[str, str] | None = None, stdin: str = "") -> str:
    """What a command that succeeds prints."""
    ran = run(*words, cwd=cwd, env=env, stdin=stdin)
    assert ran.returncode == 0, ran
    return ran.stdout


def test_from_nothing_to_a_revoked_key(tmp_path: Path) -> None:
    """The first admin is made on the store; with it a gateway is managed from elsewhere."""
    store = {"auth": {"store": "keys/auth.db"}}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(store))
    first = done("keys", "create", "--role", "admin", "--name", "first", cwd=tmp_path).strip()
    assert (tmp_path / "keys/auth.db").stat().st_mode & 0o777 == 0o600
    with run_gateway(tmp_path, [DEMO], store, key=None) as running:
        admin = running.as_caller(first)
        assert admin.tool("demo", "add", a=2, b=3).text == "5"
        way = ("--gateway", running.gateway.url)
        elsewhere = {"MCP_GATEWAY_API_KEY": first}
        tenant = ("create", "acme", "--namespaces", "default")
        done("tenants", *tenant, *way, cwd=tmp_path, env=elsewhere)
        key = ("create", "--name", "ci", "--tenant", "acme", "--tools", "demo/add", "-q")
        secret = done("keys", *key, *way, cwd=tmp_path, env=elsewhere).strip()
        caller = running.as_caller(secret)
        assert caller.tool("demo", "add", a=2, b=3).text == "5"
        assert caller.tool("demo", "echo", text="x").json["error"]["code"] == -32602
        assert json.loads(done("keys", "list", "--json", cwd=tmp_path))["data"][0]["name"] == "ci"
        # On the store, beside the running gateway.
        done("keys", "revoke", str(key_id_in(secret)), "--reason", "leaked", cwd=tmp_path)
        wait_until(lambda: caller.get("/servers").status == 403, "the key is revoked")
        refusal = caller.get("/servers")
        assert refusal.json == {"error": "Forbidden", "message": "Invalid API key"}
        assert refusal.headers["x-auth-reason"] == "revoked"
        ran = run("keys", "verify", *way, cwd=tmp_path, env=elsewhere, stdin=f"{secret}\n")
        assert (ran.returncode, "revoked" in ran.stdout) == (1, True)
        assert secret not in ran.stdout + ran.stderr
        # Through the gateway it is in force at once.
        second = done("keys", "create", "--name", "second", "-q", cwd=tmp_path).strip()
        wait_until(lambda: running.as_caller(second).get("/servers").status == 200, "it opens")
        done("keys", "revoke", str(key_id_in(second)), *way, cwd=tmp_path, env=elsewhere)
        assert running.as_caller(second).get("/servers").status == 403
        log = "\n".join(running.gateway.lines)
    assert not any(one in log for one in (first, secret, second))


def test_a_key_of_the_store_opens_beside_a_configured_one(tmp_path: Path) -> None:
    store = {"auth": {"store": str(tmp_path / "k.db")}}
    done("keys", "init", "--store", str(tmp_path / "k.db"), cwd=tmp_path)
    with run_gateway(tmp_path, [], store) as running:
        way = ("--gateway", running.gateway.url, "--api-key-env", "ADMIN")
        env = {"ADMIN": KEY}
        secret = done("keys", "create", "--name", "x", "-q", *way, cwd=tmp_path, env=env)
        assert running.as_caller(secret.strip()).get("/servers").status == 200
        assert running.caller.get("/servers").status == 200


def test_a_gateway_whose_store_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("auth: {store: k.db}\n")
    (tmp_path / "catalog.yaml").write_text("servers: []\n")
    ran = run("serve", cwd=tmp_path)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "open-mcp-gateway keys init" in ran.stderr


def test_a_key_is_looked_at_without_being_shown(tmp_path: Path) -> None:
    for end in ("", "\r\n"):
        ran = run("keys", "inspect", cwd=tmp_path, stdin=SOME_KEY + end)
        assert (ran.returncode, ran.stderr) == (0, "")
        assert ran.stdout == f"well formed, the checksum is right: {key_id_in(SOME_KEY)}\n"
    for text in (SOME_KEY.swapcase(), f" {SOME_KEY}", "x" * 9000):
        ran = run("keys", "inspect", "--json", cwd=tmp_path, stdin=text)
        assert (ran.returncode, ran.stderr) == (1, "")
        assert json.loads(ran.stdout) == {"well_formed": False, "key_id": None}
    ran = run("keys", "inspect", cwd=tmp_path)
    assert (ran.returncode, ran.stderr) == (2, "error: there is no key on stdin\n")


def test_a_terminal_does_not_show_what_is_typed(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [PROGRAM, "keys", "inspect"],
        cwd=tmp_path,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        shown = b""
        while b"Key: " not in shown:
            shown += os.read(ours, 1024)
        os.write(ours, SOME_KEY.encode() + b"\n")
        while b"checksum" not in shown:
            shown += os.read(ours, 1024)
        assert process.wait(60) == 0
    os.close(ours)
    assert SOME_KEY.encode() not in shown


@pytest.mark.skipif(
    not Path("/dev/full").exists(),
    reason="needs a device that is always full, which only Linux has",
)
def test_a_secret_that_could_not_be_handed_over(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("auth: {store: k.db}\n")
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run(
            [PROGRAM, "keys", "create", "--name", "x"],
            cwd=tmp_path,
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert ran.returncode == 1
    assert "revoke it and make another" in ran.stderr
    assert "mgk_" not in ran.stderr


def test_keys_are_imported_from_a_pipe(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("auth: {store: k.db}\n")
    done("keys", "init", cwd=tmp_path)
    items = json.dumps([{"name": "größe", "hash": "sha256:" + "0" * 64}])
    assert done("keys", "import", "-", cwd=tmp_path, stdin=items) == "imported 1 of 1 keys\n"
    # A terminal that knows no such letter is shown something in its place.
    narrow = {"PYTHONIOENCODING": "ascii"}
    assert r"gr\xf6\xdfe" in done("keys", "list", cwd=tmp_path, env=narrow)


def test_options_that_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("auth: {store: k.db}\n")
    done("keys", "init", cwd=tmp_path)
    for words in (("create", "--name", "\udcff"), ("list", "--name", "\udcff")):
        ran = run("keys", *words, cwd=tmp_path)
        assert (ran.returncode, ran.stdout) == (2, "")
        assert ran.stderr == "error: an option holds bytes that are not UTF-8; mend it\n"


def test_who_reads_may_stop_reading(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("auth: {store: k.db}\n")
    done("keys", "create", "--name", "x", cwd=tmp_path)
    with subprocess.Popen(
        [PROGRAM, "keys", "list"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 1


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (("keys",), ("init", "create", "list", "show", "patch", "revoke", "verify", "import")),
        (("tenants",), ("list", "create", "show", "patch", "delete", "--gateway", "examples")),
        (("roles",), ("list",)),
        (("keys", "create"), ("--config", "--store", "--gateway", "--api-key-env", "--tools")),
        (("keys", "verify"), ("stdin",)),
    ],
)
def test_help(tmp_path: Path, words: tuple[str, ...], options: tuple[str, ...]) -> None:
    shown = done(*words, "--help", cwd=tmp_path)
    assert shown.startswith("usage: open-mcp-gateway")
    assert [option for option in options if option not in shown] == []


@pytest.mark.parametrize("words", [("keys",), ("keys", "dance"), ("keys", "list", "surplus")])
def test_bad_options(tmp_path: Path, words: tuple[str, ...]) -> None:
    ran = run(*words, cwd=tmp_path)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr.startswith("usage: ")
