"""Published MCP servers of other projects behind the gateway, called through its envelope."""

from __future__ import annotations

import contextlib
import json
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tests.environments import node, node_program, program_of
from tests.process.talk import (
    Json,
    Running,
    at_once,
    entry,
    free_port,
    owned_by,
    run_gateway,
)

LOOPBACK = Path(__file__).parents[1] / "servers" / "loopback.cjs"
UNKNOWN_TOOL = "no-such-tool"
PAGE = b"Hello from loopback"


def everything(*arguments: str) -> list[str]:
    return [*node_program("mcp-server-everything"), *arguments]


@contextlib.contextmanager
def everything_over_http(mode: str, port: int = 0) -> Iterator[int]:
    """The server as a program of its own on loopback; gives its port."""
    _, script = everything()
    process = subprocess.Popen(
        [str(node()), "--require", str(LOOPBACK), script, mode],
        env={"PORT": str(port), "PATH": "/usr/bin:/bin"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        line = next(line for line in process.stderr if line.startswith("PORT="))
        # What it writes later on must not fill the pipe and stop it.
        reader = Thread(target=process.stderr.read, daemon=True)
        reader.start()
        yield int(line.partition("=")[2])
    finally:
        process.kill()
        process.wait()
        reader.join()
        process.stderr.close()


class Pages(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        found = self.path == "/page.txt"
        body = PAGE if found else b"not here"
        self.send_response(200 if found else 404)
        # Not HTML: the server may hand that to a Node.js program that it has to download first.
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing on the terminal of the tests."""


@pytest.fixture(scope="module")
def page() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Pages) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/page.txt"
        server.shutdown()


def git(*arguments: str, cwd: Path) -> None:
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    subprocess.run(["git", *identity, *arguments], cwd=cwd, check=True, capture_output=True)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a file, a git repository and room for databases."""
    folder = tmp_path_factory.mktemp("published")
    (folder / "files").mkdir()
    (folder / "files/hello.txt").write_text("hello file\n", "utf-8")
    repository = folder / "repository"
    repository.mkdir()
    git("init", "-q", "-b", "main", cwd=repository)
    (repository / "a.txt").write_text("one\n", "utf-8")
    git("add", "a.txt", cwd=repository)
    git("commit", "-q", "-m", "The first commit", cwd=repository)
    return folder


@pytest.fixture(scope="module")
def running(place: Path) -> Iterator[Running]:
    memory = {"MEMORY_FILE_PATH": str(place / "memory.jsonl")}
    with everything_over_http("streamableHttp") as http, everything_over_http("sse") as sse:
        servers: list[Json] = [
            entry("everything", everything("stdio")),
            {
                "id": "everything-http",
                "runtime": {"type": "remote-http", "url": f"http://127.0.0.1:{http}/mcp"},
            },
            {
                "id": "everything-sse",
                "runtime": {"type": "remote-sse", "url": f"http://127.0.0.1:{sse}/sse"},
            },
            entry("filesystem", [*node_program("mcp-server-filesystem"), str(place / "files")]),
            entry("memory", node_program("mcp-server-memory"), env=memory),
            entry("thinking", node_program("mcp-server-sequential-thinking")),
            entry("time", [str(program_of("servers", "mcp-server-time"))]),
            entry("git", [str(program_of("servers", "mcp-server-git"))]),
            entry(
                "fetch",
                [
                    str(program_of("servers", "mcp-server-fetch")),
                    "--ignore-robots-txt",
                    "--allow-private-ips",
                ],
            ),
            entry(
                "sqlite",
                [
                    str(program_of("sqlite", "mcp-server-sqlite")),
                    "--db-path",
                    str(place / "test.db"),
                ],
            ),
        ]
        with run_gateway(place, servers) as gateway:
            yield gateway


EVERYTHING = ("everything", "everything-http", "everything-sse")
TOOLS = {
    **dict.fromkeys(EVERYTHING, "get-sum"),
    "filesystem": "read_text_file",
    "memory": "create_entities",
    "thinking": "sequentialthinking",
    "time": "convert_time",
    "git": "git_log",
    "fetch": "fetch",
    "sqlite": "write_query",
}
STATELESS = {"time", "git", "fetch"}


@pytest.mark.parametrize("server", TOOLS)
def test_every_server_lists_its_tools(running: Running, server: str) -> None:
    tools = running.caller.call(server, "tools/list").result["tools"]

    assert TOOLS[server] in {tool["name"] for tool in tools}
    assert all(tool["inputSchema"]["type"] == "object" for tool in tools)


@pytest.mark.parametrize("server", TOOLS)
def test_every_server_answers_a_ping_and_a_handshake(running: Running, server: str) -> None:
    client = {"name": "test", "version": "1"}
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client}

    assert running.caller.call(server, "ping").result == {}
    shaken = running.caller.call(server, "initialize", hello).result
    assert shaken["serverInfo"]["name"]
    assert "tools" in shaken["capabilities"]
    if server in STATELESS:
        assert shaken["protocolVersion"] == "2025-06-18"


@pytest.mark.parametrize("server", TOOLS)
def test_an_unknown_tool_is_the_servers_own_error(running: Running, server: str) -> None:
    answer = running.caller.tool(server, UNKNOWN_TOOL)

    assert answer.status == 200
    assert answer.json["id"] == 7
    if "error" in answer.json:
        assert answer.error["code"] in {-32602, -32601}
    elif server == "sqlite":  # looks at the arguments first, and marks no result as an error
        assert answer.text == "Error: Missing arguments"
    else:
        assert answer.result["isError"] is True
        assert UNKNOWN_TOOL in answer.text


@pytest.mark.parametrize("server", TOOLS)
def test_an_unknown_method_is_the_servers_own_error(running: Running, server: str) -> None:
    answer = running.caller.call(server, "no/such_method", id="text-id")

    assert answer.status == 200
    assert answer.json["id"] == "text-id"
    # Python's mcp 1 validates against a closed union and so calls it invalid parameters.
    assert answer.error["code"] == (-32602 if server == "sqlite" else -32601)


@pytest.mark.parametrize("server", EVERYTHING)
def test_everything_over_each_transport(running: Running, server: str) -> None:
    caller = running.caller

    assert caller.tool(server, "get-sum", a=2, b=40).text == "The sum of 2 and 40 is 42."
    assert caller.tool(server, "echo", message="Grüße 👋").text == "Echo: Grüße 👋"
    weather = caller.tool(server, "get-structured-content", location="New York").result
    assert isinstance(weather["structuredContent"]["temperature"], int | float)
    image = caller.tool(server, "get-tiny-image").result["content"]
    assert {"image", "text"} == {block["type"] for block in image}
    # It logs and reports progress before its answer, which nobody here listens to.
    slow = caller.tool(server, "trigger-long-running-operation", duration=0.2, steps=4)
    assert "completed" in slow.text


@pytest.mark.parametrize("server", EVERYTHING)
def test_everything_has_resources_and_prompts(running: Running, server: str) -> None:
    caller = running.caller

    resources = caller.call(server, "resources/list").result["resources"]
    uri = resources[0]["uri"]
    contents = caller.call(server, "resources/read", {"uri": uri}).result["contents"]
    assert contents[0]["uri"] == uri
    assert contents[0]["text"]
    templates = caller.call(server, "resources/templates/list").result["resourceTemplates"]
    assert any("{" in template["uriTemplate"] for template in templates)
    prompts = {prompt["name"] for prompt in caller.call(server, "prompts/list").result["prompts"]}
    assert {"simple-prompt", "args-prompt"} <= prompts
    city = {"name": "args-prompt", "arguments": {"city": "Rome", "state": "Lazio"}}
    assert "Rome" in json.dumps(caller.call(server, "prompts/get", city).result["messages"])
    missing = caller.call(server, "prompts/get", {"name": "no-such-prompt"})
    assert missing.error["code"] == -32602


def test_everything_is_killed_and_started_again_under_its_callers(tmp_path: Path) -> None:
    """It says 400 to sessions that it does not know."""
    port = free_port()
    runtime = {"type": "remote-http", "url": f"http://127.0.0.1:{port}/mcp"}
    with run_gateway(tmp_path, [{"id": "everything", "runtime": runtime}]) as gateway:
        for text in ("one", "two", "three"):
            with everything_over_http("streamableHttp", port):
                for _ in range(2):
                    answer = gateway.caller.tool("everything", "echo", message=text)
                    assert answer.text == f"Echo: {text}"


def test_filesystem_reads_what_is_in_its_folder_only(running: Running, place: Path) -> None:
    inside = str(place / "files/hello.txt")

    assert running.caller.tool("filesystem", "read_text_file", path=inside).text == "hello file\n"
    outside = running.caller.tool("filesystem", "read_text_file", path="/etc/hostname").result
    assert outside["isError"] is True
    assert "Access denied" in outside["content"][0]["text"]


def test_memory_keeps_what_one_caller_said_for_another(running: Running, place: Path) -> None:
    dog = {"name": "Rex", "entityType": "dog", "observations": ["barks"]}
    running.caller.tool("memory", "create_entities", entities=[dog])

    found = running.as_caller(running.caller.key).tool("memory", "search_nodes", query="barks")
    assert [one["name"] for one in json.loads(found.text)["entities"]] == ["Rex"]
    assert "Rex" in (place / "memory.jsonl").read_text("utf-8")


def test_sequential_thinking(running: Running) -> None:
    thought = {
        "thought": "first",
        "thoughtNumber": 1,
        "totalThoughts": 1,
        "nextThoughtNeeded": False,
    }
    found = json.loads(running.caller.tool("thinking", "sequentialthinking", **thought).text)
    assert found["thoughtNumber"] == 1
    assert found["nextThoughtNeeded"] is False


def test_time(running: Running) -> None:
    wanted = {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"}
    found = json.loads(running.caller.tool("time", "convert_time", **wanted).text)
    assert "T21:00:00" in found["target"]["datetime"]


def test_git(running: Running, place: Path) -> None:
    log = running.caller.tool("git", "git_log", repo_path=str(place / "repository"))
    assert "The first commit" in log.text


def test_fetch(running: Running, page: str) -> None:
    assert "Hello from loopback" in running.caller.tool("fetch", "fetch", url=page).text
    prompts = running.caller.call("fetch", "prompts/list").result["prompts"]
    assert [prompt["name"] for prompt in prompts] == ["fetch"]
    got = running.caller.call("fetch", "prompts/get", {"name": "fetch", "arguments": {"url": page}})
    assert "Hello from loopback" in json.dumps(got.result["messages"])


def test_sqlite(running: Running) -> None:
    caller = running.caller

    caller.tool("sqlite", "create_table", query="CREATE TABLE pets (name TEXT)").result  # noqa: B018
    caller.tool("sqlite", "write_query", query="INSERT INTO pets VALUES ('Rex')").result  # noqa: B018
    assert "Rex" in caller.tool("sqlite", "read_query", query="SELECT * FROM pets").text
    memo = caller.call("sqlite", "resources/read", {"uri": "memo://insights"}).result
    assert memo["contents"][0]["uri"] == "memo://insights"
    prompts = caller.call("sqlite", "prompts/list").result["prompts"]
    assert [prompt["name"] for prompt in prompts] == ["mcp-demo"]


def test_many_callers_share_one_process(running: Running) -> None:
    """Each gets its own answer, and nobody a process of their own."""
    before = running.starts("everything")
    count = 40

    numbers = iter(range(count))
    answers = at_once(
        count, lambda: running.caller.tool("everything", "get-sum", a=next(numbers), b=0)
    )
    sums = {answer.text for answer in answers}

    assert sums == {f"The sum of {number} and 0 is {number}." for number in range(count)}
    assert len(before) <= 1
    assert len(running.starts("everything")) == 1
    assert running.starts("everything")[0] in owned_by(running.pid)
    assert running.caller.shown("everything")["connection_count"] == 1


def test_remote_servers_share_one_session(running: Running) -> None:
    answers = at_once(
        20, lambda: running.caller.tool("everything-http", "echo", message="together")
    )
    assert {answer.text for answer in answers} == {"Echo: together"}
    assert running.caller.shown("everything-http")["connection_count"] == 1
