"""Clients for the tests of the MCP endpoint."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

from tests.wire.faces import Face
from tests.wire.mcp_client import Client


class MakeClient:
    """Makes clients, whose connections are closed at the end."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        self._stack = stack

    def __call__(self, face: Face, server_id: str, **more: Any) -> Client:
        return Client(face, server_id, self._stack, **more)

    def leave(self) -> None:
        """Close them now."""
        self._stack.close()


@pytest.fixture
def client() -> Iterator[MakeClient]:
    with contextlib.ExitStack() as stack:
        yield MakeClient(stack)
