"""The files of desktop clients as catalogs."""

# ruff: noqa: E501  a row of a table is one line

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from open_mcp_gateway.catalog.load import LoadedCatalog, load_catalog
from open_mcp_gateway.catalog.model import LocalProcess, Remote
from open_mcp_gateway.errors import InvalidConfig

ENVIRON = {"TOKEN": "test-token"}


def load(folder: Path, listed: object, **beside: object) -> LoadedCatalog:
    path = folder / "any.name"
    path.write_text(json.dumps({"mcpServers": listed, **beside}, indent=1))
    return load_catalog(path, ENVIRON)


def problems_of(folder: Path, listed: object, **beside: object) -> list[str]:
    with pytest.raises(InvalidConfig) as caught:
        load(folder, listed, **beside)
    prefix = f"{folder / 'any.name'}:"
    return [str(problem).removeprefix(prefix) for problem in caught.value.problems]


def test_both_kinds(tmp_path: Path) -> None:
    loaded = load(
        tmp_path,
        {
            "files": {
                "command": "npx",
                "args": ["-y", "server-filesystem", "/tmp"],
                "env": {"A": "${TOKEN}"},
                "cwd": "sub",
                "disabled": False,
                "type": "stdio",
            },
            "off": {"disabled": True, "command": "${NOT_SET}"},
            "web": {"url": "https://h/mcp", "headers": {"Authorization": "Bearer ${TOKEN}"}},
            "old": {"type": "sse", "serverUrl": "https://h/sse"},
            "new": {"type": "streamable-http", "url": "https://h/mcp"},
            "null": {"type": None, "url": "https://h/mcp"},
        },
    )
    assert loaded.warnings == ()
    entries = {str(name): entry for name, entry in loaded.snapshot.entries.items()}
    assert list(entries) == ["files", "web", "old", "new", "null"]
    files = entries["files"]
    assert files.spec.runtime == LocalProcess(
        command="npx", args=("-y", "server-filesystem", "/tmp"), working_dir=f"{tmp_path}/sub"
    )
    assert files.spec.env == {"A": "test-token"}
    assert files.shown.env == {"A": "***"}
    assert entries["web"].spec.runtime == Remote(
        url="https://h/mcp", headers={"Authorization": "Bearer test-token"}
    )
    assert {name: entry.runtime_type for name, entry in entries.items()} == {
        "files": "local-process", "web": "remote-http", "old": "remote-sse", "new": "remote-http",
        "null": "remote-http",
    }  # fmt: skip


def test_what_a_catalog_says_can_be_said_here(tmp_path: Path) -> None:
    loaded = load(tmp_path, {"a": {"command": "x", "namespace": "n", "idle_timeout_seconds": 5}})
    (entry,) = loaded.snapshot.entries.values()
    assert (entry.spec.namespace, entry.spec.idle_timeout_seconds) == ("n", 5)


def test_it_may_be_written_in_yaml(tmp_path: Path) -> None:
    path = tmp_path / "catalog.yaml"
    path.write_text("mcpServers:\n  a: {command: x}\n")
    assert list(load_catalog(path, {}).snapshot.entries) == ["a"]


def test_what_is_not_known_has_no_effect_and_is_told(tmp_path: Path) -> None:
    loaded = load(tmp_path, {"a": {"command": "x", "alwaysAllow": ["y"]}}, globalShortcut="z")
    prefix = f"{tmp_path / 'any.name'}:"
    assert [str(warning).removeprefix(prefix) for warning in loaded.warnings] == [
        "10 globalShortcut: 'globalShortcut' is not known to the gateway and has no effect here",
        "5 mcpServers.a.alwaysAllow: 'alwaysAllow' is not known to the gateway and has no effect here",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("servers", "message"),
    [
        ([], "2 mcpServers: must be a mapping from name to server, but is a list; write {} for none"),
        ({"a": "x"}, "3 mcpServers.a: Server 'a' must be a mapping, but is text; write its command or url"),
        ({"my server": {"command": "x"}},
         "3 mcpServers[\"my server\"]: 'my server' is not a valid server ID; use 1 to 64 letters, digits, '.', '_' and '-', starting with a letter or digit"),
        ({"$HOME": {"command": "x"}},
         "3 mcpServers[\"$HOME\"]: '$HOME' is not a valid server ID; use 1 to 64 letters, digits, '.', '_' and '-', starting with a letter or digit"),
        ({"a": {}}, "3 mcpServers.a: Server 'a' missing required field: runtime"),
        ({"a": {"command": "x", "url": "https://h"}},
         "5 mcpServers.a.url: 'url' does not belong to a server of this kind (local-process); remove it"),
        ({"a": {"type": "http", "command": "x", "url": "https://h"}},
         "5 mcpServers.a.command: 'command' does not belong to a server of this kind (remote-http); remove it"),
        ({"a": {"url": "https://h", "serverUrl": "https://h"}},
         "5 mcpServers.a.serverUrl: 'url' and 'serverUrl' are the same; keep one of them"),
        ({"a": {"type": "websocket", "url": "https://h"}},
         "3 mcpServers.a: Server 'a' has unknown runtime type: websocket; known are local-process, remote-http, remote-sse, docker, k8s-job, k8s-service"),
        ({"a": {"command": 5}}, "4 mcpServers.a.command: is a whole number, not text; quote it"),
        ({"a": {"command": "x", "args": "y"}}, "5 mcpServers.a.args: must be a list, but is text; write a list"),
        ({"a": {"command": "x", "disabled": "yes"}}, "5 mcpServers.a.disabled: must be true or false, but is text"),
        ({"a": {"url": "https://h", "env": {"A": "b"}}},
         "5 mcpServers.a.env: has no effect on a remote server, which is not started here; remove it"),
    ],
)  # fmt: skip
def test_mistakes(tmp_path: Path, servers: Any, message: str) -> None:
    assert message in problems_of(tmp_path, servers)


def test_a_type_that_is_not_text(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, {"a": {"type": ["http"], "url": "https://h"}})
    assert "has unknown runtime type: " in problem


def test_beside_a_list_of_servers(tmp_path: Path) -> None:
    assert problems_of(tmp_path, {}, servers=[]) == [
        "3 servers: 'servers' beside 'mcpServers'; keep one of the two"
    ]
