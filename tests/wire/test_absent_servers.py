"""Sessions of a remote server that is not there any more."""

from __future__ import annotations

import contextlib

import anyio.to_thread
import pytest

from tests.wire.conftest import MakeClient
from tests.wire.faces import Face, face
from tests.wire.mcp_client import Client, Json, remote
from tests.wire.remotes import plain, raw_server, sessions

pytestmark = pytest.mark.anyio

UNREACHABLE = "Server 'x' cannot be reached: connection refused at "


async def test_a_session_opens_by_the_handshake_known_and_its_first_call_says_what_is_wrong(
    client: MakeClient,
) -> None:
    with contextlib.ExitStack() as stack:
        async with raw_server(sessions(plain)) as server:
            front = stack.enter_context(face("hot", remote("x", server.url)))
            known = await anyio.to_thread.run_sync(_opened, client, front)
        absent = await anyio.to_thread.run_sync(_opened, client, front)
        for caller in (absent, known):
            error = await anyio.to_thread.run_sync(_error, caller)
            assert (error["code"], error["data"]["code"]) == (-32002, "upstream_unavailable")
            assert error["message"].startswith(UNREACHABLE)


def _opened(client: MakeClient, front: Face) -> Client:
    opened = client(front, "x").initialize()
    assert opened.session is not None
    return opened


def _error(client: Client) -> Json:
    return client.ask("tools/list").error
