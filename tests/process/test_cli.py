"""The programs as a user meets them: options, exit codes, and the words for what is wrong."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml

from open_mcp_gateway import __version__
from open_mcp_gateway.keystore.open import create_store
from tests.gateway import DEMO
from tests.process.talk import KEY, Caller, Json, Running, odd_server, run_gateway, wait_until

PROGRAMS = ("open-mcp-gateway", "gateway-http", "gateway-stdio")
SERVE: dict[str, tuple[str, ...]] = {
    "gateway-http": ("gateway-http",),
    "serve": ("open-mcp-gateway", "serve"),
    "check": ("open-mcp-gateway", "check"),
}


def run(
    *command: str, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a program that is to end by itself."""
    program, *options = command
    return subprocess.run(
        [Path(sys.executable).with_name(program), *options],
        cwd=cwd,
        env={"PATH": os.environ["PATH"]} | dict(env or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def write(folder: Path, config: object = None, catalog: object = None) -> Path:
    """Both files in ``folder``; text goes in as it is. Gives the path of the configuration."""
    for name, content in (("config", config or {}), ("catalog", catalog or {"servers": []})):
        text = content if isinstance(content, str) else yaml.safe_dump(content)
        (folder / f"{name}.yaml").write_text(text, "utf-8")
    return folder / "config.yaml"


@contextmanager
def listening(
    *command: str, cwd: Path, env: Mapping[str, str] | None = None
) -> Iterator[tuple[subprocess.Popen[str], list[str]]]:
    """A program that serves, and its lines on stderr up to those that say where."""
    program, *options = command
    with subprocess.Popen(
        [Path(sys.executable).with_name(program), *options],
        cwd=cwd,
        env={"PATH": os.environ["PATH"]} | dict(env or {}),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        lines: list[str] = []
        try:
            while not lines or "is listening" not in lines[-1]:
                line = process.stderr.readline()
                assert line, lines
                lines.append(line.rstrip())
            yield process, lines
        finally:
            process.terminate()
            process.wait(60)


def address_in(lines: list[str]) -> tuple[str, int]:
    host, _, port = json.loads(lines[-1])["address"].rpartition(":")
    return host, int(port)


# Options


@pytest.mark.parametrize("program", PROGRAMS)
def test_version(program: str) -> None:
    ran = run(program, "--version")
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, f"{program} {__version__}\n", "")


@pytest.mark.parametrize(
    ("command", "options"),
    [
        (("open-mcp-gateway",), ("serve", "stdio", "check", "--version")),
        (
            ("gateway-http",),
            ("--config", "--listen-addr", "--catalog", "--log-level", "--validate", "--version"),
        ),
        (
            ("gateway-stdio",),
            (
                "--server",
                "-s",
                "--catalog",
                "-c",
                "--gateway",
                "-g",
                "--api-key-env",
                "--log-level",
            ),
        ),
        (("open-mcp-gateway", "serve"), ("--config", "--validate")),
    ],
)
def test_help(command: tuple[str, ...], options: tuple[str, ...]) -> None:
    ran = run(*command, "--help")
    assert ran.returncode == 0
    assert ran.stdout.startswith("usage: ")
    assert [option for option in options if option not in ran.stdout] == []


@pytest.mark.parametrize(
    "command",
    [
        ("open-mcp-gateway",),
        ("open-mcp-gateway", "dance"),
        ("gateway-http", "--no-such-option"),
        ("gateway-http", "--api-key", KEY),
        ("gateway-http", "--log-level", "loud"),
        ("gateway-http", "surplus"),
        ("gateway-stdio",),
    ],
)
def test_bad_options(command: tuple[str, ...]) -> None:
    ran = run(*command)
    assert ran.returncode == 2
    assert ran.stdout == ""
    assert ran.stderr.startswith("usage: ")


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--config", "absent.yaml", "--config absent.yaml: does not exist"),
        ("--catalog", "absent.yaml", "absent.yaml"),
        ("--catalog", "", "--catalog: is not a path"),
        ("--listen-addr", "nonsense", "--listen-addr: "),
        ("--listen-addr", "127.0.0.1:99999", "--listen-addr: "),
    ],
)
def test_options_with_impossible_values(tmp_path: Path, option: str, value: str, says: str) -> None:
    write(tmp_path)
    ran = run("gateway-http", option, value, cwd=tmp_path)
    assert ran.returncode == 2
    assert says in ran.stderr
    assert ran.stderr.startswith("error: ")
    assert len(ran.stderr.splitlines()) == 1


def test_options_come_before_the_file(tmp_path: Path) -> None:
    write(tmp_path, {"listen_addr": "127.0.0.1:1", "log_level": "error", "catalog_path": "no.yaml"})
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump({"servers": [DEMO]}), "utf-8")
    options = ("--listen-addr", "127.0.0.1:0", "--log-level", "info", "--catalog", "mine.yaml")
    with listening("gateway-http", *options, cwd=tmp_path) as (process, lines):
        host, port = address_in(lines)
        found = Caller(host, port, None).get("/servers").json
        assert [server["id"] for server in found] == ["demo"]
        process.terminate()
        assert process.stdout is not None
        assert process.stdout.read() == ""
        assert process.wait(60) == 0


# Mistakes


@pytest.mark.parametrize("command", SERVE)
def test_every_mistake_is_told_at_once(tmp_path: Path, command: str) -> None:
    """By ``--validate``, by ``check`` and by a start alike, each with its file and place."""
    config = write(
        tmp_path,
        'listen_addr: nonsense\napi_key: ""\nlog_levle: info\nidle_timeout_seconds: soon\n',
        "servers:\n- id: a\n- id: b\n  runtime: {type: warp}\n"
        + "- runtime: {type: docker, image: x}\n"
        + "- id: c\n  runtime: {type: docker, image: x}\n" * 2,
    )
    options = ("--validate",) if command == "gateway-http" else ()
    ran = run(*SERVE[command], "--config", str(config), *options)
    assert ran.returncode == 2
    assert ran.stdout == ""
    told = ran.stderr.splitlines()
    assert all(line.startswith("error: ") for line in told)
    for place, words in (
        ("config.yaml:1 listen_addr", ""),
        ("config.yaml:2 api_key", "empty"),
        ("config.yaml:3", "log_level"),
        ("config.yaml:4 idle_timeout_seconds", ""),
        ("catalog.yaml:2 servers[0]", "Server 'a' missing required field: runtime"),
        ("catalog.yaml:4 servers[1]", "Server 'b' has unknown runtime type: warp"),
        ("catalog.yaml:5 servers[2]", "Server at index 2 missing required field: id"),
        ("catalog.yaml:8 servers[4]", "Duplicate server ID: c"),
    ):
        assert any(f"{tmp_path}/{place}" in line and words in line for line in told), (place, told)


def test_no_mistakes(tmp_path: Path) -> None:
    config = write(tmp_path, {"api_key": KEY}, {"servers": [odd_server("crash_at_start")]})
    for command in (("gateway-http", "--validate"), ("open-mcp-gateway", "check")):
        ran = run(*command, "--config", str(config))
        assert ran.returncode == 0
        assert "no mistakes found" in ran.stdout
        assert "1 servers" in ran.stdout or "1 server" in ran.stdout
        assert KEY not in ran.stdout + ran.stderr


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ("api_key: ''", "api_key: is empty"),
        ("api_key: '  '", "api_key: is empty"),
        ("api_key: 123456", "not text; quote it"),
        ("api_key: true", "not text; quote it"),
        ("api_key: [a]", "must be text"),
        ("api_key: ${UNSET}", "UNSET"),
        ("api_key: ${EMPTY}", "EMPTY"),
        ("api_key: ${BLANK}", "api_key"),
        ("api_key: '${UNSET:?ask the team for it}'", "ask the team for it"),
        ("api_key: ${UNSET:-}", "api_key"),
        ("api_key: $UNSET", "api_key"),
        ("api_key: a b", "api_key: holds a space"),
        ("api_key_file: absent", "api_key_file: the file "),
        ("api_key_file: /dev/null", "api_key_file"),
        ("api_key: test-key-1\napi_key: test-key-2", "api_key"),
        ("api_key: test-key-0123456789\napi_key_file: /dev/null", "api_key"),
        ("tenants:", "tenants: must be a list"),
        ("tenants:\n- id: a\n  api_key: test-key-0123456789", "field 'namespaces'"),
        ("tenants:\n- {id: a, namespaces: [], api_key: '${UNSET}'}", "UNSET"),
        ("tenants:\n- {id: a, namespace: [x], namespaces: []}", "did you mean 'namespaces'?"),
        ("roles: {admin: []}", "roles.admin: is a built-in role"),
        ("oauth: {}", "oauth"),
        ("auth: {store: 'mysql://db/keys'}", "auth.store"),
        ("auth: {pepper: test-key-0123456789}", "auth.pepper"),
        ("auth: {require: true}", "no key is configured"),
        ("workers: 2", "workers"),
        ("apikey: test-key-0123456789", "api_key"),
        ("listen_addr: 127.0.0.1", "listen_addr"),
        ("cors_enabled: yes please", "cors_enabled"),
        ("request_timeout_seconds: 0", "request_timeout_seconds"),
        ("tls: {cert: absent.pem}", "tls"),
        ("- not\n- a mapping", "config.yaml"),
        ("a: [", "not valid YAML"),
    ],
)
def test_a_configuration_that_could_open_the_door_is_refused(
    tmp_path: Path, config: str, says: str
) -> None:
    path = write(tmp_path, config)
    ran = run("gateway-http", "--config", str(path), env={"EMPTY": "", "BLANK": "  "})
    assert ran.returncode == 2
    assert says in ran.stderr
    assert "config.yaml" in ran.stderr
    assert "test-key" not in ran.stderr
    assert "Traceback" not in ran.stderr


@pytest.mark.parametrize(
    ("catalog", "says"),
    [
        (None, "catalog.yaml"),
        ("servers:\n- id: a\n  id: b\n  runtime: {type: docker, image: x}\n", "id"),
        ("servers:\n- id: a\n  runtime: {type: docker, imaeg: x}\n", "image"),
        ("servers:\n- id: a b\n  runtime: {type: docker, image: x}\n", "id"),
        (
            "servers:\n- id: a\n  env: {T: '${UNSET}'}\n  runtime: {type: docker, image: x}\n",
            "UNSET",
        ),
        ('{"mcpServers": {"a": {"args": []}}}', "a"),
        ("\tservers: []", "not valid YAML"),
    ],
)
def test_a_catalog_that_cannot_be_used(tmp_path: Path, catalog: str | None, says: str) -> None:
    path = write(tmp_path, {}, catalog)
    if catalog is None:
        (tmp_path / "catalog.yaml").unlink()
    ran = run("gateway-http", "--config", str(path))
    assert ran.returncode == 2
    assert str(tmp_path / "catalog.yaml") in ran.stderr
    assert says in ran.stderr
    assert "Traceback" not in ran.stderr


def test_a_taken_port(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        path = write(tmp_path, {"listen_addr": address})
        ran = run("gateway-http", "--config", str(path))
    assert ran.returncode == 1
    assert ran.stderr == (
        f"error: cannot listen on {address}: Address already in use; "
        "choose another address with --listen-addr or listen_addr\n"
    )


@pytest.mark.parametrize("address", ["192.0.2.1:0", "no-such-host.invalid:0"])
def test_an_address_that_is_not_ours(tmp_path: Path, address: str) -> None:
    path = write(tmp_path, {"listen_addr": address})
    ran = run("gateway-http", "--config", str(path))
    assert ran.returncode == 1
    assert ran.stderr.startswith(f"error: cannot listen on {address}: ")
    assert len(ran.stderr.splitlines()) == 1


# Where files are looked for


def test_the_search_for_a_configuration(tmp_path: Path) -> None:
    here, home = tmp_path / "here", tmp_path / "home"
    user = home / ".config/mcp-gateway"
    for folder in (here, user):
        folder.mkdir(parents=True)
        write(folder)
    env = {"HOME": str(home)}

    def found() -> str:
        ran = run("open-mcp-gateway", "check", cwd=here, env=env)
        assert ran.returncode == 0, ran.stderr
        return next(line for line in ran.stdout.splitlines() if line.startswith("config: "))

    assert str(here / "config.yaml") in found()
    (here / "config.yaml").unlink()
    assert str(user / "config.yaml") in found()
    # A file that is there and cannot be used is a mistake, not one to pass over.
    (here / "config.yaml").mkdir()
    ran = run("open-mcp-gateway", "check", cwd=here, env=env)
    assert ran.returncode == 2
    assert str(here / "config.yaml") in ran.stderr


def test_no_configuration_at_all(tmp_path: Path) -> None:
    if Path("/etc/mcp-gateway/config.yaml").exists():
        pytest.fail("this machine has a gateway of its own configured")
    ran = run("open-mcp-gateway", "check", cwd=tmp_path)
    assert ran.returncode == 2
    assert str(tmp_path / "catalog.yaml") in ran.stderr
    write(tmp_path)
    (tmp_path / "config.yaml").unlink()
    ran = run("open-mcp-gateway", "check", cwd=tmp_path)
    assert ran.returncode == 0
    assert "no config.yaml found" in ran.stdout


def test_paths_in_a_file_start_from_the_file(tmp_path: Path) -> None:
    folder, home = tmp_path / "etc", tmp_path / "home"
    folder.mkdir()
    home.mkdir()
    catalog = yaml.safe_dump({"servers": [DEMO]})
    (folder / "my.yaml").write_text(catalog, "utf-8")
    (home / "mine.yaml").write_text(catalog, "utf-8")
    for path in ("my.yaml", "./my.yaml", "~/mine.yaml"):
        config = write(folder, {"catalog_path": path})
        ran = run("open-mcp-gateway", "check", "--config", str(config), env={"HOME": str(home)})
        assert ran.returncode == 0, ran.stderr
        assert "(1 server" in ran.stdout


def test_an_mcp_servers_file_is_a_catalog(tmp_path: Path) -> None:
    """As desktop clients keep it."""
    runtime = DEMO["runtime"]
    servers = {"demo": {"command": runtime["command"], "args": runtime["args"], "env": {"A": "b"}}}
    path = tmp_path / "claude_desktop_config.json"
    path.write_text(json.dumps({"mcpServers": servers}), "utf-8")
    config = write(tmp_path, {"api_key": KEY, "listen_addr": "127.0.0.1:0"})
    options = ("--config", str(config), "--catalog", str(path))
    with listening("gateway-http", *options, cwd=tmp_path) as (_, lines):
        caller = Caller(*address_in(lines))
        assert caller.tool("demo", "add", a=2, b=3).text == "5"


# What a start says


def warnings_of(running: Running) -> list[Json]:
    """Without those about processes that other gateways of this machine left behind."""
    lines = [line for line in running.gateway.log() if line["level"] == "warning"]
    return [line for line in lines if "earlier gateway" not in line["message"]]


def test_the_start_in_the_log(tmp_path: Path) -> None:
    with run_gateway(tmp_path, [DEMO, odd_server("echo")], {"hot_reload": False}) as running:
        (line,) = running.log("Open MCP Gateway is listening")
        assert line["level"] == "info"
        assert line["version"] == __version__
        assert line["address"] == f"127.0.0.1:{running.gateway.port}"
        assert line["servers"] == 2
        assert line["hot_reload"] is False
        assert line["authentication"] is True
        assert line["tls"] is False
        assert running.caller.get("/servers").status == 200
    assert warnings_of(running) == []
    assert running.log("stopping")
    assert running.gateway.log()[-1]["message"] == "stopped"


def test_an_open_gateway_warns_once(tmp_path: Path) -> None:
    with run_gateway(tmp_path, [], key=None) as running:
        assert running.as_caller(None).get("/servers").status == 200
    warnings = warnings_of(running)
    assert len(warnings) == 1
    assert "authentication is off" in warnings[0]["message"]
    assert warnings[0]["address"] == f"127.0.0.1:{running.gateway.port}"
    assert "api_key" in warnings[0]["mend"]
    assert running.log("Open MCP Gateway is listening")[0]["authentication"] is False


def test_doubtful_keys_are_warned_of(tmp_path: Path) -> None:
    path = write(tmp_path, {"api_key": "test-1"})
    ran = run("gateway-http", "--config", str(path), "--validate")
    assert ran.returncode == 0
    assert ran.stderr.startswith(f"warning: {path}:1 api_key: is shorter than ")
    file = tmp_path / "key"
    file.touch(0o644)
    file.write_text(KEY, "ascii")
    path = write(tmp_path, {"api_key_file": "key"})
    ran = run("gateway-http", "--config", str(path), "--validate")
    assert ran.returncode == 0
    assert "chmod 600" in ran.stderr
    assert KEY not in ran.stderr


def test_lines_for_people(tmp_path: Path) -> None:
    config = write(tmp_path, {"log_format": "human", "listen_addr": "127.0.0.1:0", "api_key": KEY})
    with listening("gateway-http", "--config", str(config), cwd=tmp_path) as (process, lines):
        assert "INFO  Open MCP Gateway is listening" in lines[-1]
        assert f"version={__version__} address=127.0.0.1:" in lines[-1]
        assert "authentication=True" in lines[-1]
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0


def test_a_runtime_of_a_later_version_passes_the_check_and_says_so_when_started(
    tmp_path: Path,
) -> None:
    runtimes: list[Json] = [
        {"type": "docker", "image": "x"},
        {"type": "k8s-job", "namespace": "a", "image": "x"},
        {"type": "k8s-service", "namespace": "a", "service_name": "b", "port": 80},
    ]
    servers: list[Json] = [{"id": one["type"], "runtime": one} for one in runtimes]
    with run_gateway(tmp_path, servers) as running:
        for runtime in runtimes:
            server = runtime["type"]
            answer = running.caller.call(server, "tools/list")
            assert (answer.status, answer.error["code"]) == (502, -32002)
            started = running.caller.post(f"/servers/{server}/start")
            assert started.status == 502
            assert started.json["message"].startswith("Failed to start server: ")
            assert server in started.json["message"]
            assert running.caller.shown(server)["runtime_type"] == server


def test_keys_stay_out_of_every_log_at_every_level(tmp_path: Path) -> None:
    secret = "test-secret-value"
    server = odd_server("crash_at_start", env={"TOKEN": "${TEST_TOKEN}"})
    env = {"TEST_TOKEN": secret}
    config = {"log_level": "trace", "access_log": "all"}
    with run_gateway(tmp_path, [server], config, env) as running:
        running.caller.call("crash_at_start", "tools/list")
        running.caller.send("GET", f"/servers?api_key={KEY}")
        running.as_caller("test-key-wrong-one").get("/servers")
        wait_until(lambda: len(running.log("request")) >= 3, "all three are logged")
    log = "".join(running.gateway.lines)
    assert "crash_at_start" in log
    for word in (KEY, secret, "test-key-wrong-one"):
        assert word not in log


@pytest.mark.parametrize(
    "command",
    [
        ("open-mcp-gateway", "client-config", "vscode", "--server", "time"),
        ("open-mcp-gateway", "check"),
        ("open-mcp-gateway", "serve", "--validate"),
        ("gateway-http", "--validate"),
        ("open-mcp-gateway", "roles", "list", "--store", "auth.db"),
        ("open-mcp-gateway", "keys", "list", "--store", "auth.db"),
    ],
)
def test_what_nobody_reads_ends_quietly(command: tuple[str, ...], tmp_path: Path) -> None:
    write(tmp_path)
    create_store("sqlite", path=tmp_path / "auth.db").close()
    reader, writer = os.pipe()
    os.close(reader)
    try:
        ended = subprocess.run(
            [Path(sys.executable).with_name(command[0]), *command[1:]],
            cwd=tmp_path,
            stdin=subprocess.DEVNULL,
            stdout=writer,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    finally:
        os.close(writer)
    assert ended.returncode == 1, ended
    assert "BrokenPipe" not in ended.stderr
    assert "Traceback" not in ended.stderr
