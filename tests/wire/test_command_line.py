"""The commands about keys, tenants and roles, by both of their ways: they give the same answers."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import trustme
import yaml

from open_mcp_gateway.auth.keyformat import key_id_in, make_key
from open_mcp_gateway.cli.main import main
from open_mcp_gateway.config.model import ServerTls
from tests.rawhttp import request
from tests.wire.faces import KEY, Face, face, new_store
from tests.wire.tenants import TENANTS

WAYS: Final = ("store", "gateway")
MOMENT: Final = re.compile(r"\d{4}-\d\d-\d\dT[\d:.]+Z")


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        assert self.code == 0, self
        return json.loads(self.out)

    def failed(self, code: int, *words: str) -> None:
        """It said so in one line, and nothing else."""
        assert (self.code, self.out) == (code, ""), self
        assert self.err.startswith("error: "), self
        assert self.err.count("\n") == 1, self
        assert [one for one in words if one not in self.err] == [], self


Cli = Callable[..., Ran]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    monkeypatch.delenv("MCP_GATEWAY_API_KEY", raising=False)

    def ran(*arguments: str) -> Ran:
        capsys.readouterr()
        try:
            code = main(arguments)
        except SystemExit as end:
            code = int(str(end.code))
        return Ran(code, *capsys.readouterr())

    return ran


@contextlib.contextmanager
def places(
    folder: Path, names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> Iterator[dict[str, tuple[str, ...]]]:
    """Each way with a store of its own, and the options that lead there."""
    monkeypatch.setenv("MCP_GATEWAY_API_KEY", KEY.decode())
    found: dict[str, tuple[str, ...]] = {}
    with contextlib.ExitStack() as open_here:
        if "store" in names:
            own = folder / "own"
            own.mkdir()
            config = own / "config.yaml"
            config.write_text(yaml.safe_dump({"api_key": KEY.decode(), "auth": {"store": "k.db"}}))
            main(["keys", "init", "--config", str(config)])
            found["store"] = ("--config", str(config))
        if "gateway" in names:
            store = open_here.enter_context(new_store(folder))
            front = open_here.enter_context(face("hot", store=store))
            found["gateway"] = ("--gateway", f"http://{front.host}:{front.port}")
        yield found


@pytest.fixture(params=WAYS)
def cli(
    request: pytest.FixtureRequest, run: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Cli]:
    with places(tmp_path, (request.param,), monkeypatch) as found:
        yield lambda *words: run(*words, *found[request.param])


def masked(text: str, ids: dict[str, str]) -> str:
    """Without what is another each time."""
    for name, key_id in ids.items():
        public = key_id.removeprefix("key_")
        text = re.sub(rf"mgk_{public}_\.\.\.\w{{4}}|key_{public}", name, text)
    text = re.sub(r'"rev": "[0-9a-f]{16}"', '"rev": "TAG"', text)
    return re.sub(r'"(config:api_key|test|local)"', '"ROOT"', MOMENT.sub("MOMENT", text))


# The same by both ways


def test_both_ways_give_the_same_answers(
    run: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def life(way: tuple[str, ...]) -> list[str]:
        ids: dict[str, str] = {}
        told: list[str] = []

        def cli(*words: str) -> Any:
            ran = run(*words, "--json", *way)
            assert ran.err == "" or ran.code, ran
            told.append(f"{ran.code} {ran.out} {ran.err}")
            return json.loads(ran.out) if ran.out else None

        cli("tenants", "create", "acme", "--namespaces", "one,two", "--name", "The Acme")
        for name in ("a", "b"):
            made = cli(
                *("keys", "create", "--name", name, "--tenant", "acme", "--role", "tenant-admin"),
                *("--namespaces", "one", "--tools", "git/*,db/query", "--deny-tools", "git/push"),
                *("--ip-allow", "10.0.0.0/8", "--metadata", "team=x", "--metadata", "n=1"),
                *("--expires-at", "2099-01-01", "--not-before", "2020-01-01T00:00:00Z"),
            )
            ids[f"KEY-{name}"] = made["id"]
            assert key_id_in(made["secret"]) == made["id"]
            told[-1] = told[-1].replace(made["secret"], "SECRET")
        key = ids["KEY-a"]
        first = cli("keys", "show", key)["rev"]
        cli("keys", "patch", key, "--name", "c", "--tools", "unset", "--servers", "none")
        cli("keys", "patch", key, "--disable", "--unset-metadata", "n", "--ip-allow", "unset")
        cli("keys", "patch", key, "--enable", "--expires-at", "never", "--role", "caller")
        cli("keys", "patch", key, "--rev", first, "--name", "d")
        cli("keys", "list", "--tenant", "acme", "--role", "caller")
        cli("keys", "revoke", key, "--reason", "was leaked & more")
        cli("keys", "revoke", key)
        cli("keys", "patch", key, "--name", "e")
        cli("keys", "show", "key_000000000000")
        cli("keys", "create", "--name", "b", "--tenant", "acme")
        cli("keys", "create", "--name", "x", "--role", "emperor")
        cli("keys", "create", "--name", "x", "--tools", "a*b")
        cli("keys", "list", "--status", "gone")
        cli("tenants", "list")
        cli("tenants", "delete", "acme")
        cli("tenants", "patch", "acme", "--namespaces", "none", "--disable")
        cli("keys", "revoke", ids["KEY-b"])
        cli("tenants", "delete", "acme")
        cli("tenants", "show", "acme")
        cli("tenants", "create", "acme", "--namespaces", "one")
        cli("roles", "list")
        return [masked(one, ids) for one in told]

    with places(tmp_path, WAYS, monkeypatch) as found:
        lives = {name: life(way) for name, way in found.items()}
    assert lives["store"] == lives["gateway"]
    codes = "".join(one.split()[0] for one in lives["store"])
    assert codes == "000" + "0000" + "10" + "00" + "111" + "222" + "010" + "00110"


# Making keys


def test_a_key_works_and_its_secret_is_seen_once(cli: Cli) -> None:
    ran = cli("keys", "create", "--name", "ci", "--role", "viewer")
    secret = ran.out.strip()
    assert ran.out == f"{secret}\n"
    key_id = key_id_in(secret)
    assert key_id is not None
    assert ran.err.splitlines()[0].startswith(f"made id {key_id}, name ci, tenant -, role viewer")
    later = [
        cli("keys", "list"),
        cli("keys", "list", "--json"),
        cli("keys", "show", key_id),
        cli("keys", "revoke", key_id),
    ]
    shown = ran.err + "".join(one.out + one.err for one in later)
    assert secret not in shown
    assert hashlib.sha256(secret.encode()).hexdigest() not in shown
    assert later[-1].out == f"revoked {key_id}\n"


def test_quiet_is_the_secret_alone(cli: Cli) -> None:
    ran = cli("keys", "create", "--name", "ci", "-q")
    assert (ran.code, ran.err) == (0, "")
    assert key_id_in(ran.out.strip()) is not None


def test_a_digest_in_place_of_a_secret(cli: Cli) -> None:
    digest = "sha256:" + hashlib.sha256(b"made elsewhere, long enough").hexdigest()
    ran = cli("keys", "create", "--name", "own", "--hash", digest)
    assert (ran.code, ran.out) == (0, "")
    assert "secret" not in ran.err
    cli("keys", "create", "--name", "other", "--hash", digest).failed(1, "another secret")
    wrong = cli("keys", "create", "--name", "other", "--hash", digest[:-1])
    wrong.failed(2, "hash")
    assert digest[7:20] not in wrong.err


def test_nothing_and_everything_are_written(cli: Cli) -> None:
    made = cli("keys", "create", "--name", "n", "--servers", "none", "--tools", "[]", "--json").json
    assert made["scope"] == {"servers": [], "tools": []}
    words = ("--servers", "*", "--resources", '["a/x,y"]', "--prompts", "a/b", "--prompts", "a/c")
    made = cli("keys", "create", "--name", "e", *words, "--json").json
    assert made["scope"] == {
        "servers": ["*"],
        "resources": ["a/x,y"],
        "prompts": ["a/b", "a/c"],
    }
    made = cli("keys", "create", "--name", "absent", "--json").json
    assert made["scope"] == {}


def test_periods(cli: Cli) -> None:
    made = cli("keys", "create", "--name", "n", "--expires-in", "90d", "--json").json
    again = cli("keys", "patch", made["id"], "--expires-in", "30d", "--json").json
    assert again["expires_at"] < made["expires_at"]
    cli("keys", "create", "--name", "x", "--expires-in", "soon").failed(2, "expires_in")
    cli("keys", "patch", made["id"], "--expires-in", "soon").failed(2, "--expires-in")
    both = ("--expires-in", "30d", "--expires-at", "never")
    cli("keys", "patch", made["id"], *both).failed(2, "one of --expires-in and --expires-at")


def test_keys_made_with_a_key_go_with_it(
    run: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with places(tmp_path, ("gateway",), monkeypatch) as found:
        way = found["gateway"]
        boss = run("keys", "create", "--name", "boss", "--role", "admin", "--json", *way).json
        monkeypatch.setenv("BOSS", boss["secret"])
        by_boss = (*way, "--api-key-env", "BOSS")
        child = run("keys", "create", "--name", "child", "--json", *by_boss).json
        run("keys", "revoke", boss["id"], *way).failed(1, "--cascade")
        ran = run("keys", "revoke", boss["id"], "--cascade", *way)
        assert ran.out == f"revoked {boss['id']}\nrevoked {child['id']}\n"
        run("keys", "list", *by_boss).failed(1, "Invalid API key (revoked)", "the key in BOSS")


def test_no_key_gives_more_than_it_has(
    run: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with places(tmp_path, ("gateway",), monkeypatch) as found:
        way = found["gateway"]
        run("tenants", "create", "acme", "--namespaces", "one", *way)
        words = ("--name", "boss", "--tenant", "acme", "--role", "tenant-admin", "-q")
        secret = run("keys", "create", *words, "--servers", "git", *way).out.strip()
        monkeypatch.setenv("BOSS", secret)
        by_boss = (*way, "--api-key-env", "BOSS")
        mine = run("keys", "create", "--name", "mine", "--servers", "git", "--json", *by_boss).json
        assert mine["tenant"] == "acme"
        run("keys", "patch", mine["id"], "--servers", "*", *by_boss).failed(1, "(servers: *)")
        run("tenants", "list", *by_boss).failed(1, "tenants:read", "whose role grants it")


# Lists


def test_all_pages_are_listed(cli: Cli, tmp_path: Path) -> None:
    items = [
        {"name": f"n{number}", "hash": "sha256:" + hashlib.sha256(b"%d" % number).hexdigest()}
        for number in range(450)
    ]
    file = tmp_path / "keys.json"
    file.write_text(json.dumps({"keys": items}))
    assert cli("keys", "import", str(file)).out == "imported 450 of 450 keys\n"
    listed = cli("keys", "list", "--source", "api", "--json").json
    assert {one["name"] for one in listed["data"]} == {one["name"] for one in items}
    assert (len(listed["data"]), listed["next_cursor"]) == (450, None)
    assert len(cli("keys", "list", "--name", "n7").out.splitlines()) == 2


def test_tenants_for_people(cli: Cli) -> None:
    shown = cli("tenants", "create", "acme", "--namespaces", "one,two").out
    assert "namespaces: one, two" in shown
    heading, row = cli("tenants", "list").out.splitlines()
    assert heading.split() == ["ID", "NAME", "NAMESPACES", "DISABLED", "SOURCE"]
    assert row.split() == ["acme", "-", "one,", "two", "no", "api"]


def test_an_import_tells_what_each_mistake_is(cli: Cli, tmp_path: Path) -> None:
    file = tmp_path / "keys.json"
    digest = "sha256:" + "0" * 64
    items: list[object] = [
        {"name": "a", "hash": digest},
        {"name": "b"},
        7,
        {"name": "c", "hash": digest},
    ]
    file.write_text(json.dumps(items))
    ran = cli("keys", "import", str(file))
    assert (ran.code, ran.out) == (1, "imported 1 of 4 keys\n")
    assert [line.split(":")[1] for line in ran.err.splitlines()] == [
        f" item {number}" for number in (1, 2, 3)
    ]
    assert "0" * 64 not in ran.err
    for text, words in (("{", "JSON list"), ("[]", "no keys"), ('{"kees": [1]}', "no keys")):
        file.write_text(text)
        cli("keys", "import", str(file)).failed(2, words)
    cli("keys", "import", str(tmp_path / "absent")).failed(2, "No such file")


def test_what_a_terminal_would_obey_is_not_printed(cli: Cli) -> None:
    made = cli("keys", "create", "--name", "n", "--metadata", "a=\x1b[31mred\nline", "--json")
    assert "\x1b" not in made.out
    shown = cli("keys", "show", made.json["id"]).out
    assert "\x1b" not in shown
    assert r"a: \x1b[31mred\nline" in shown


# What is refused


def test_mistakes_in_what_is_written(cli: Cli) -> None:
    key = make_key(lambda bits: 1 << (bits - 1)).text
    for words, says in (
        (("keys", "show", "a/b"), "`keys list`"),
        (("keys", "revoke", key), "ID is the id of a key"),
        (("keys", "patch", "key_x"), "nothing to change"),
        (("tenants", "patch", "acme"), "nothing to change"),
        (("tenants", "show", "../keys"), "`tenants list`"),
        (("keys", "create", "--name", "x", "--servers", ""), "--servers"),
        (("keys", "create", "--name", "x", "--servers", "a,none"), "--servers"),
        (("keys", "create", "--name", "x", "--servers", "[]", "--servers", "a"), "--servers"),
        (("keys", "create", "--name", "x", "--tools", "[1]"), "--tools"),
        (("keys", "create", "--name", "x", "--metadata", "a"), "name=value"),
        (("keys", "create", "--name", "x", "--expires-at", "tomorrow"), "--expires-at"),
        (("keys", "create", "--name", " "), "name"),
        (("keys", "verify", key), "on stdin"),
    ):
        ran = cli(*words)
        ran.failed(2, says)
        assert key not in ran.err


def test_a_key_on_the_command_line_is_not_said_again(run: Cli) -> None:
    key = make_key(lambda bits: 1 << (bits - 1)).text
    for words in (
        ("keys", "inspect", key),
        ("keys", key),
        ("keys", "list", "--api-key", key),
        ("keys", "list", f"--api-key={key}"),
        ("keys", "list", key),
        ("keys", "list", "--api-key", "legacy-key-0123456789"),
        ("keys", "list", "--gateway", "http://127.0.0.1:9", "--api-key-env", key),
    ):
        ran = run(*words)
        assert (ran.code, ran.out) == (2, "")
        assert key not in ran.err
        assert "legacy" not in ran.err


def test_options_that_contradict_each_other(run: Cli, tmp_path: Path) -> None:
    gateway = ("--gateway", "http://127.0.0.1:9")
    run("keys", "list", *gateway, "--store", "x.db").failed(2, "--gateway", "leave one out")
    run("keys", "list", *gateway, "--config", "x").failed(2, "--gateway", "leave one out")
    run("keys", "list", "--store", "x.db", "--api-key-env", "X").failed(2, "--api-key-env")
    run("keys", "list", "--gateway", "ftp://x").failed(2, "--gateway", "http://")
    run("keys", "list", *gateway, "--api-key-env", "NOT_SET").failed(2, "NOT_SET", "not set")
    run("keys", "list", "--store", "mysql://secret@x/y").failed(2, "--store", "no store")
    run("keys", "list", "--store", str(tmp_path)).failed(2, "--store", "is a folder")


# Gateways that do not do


def test_a_gateway_that_is_not_there(run: Cli) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        run("keys", "list", "--gateway", url).failed(1, url, "refused", "check --gateway")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\n\r\n<html>",
        b"HTTP/1.1 200 OK\r\n\r\n{}",
        b'HTTP/1.1 200 OK\r\n\r\n{"data": []}',
        b"HTTP/1.1 200 OK\r\n\r\n[]",
        b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n",
        b"HTTP/1.1 599 X\r\n\r\n",
        b"x",
    ],
)
def test_what_answers_is_no_gateway(run: Cli, answer: bytes) -> None:
    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        run("keys", "list", "--gateway", url).failed(1, "--gateway")
        thread.join()


def test_the_key_for_the_gateway(run: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    with face("hot") as front:
        way = ("--gateway", f"http://{front.host}:{front.port}/")
        run("keys", "list", *way).failed(1, "API key required", "set MCP_GATEWAY_API_KEY")
        monkeypatch.setenv("MINE", "test-key-of-nobody")
        ran = run("keys", "list", *way, "--api-key-env", "MINE")
        ran.failed(1, "Invalid API key", "check the key in MINE")
        monkeypatch.setenv("MCP_GATEWAY_API_KEY", KEY.decode())
        assert "config" in run("keys", "list", *way).out
        run("keys", "create", "--name", "x", *way).failed(1, "auth.store", "`keys init`")
    with face("hot", keys=(), auth_enabled=False) as front:
        way = ("--gateway", f"http://{front.host}:{front.port}")
        run("keys", "list", *way).failed(1, "authentication is off", "api_key")


def test_over_tls(run: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("localhost")
    tls = ServerTls(cert=tmp_path / "cert.pem", key=tmp_path / "key.pem")
    issued.private_key_pem.write_to_path(str(tls.key))
    issued.cert_chain_pems[0].write_to_path(str(tls.cert))
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("MCP_GATEWAY_API_KEY", KEY.decode())
    with face("hot", tls=tls) as front:
        way = ("--gateway", f"https://localhost:{front.port}")
        run("keys", "list", *way).failed(1, "certificate")
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        assert "admin" in run("keys", "list", *way).out


# The store


def test_a_store_that_is_not_there(run: Cli, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("api_key: test-key-0123456789abcdef\n")
    way = ("--config", str(config))
    run("keys", "list", *way).failed(2, "config.yaml auth.store", "--store", "--gateway")
    config.write_text("auth: {store: sub/keys.db}\n")
    for words in (("keys", "list"), ("tenants", "list"), ("roles", "list")):
        run(*words, *way).failed(2, "keys.db", "keys init")
    assert not (tmp_path / "sub").exists()
    other = ("--store", str(tmp_path / "typo.db"))
    run("keys", "create", "--name", "x", *other).failed(2, "typo.db", "keys init")
    assert run("keys", "create", "--name", "x", "--role", "admin", *way).code == 0
    assert (tmp_path / "sub/keys.db").stat().st_mode & 0o777 == 0o600
    assert run("keys", "init", *other).out.endswith("with 0 live keys\n")
    assert run("keys", "init", *way).out.endswith("with 1 live key\n")


def test_the_last_administrator_stays(run: Cli, tmp_path: Path) -> None:
    way = ("--store", str(tmp_path / "keys.db"))
    run("keys", "init", *way)
    first = key_id_in(run("keys", "create", "--name", "a", "--role", "admin", *way).out.strip())
    assert first is not None
    for words in (
        ("revoke", first),
        ("patch", first, "--disable"),
        ("patch", first, "--role", "viewer"),
    ):
        run("keys", *words, *way).failed(1, "last key of an administrator", "keys create")
    run("keys", "create", "--name", "b", "--role", "admin", *way)
    assert run("keys", "revoke", first, *way).code == 0


def test_who_acts_on_the_store_is_in_no_list(run: Cli, tmp_path: Path) -> None:
    way = ("--store", str(tmp_path / "keys.db"))
    run("keys", "init", *way)
    assert run("keys", "list", "--json", *way).json["data"] == []
    made = run("keys", "create", "--name", "a", "--json", *way).json
    assert (made["created_by"], made["parent"]) == ("local", None)
    assert [one["id"] for one in run("keys", "list", "--json", *way).json["data"]] == [made["id"]]


def test_configured_tenants_and_roles_count(run: Cli, tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    tenant = {"id": "acme", "namespaces": ["one"], "api_key": "test-key-0123456789abcdef"}
    settings = {"tenants": [tenant], "roles": {"reader": ["servers:read"]}, "auth": {"store": "k"}}
    config.write_text(yaml.safe_dump(settings))
    way = ("--config", str(config))
    words = ("--name", "x", "--tenant", "acme", "--role", "reader", "--json")
    made = run("keys", "create", *words, *way).json
    assert (made["tenant"], made["permissions"]) == ("acme", ["servers:read"])
    assert "reader" in run("roles", "list", *way).out
    listed = run("keys", "list", "--source", "config", "--json", *way).json["data"]
    assert [one["id"] for one in listed] == ["config:acme"]
    run("keys", "revoke", "config:acme", *way).failed(1, "configuration", "change it there")
    run("tenants", "delete", "acme", *way).failed(1, "configuration", "change it there")
    store = ("--store", str(tmp_path / "k"))
    run("keys", "create", *words, *store).failed(1, "Tenant 'acme' not found")


def test_a_stored_key_that_is_also_in_the_file_can_be_revoked(run: Cli, tmp_path: Path) -> None:
    config, secret = tmp_path / "config.yaml", "test-key-0123456789abcdef"
    config.write_text("auth: {store: k.db}\n")
    way = ("--config", str(config))
    digest = "sha256:" + hashlib.sha256(secret.encode()).hexdigest()
    made = run("keys", "create", "--name", "x", "--hash", digest, "--json", *way).json
    config.write_text(f"auth: {{store: k.db}}\napi_key: {secret}\n")
    ran = run("keys", "revoke", made["id"], *way)
    assert (ran.code, ran.out) == (0, f"revoked {made['id']}\n")


def test_a_gateway_follows_the_store(run: Cli, tmp_path: Path) -> None:
    with new_store(tmp_path) as store, face("hot", store=store, tenants=TENANTS) as front:
        way = ("--store", str(tmp_path / "keys.db"))
        secret = run("keys", "create", "--name", "x", *way).out.strip()
        front.until(lambda: _status(front, secret) == 200)
        run("keys", "revoke", str(key_id_in(secret)), *way)
        front.until(lambda: _status(front, secret) == 403)


def _status(front: Face, secret: str) -> int:
    return front.ask(request(b"/servers", (b"X-API-Key", secret.encode())), b"GET").status
