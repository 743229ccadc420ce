"""``gateway-stdio --gateway`` behind what stands before a gateway and answers in its place."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.wire.mcp_client import CAPABILITIES, MODERN, VERSION
from tests.wire.remotes import Line, Request, modern, plain, raw_server, sessions

pytestmark = pytest.mark.anyio

OPENING = {"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "a"}}


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.mark.parametrize("status", ["502 Bad Gateway", "504 Gateway Timeout"])
@pytest.mark.parametrize("stateless", [False, True])
async def test_a_call_that_may_have_acted_is_not_sent_again(status: str, stateless: bool) -> None:
    async def behave(request: Request, line: Line) -> None:
        if request.method == "tools/call":
            await line.reply(b"<html></html>", status)
        else:
            await plain(request, line)

    async with raw_server(modern(behave) if stateless else sessions(behave)) as server:
        program = await asyncio.create_subprocess_exec(
            Path(sys.executable).with_name("gateway-stdio"),
            *("--server", "x", "--gateway", f"http://{urlsplit(server.url).netloc}"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        assert program.stdin is not None
        assert program.stdout is not None

        def send(**message: Any) -> None:
            assert program.stdin is not None
            program.stdin.write(json.dumps({"jsonrpc": "2.0"} | message).encode() + b"\n")

        params: dict[str, Any] = {"name": "pay", "arguments": {}}
        if stateless:
            params["_meta"] = {VERSION: MODERN, CAPABILITIES: {}}
        else:
            send(id=1, method="initialize", params=OPENING)
            await asyncio.wait_for(program.stdout.readline(), 30)
            send(method="notifications/initialized")
        send(id=7, method="tools/call", params=params)
        said = json.loads(await asyncio.wait_for(program.stdout.readline(), 30))
        program.stdin.close()
        assert await asyncio.wait_for(program.wait(), 30) == 0
        assert said["id"] == 7
        assert "may have taken effect" in said["error"]["message"]
        assert server.methods().count("tools/call") == 1
