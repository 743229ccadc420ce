"""The client programs: how each is run against some servers, and what it makes of them."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.clients.offers import SESSIONS, STATELESS, Offer
from tests.environments import ROOT, node, node_modules, node_program, python_of

Json = dict[str, Any]

HERE: Final = Path(__file__).parent
PATIENCE_S: Final = 90
NO_TOOL: Final = "no-such-tool"
NONE_IN_COMMON: Final = "none in common"
WORKS: Final = "works"


@dataclass(frozen=True)
class Client:
    """A client in one of its modes. ``mode`` is its own word for the era."""

    name: str
    """With its version, as the page has it."""

    mode: str
    program: str
    """The script beside this file, or ``inspector``."""

    eras: tuple[str, ...]
    """The revisions it is ready to speak, the one it prefers first."""

    def revision_with(self, offer: Offer) -> str | None:
        """What it has to end up with; None: it must refuse."""
        return next((one for one in self.eras if one in offer.revisions), None)


def _pinned(lock: str, package: str) -> str:
    """The version of a package that the tests are run with."""
    text = (ROOT / "requirements" / lock).read_text("utf-8")
    if lock.endswith(".json"):
        return str(json.loads(text)["dependencies"][package])
    found = re.search(rf"^{package}==([0-9.]+)", text, re.MULTILINE)
    assert found is not None
    return found[1]


def clients() -> list[Client]:
    """Every client in every mode."""
    npm = "node/package.json"
    names = {
        "mcp2": f"Python `mcp` {_pinned('test/mcp2.in', 'mcp')}",
        "mcp1": f"Python `mcp` {_pinned('test/mcp1.in', 'mcp')}",
        "fastmcp4": f"Python `fastmcp` {_pinned('test/fastmcp.in', 'fastmcp')}",
        "npm2": f"npm `client` {_pinned(npm, '@modelcontextprotocol/client')}",
        "inspector": f"Inspector {_pinned(npm, '@modelcontextprotocol/inspector')} `--cli`",
        "remote": f"`mcp-remote` {_pinned(npm, 'mcp-remote')}",
    }
    legacy, auto, modern = (SESSIONS,), (STATELESS, SESSIONS), (STATELESS,)
    modes = [("legacy", legacy), ("auto", auto), (STATELESS, modern)]
    found = [
        Client(names[program], mode, program, eras)
        for program in ("mcp2", "fastmcp4", "npm2")
        for mode, eras in modes
    ]
    found.append(Client(names["mcp1"], "legacy", "mcp1", legacy))
    found += [
        Client(names["inspector"], mode, "inspector", eras)
        for mode, eras in (("legacy", legacy), ("auto", auto), ("modern", modern))
    ]
    found.append(Client(names["remote"], "legacy", "mcp-remote", legacy))
    return found


@dataclass(frozen=True)
class Way:
    """How to reach a server: over HTTP with ``headers``, or by a ``command``."""

    url: str = ""
    headers: Mapping[str, str] | None = None
    command: tuple[str, ...] = ()
    env: Mapping[str, str] | None = None

    @property
    def target(self) -> Json:
        """As the scripts want it."""
        if self.url:
            return {"url": self.url, "headers": dict(self.headers or {})}
        return {"command": list(self.command), "env": dict(self.env or {})}


def look(client: Client, ways: Mapping[str, tuple[Offer, Way]], home: Path) -> dict[str, str]:
    """Point a client at some servers at the same time; gives, by the same names, the revision each
    connection ended up with. AssertionError with the client's own words where one does not work."""
    if client.program == "inspector":
        return {name: inspect(client, offer, way, home) for name, (offer, way) in ways.items()}
    if client.program == "mcp-remote":
        return through_mcp_remote(client, ways, home)
    return run_script(client.program, client, ways, home)


def run_script(
    script: str, client: Client, ways: Mapping[str, tuple[Offer, Way]], home: Path
) -> dict[str, str]:
    targets = {
        name: way.target | {"tool": offer.tool, "arguments": offer.arguments}
        for name, (offer, way) in ways.items()
    }
    ran = subprocess.run(
        _command(script),
        input=json.dumps({"mode": client.mode, "targets": targets}),
        env={**os.environ, "NODE_PATH": str(node_modules()), "HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    seen = json.loads(ran.stdout)
    assert seen.keys() == ways.keys()
    return {name: _judged(client, offer, seen[name]) for name, (offer, _) in ways.items()}


def _command(script: str) -> list[str]:
    if script == "npm2":
        return [str(node()), str(HERE / "npm2.cjs")]
    environment = "fastmcp" if script == "fastmcp4" else script
    return [str(python_of(environment)), str(HERE / f"{script}.py")]


def _judged(client: Client, offer: Offer, found: Json) -> str:
    wanted = client.revision_with(offer)
    if wanted is None:
        assert "does not speak the stateless protocol" in found["failed"]
        return NONE_IN_COMMON
    assert "failed" not in found, found["failed"]
    assert offer.tool in found["tools"]
    assert offer.text in found["text"], found["text"]
    if offer.id != "sqlite":  # which looks at the arguments first
        assert NO_TOOL in found["error"]
    assert found["version"] == wanted, (offer.id, found["version"])
    return wanted


def through_mcp_remote(
    client: Client, ways: Mapping[str, tuple[Offer, Way]], home: Path
) -> dict[str, str]:
    """It is a server to local clients; the one here is mcp 1."""
    commands = {}
    for name, (offer, way) in ways.items():
        headers = [f"{key}:{value}" for key, value in (way.headers or {}).items()]
        command = (*node_program("mcp-remote"), way.url, "--header", *headers, "--silent")
        commands[name] = (offer, Way(command=command, env={"HOME": str(home)}))
    return run_script("mcp1", client, commands, home)


def inspect(client: Client, offer: Offer, way: Way, home: Path) -> str:
    """Two runs of the inspector: it does one thing each time."""
    asking = _inspecting(client, way, home)
    if client.revision_with(offer) is None:
        refused = asking("tools/list")
        assert refused.returncode != 0
        assert "does not speak the stateless protocol" in refused.stderr + refused.stdout
        return NONE_IN_COMMON
    listed = asking("tools/list")
    assert listed.returncode == 0, listed.stderr
    assert offer.tool in {tool["name"] for tool in json.loads(listed.stdout)["tools"]}
    given = [f"{name}={_plain(value)}" for name, value in offer.arguments.items()]
    called = asking("tools/call", "--tool-name", offer.tool, "--tool-arg", *given)
    assert called.returncode == 0, called.stderr
    assert offer.text in json.loads(called.stdout)["content"][0]["text"]
    return WORKS


def _inspecting(client: Client, way: Way, home: Path) -> Any:
    # Behind the target, as otherwise a list of options takes the target for one of its own.
    where = [way.url] if way.url else list(way.command)
    headers = [f"{name}: {value}" for name, value in (way.headers or {}).items()]
    options = ["--header", *headers] if headers else []
    for name, value in (way.env or {}).items():
        options += ["-e", f"{name}={value}"]

    def ask(method: str, *more: str) -> subprocess.CompletedProcess[str]:
        asked = ["--protocol-era", client.mode, "--method", method, *more]
        return subprocess.run(
            [*node_program("mcp-inspector"), "--cli", *where, *options, *asked],
            env={"HOME": str(home), "PATH": os.defpath},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )

    return ask


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
