"""Every block can be pasted: it is what the client's file or shell takes, and names no key."""

import json
import shlex

import pytest
import yaml

from open_mcp_gateway.cli.apikey import KEY_VARIABLE
from open_mcp_gateway.cli.client_config import CLIENTS, Block, Target
from open_mcp_gateway.cli.main import main

TARGET = Target(
    name="time",
    server="time",
    gateway="https://mcp.example.com",
    program="/opt/my tools/gateway-stdio",
)
URL = "https://mcp.example.com/servers/time/mcp"


def blocks(client: str) -> dict[str, Block]:
    return {block.transport: block for block in CLIENTS[client](TARGET)}


@pytest.mark.parametrize("client", sorted(CLIENTS))
def test_there_is_one_block_for_http_and_one_for_stdio(client: str) -> None:
    both = blocks(client)
    assert set(both) == {"http", "stdio"}
    assert URL in both["http"].text
    assert KEY_VARIABLE in both["stdio"].text or client == "inspector"


@pytest.mark.parametrize("client", ["claude-desktop", "cursor", "cline", "vscode"])
def test_json_blocks_start_what_they_say(client: str) -> None:
    member = "servers" if client == "vscode" else "mcpServers"
    stdio = json.loads(blocks(client)["stdio"].text)[member]["time"]
    assert stdio["command"] == "/opt/my tools/gateway-stdio"
    assert stdio["args"] == ["--server", "time", "--gateway", "https://mcp.example.com"]
    http = json.loads(blocks(client)["http"].text)[member]["time"]
    assert URL in (http.get("url"), *http.get("args", ()))


def test_continue_takes_yaml() -> None:
    for block in blocks("continue").values():
        assert yaml.safe_load(block.text)["mcpServers"][0]["name"] == "time"


@pytest.mark.parametrize("client", ["claude-code", "inspector"])
def test_shell_lines_quote_what_needs_quotes(client: str) -> None:
    assert "/opt/my tools/gateway-stdio" in shlex.split(blocks(client)["stdio"].text)


def test_the_command_prints_only_the_block_to_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    options = ["client-config", "cursor", "-s", "time", "--transport", "http", "--name", "clock"]
    assert main(options) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["mcpServers"]["clock"]["url"] == "http://127.0.0.1:4444/servers/time/mcp"
