"""A caller whose key was changed while its request was on the way is told nothing."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from open_mcp_gateway.access.keyring import Keyring
from open_mcp_gateway.access.policy import platform_admin
from open_mcp_gateway.auth.apikeys import digest_of
from open_mcp_gateway.catalog.model import Snapshot
from open_mcp_gateway.errors import WrongKey
from open_mcp_gateway.inbound.arrival import Arrival
from open_mcp_gateway.inbound.explaining import Explaining
from open_mcp_gateway.inbound.handlers import Request
from open_mcp_gateway.inbound.whoami import Whoami

RECORD = platform_admin(digest_of(b"test-key-caller"))
BEFORE = Keyring([], [RECORD], lambda: 0.0)
ASKER = BEFORE.principal(RECORD)
GONE = Keyring([], [], lambda: 0.0)
CHANGED = BEFORE.changed([replace(RECORD, role="viewer")])

pytestmark = pytest.mark.anyio


def request() -> Request:
    arrival = Arrival(b"POST", b"/auth/explain", [], "127.0.0.1:1")
    return Request("", b"", b'{"action":"keys:read"}', arrival)


@pytest.mark.parametrize("ring", [GONE, CHANGED], ids=["gone", "changed"])
async def test_no_explanation(ring: Keyring) -> None:
    explaining = Explaining(keyring=lambda: ring, catalog=Snapshot, now=lambda: 0.0)
    with pytest.raises(WrongKey, match="Invalid API key"):
        await explaining.answer(ASKER, request())


async def test_no_identity() -> None:
    with pytest.raises(WrongKey, match="Invalid API key"):
        await Whoami(keyring=lambda: GONE, now=lambda: 0.0).show(ASKER, request())
