"""A secret in every place that takes one, a run that touches everything, then a search for them.

Nothing that the gateway says or writes holds one of them, or what one could be found from: neither
answers nor log lines at the most talkative level nor files. One answer has it: that which makes it.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import pytest
import yaml

from open_mcp_gateway.keystore.open import create_store
from tests import databases
from tests.canaries import canary, digest, found
from tests.gateway import DEMO, Gateway, start_gateway
from tests.process.talk import wait_until
from tests.rawhttp import Answer, connect, request
from tests.wire.surface import NEEDS

CANARIES: Final = {
    slot: canary(slot)
    for slot in (
        *("root", "from-a-file", "of-a-tenant", "named", "hashed", "imported", "brought", "made"),
        *("unknown", "in-env", "in-env-by-name", "in-arguments", "in-a-header", "in-a-url"),
        *("in-a-query", "not-reloaded", "in-a-body"),
    )
}
"""``made`` is not used: the gateway makes that one itself."""

TALKS: Final = """
import os, sys
print("I was given", os.environ["TOKEN"], os.environ["OTHER"], *sys.argv[1:], file=sys.stderr)
sys.exit(3)
"""


@dataclass
class World:
    """A gateway with a secret in every place, and all that it ever said."""

    gateway: Gateway
    folder: Path
    secrets: dict[str, str]
    env: dict[str, str]
    said: list[bytes] = field(default_factory=list)

    def ask(
        self, method: str, path: str, *headers: tuple[bytes, bytes], body: bytes = b""
    ) -> Answer:
        typed = (b"Content-Type", b"application/json")
        raw = request(path.encode(), *headers, typed, method=method.encode(), body=body)
        with connect(self.gateway.host, self.gateway.port) as wire:
            wire.send(raw)
            answer = wire.receive(b"HEAD" if path.endswith("/sse") else method.encode())
        self.said += [f"{name}: {value}".encode() for name, value in answer.headers]
        self.said.append(answer.body)
        return answer

    def by(self, secret: str, method: str, path: str, body: Any = None) -> Answer:
        raw = b"" if body is None else json.dumps(body).encode()
        return self.ask(method, path, (b"X-API-Key", secret.encode()), body=raw)


@pytest.fixture(scope="module", params=["sqlite", "postgres"])
def world(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[World]:
    folder = tmp_path_factory.mktemp("canaries")
    if request.param == "sqlite":
        place = folder / "auth.db"
        create_store("sqlite", path=place).close()
        with _world(folder, str(place), CANARIES) as made:
            yield made
        return
    server = databases.PostgresServer()
    server.initialise()
    server.start()
    try:
        create_store("postgres", url=server.url).close()
        with _world(folder, server.url, {**CANARIES, "database": databases.PASSWORD}) as made:
            yield made
    finally:
        server.close()


@contextmanager
def _world(folder: Path, store: str, secrets: dict[str, str]) -> Iterator[World]:
    (folder / "key").write_text(secrets["from-a-file"])
    (folder / "key").chmod(0o600)
    env = {**_env(secrets), "STORE": store}
    with start_gateway(folder, _config(secrets, store), _catalog(secrets), env) as running:
        yield World(running, folder, {**secrets}, env)


def _config(secrets: dict[str, str], store: str) -> dict[str, Any]:
    hashed = "sha256:" + digest(secrets["hashed"]).hex()
    keys = [
        {"name": "named", "api_key": secrets["named"], "role": "viewer"},
        {"name": "hashed", "api_key_hash": hashed},
    ]
    return {
        "api_key": "${ROOT_KEY}",
        "auth": {"store": "${STORE}" if "://" in store else store},
        "log_level": "trace",
        "access_log": "all",
        "hot_reload": False,
        "tenants": [
            {"id": "alpha", "namespaces": ["default"], "api_key": secrets["of-a-tenant"]},
            {"id": "beta", "namespaces": ["default"], "api_key_file": "key", "keys": keys},
        ],
    }


def _catalog(secrets: dict[str, str]) -> dict[str, Any]:
    talks = {
        "type": "local-process",
        "command": sys.executable,
        "args": ["-c", TALKS, "${IN_ARGUMENTS}"],
    }
    quoted = quote(secrets["in-a-url"], safe="")
    url = f"http://user:{quoted}@127.0.0.1:9/mcp?token={quote(secrets['in-a-query'], safe='')}"
    headers = {"X-Token": f"Bearer {secrets['in-a-header']}"}
    env = {"TOKEN": secrets["in-env"], "OTHER": "${IN_ENV}"}
    return {
        "servers": [
            {**DEMO, "env": env},
            {"id": "talks", "runtime": talks, "env": env},
            {"id": "far", "runtime": {"type": "remote-http", "url": url, "headers": headers}},
        ]
    }


def _env(secrets: dict[str, str]) -> dict[str, str]:
    return {
        "ROOT_KEY": secrets["root"],
        "IN_ENV": secrets["in-env-by-name"],
        "IN_ARGUMENTS": secrets["in-arguments"],
    }


def tour(world: World) -> None:
    """Ask everything there is, in every way that there is, also the wrong ones."""
    secrets, root = world.secrets, world.secrets["root"]
    for name in ("brought", "imported"):
        hashed = "sha256:" + digest(secrets[name]).hex()
        item = {"name": name, "hash": hashed, "tenant": "alpha"}
        both = {"keys": [item, {**item, "name": "again"}, {**item, "hash": secrets["in-a-body"]}]}
        asked = ("/admin/keys/import", both) if name == "imported" else ("/admin/keys", item)
        assert world.by(root, "POST", *asked).status in {200, 201}
        world.by(root, "POST", *asked)
    made = world.by(root, "POST", "/admin/keys", {"name": "made", "role": "operator"})
    assert made.status == 201
    secrets["made"] = json.loads(made.body)["secret"]
    world.said.remove(made.body)
    assert made.body.count(secrets["made"].encode()) == 1
    world.said.append(made.body.replace(secrets["made"].encode(), b""))
    key_id = json.loads(made.body)["id"]
    for secret in secrets.values():
        for member in ("key", "hash", "name", secret[:0]):
            world.by(
                root,
                "POST",
                "/admin/keys/verify",
                {"key": secret, **({member: 1} if member else {})},
            )
            world.by(root, "POST", "/admin/keys", {"name": "x", "hash": secret, member: [0]})
        world.ask(
            "POST",
            "/admin/keys/verify",
            (b"X-API-Key", root.encode()),
            body=b'{"key":"%b' % secret.encode(),
        )
    for method, path in NEEDS:
        for server in ("demo", "talks", "far"):
            where = (
                path.replace("{id}", server).replace("{key}", key_id).replace("{tenant}", "alpha")
            )
            if method == "DELETE" and where != path:
                continue
            for name, secret in secrets.items():
                about = {"action": "mcp:call", "server": server, "as": {"key_id": f"config:{name}"}}
                call = {"server_id": server, "jsonrpc": "2.0", "id": 1, "method": "tools/list"}
                world.by(secret, method, where, about if "auth" in where else call)
                world.by(secret[:-1], method, where)
            if server == "demo":
                world.ask(method, f"{where}?api_key={quote(root, safe='')}&token={root}")
                for header in (b"Cookie", b"Proxy-Authorization", b"Authorization", b"X_API_Key"):
                    world.ask(method, where, (header, root.encode()))
                twice = (
                    (b"X-API-Key", root.encode()),
                    (b"Authorization", b"Bearer " + secrets["made"].encode()),
                )
                world.ask(method, where, *twice)
    world.by(root, "DELETE", f"/admin/keys/{key_id}?reason=leaked")
    world.by(secrets["made"], "GET", "/whoami")
    refused_reload(world)


def refused_reload(world: World) -> None:
    """Configuration and catalog with mistakes beside the secrets, here and for ``check``."""
    path, root = world.gateway.config_path, world.secrets["root"]
    before = path.read_text()
    config = yaml.safe_load(before)
    doubled = world.secrets["not-reloaded"]
    config["tenants"] += [
        {"id": "gamma", "namespaces": [], "api_key": doubled, "api_key_file": doubled},
        {"id": "delta", "namespaces": [], "api_key_hash": doubled},
        {"id": "eta", "namespaces": [], "api_key": world.secrets["of-a-tenant"]},
        {"id": "theta", "namespaces": [], "api_key": doubled + " with space"},
        {"id": "iota", "namespaces": [], "api_key": doubled, "keys": [{"api_key": doubled}]},
    ]
    config["auth"]["store"] = f"postgresql://u:{quote(doubled, safe='')}@[::1:x/y"
    path.write_text(yaml.safe_dump(config))
    assert world.by(root, "POST", "/admin/reload").status == 500
    command = [sys.executable, "-m", "open_mcp_gateway", "check", "--config", str(path)]
    env = dict(os.environ) | world.env
    for text in (path.read_text(), before):
        path.write_text(text)
        done = subprocess.run(command, check=False, capture_output=True, env=env, cwd=world.folder)
        world.said += [done.stdout, done.stderr]
    assert world.by(root, "POST", "/admin/reload").status == 200


def written(folder: Path) -> dict[Path, bytes]:
    """Every file but the three that the secrets were put into."""
    given = {folder / name for name in ("config.yaml", "catalog.yaml", "key")}
    return {
        path: path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path not in given
    }


def test_no_secret_is_said_or_written(world: World) -> None:
    tour(world)
    last = world.by(world.secrets["root"], "GET", "/health").all("x-request-id")[0]
    wait_until(lambda: any(last in line for line in world.gateway.lines), "the last line was read")
    log = "\n".join(world.gateway.lines).encode()
    assert b"request body" in log
    assert b"I was given" in log
    said = b"\n".join(world.said)
    for slot, secret in world.secrets.items():
        assert found(secret, log) == [], slot
        assert found(secret, said) == [], slot
        for path, content in written(world.folder).items():
            # The store is where the digests are kept.
            kept = path.name.startswith("auth.db")
            assert found(secret, content, digests=not kept) == [], (slot, path)


def test_the_search_finds_what_is_there() -> None:
    secret = canary("seen")
    for text in (
        secret.encode(),
        b"xx" + secret.encode().hex().encode(),
        quote(secret, safe="").encode(),
        digest(secret),
        digest(secret).hex().upper().encode(),
    ):
        assert found(secret, b"before " + text + b" after")
