"""The first message that gets somewhere decides the era of a connection."""

from __future__ import annotations

import pytest
from msgspec import Raw

from open_mcp_gateway.errors import InvalidRequest, UnsupportedVersion
from open_mcp_gateway.inbound.stdio_era import ConnectionEra
from open_mcp_gateway.protocol.eras import Era
from open_mcp_gateway.protocol.jsonrpc import Call

META = {"_meta": Raw(b'{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}')}
HELLO = Call("initialize", b"1", {"protocolVersion": Raw(b'"2025-11-25"')})
MODERN_CALL = Call("server/discover", b"2", META)
PLAIN_CALL = Call("tools/list", b"3")


def is_opening(era: ConnectionEra) -> bool:
    """Asked anew each time, which a type checker does not expect of a property."""
    return era.opening


def test_nothing_is_decided_at_first() -> None:
    era = ConnectionEra()
    assert era.decided is None
    assert era.of(HELLO) is Era.LEGACY
    assert era.of(MODERN_CALL) is Era.MODERN
    assert era.of(PLAIN_CALL) is None
    assert era.decided is None
    assert not is_opening(era)


def test_a_session() -> None:
    era = ConnectionEra()
    era.opens(b"1")
    era.finished(b"2", opened=False)  # an earlier request, of neither era
    assert is_opening(era)
    era.finished(b"1", opened=True)
    assert not is_opening(era)
    assert era.of(PLAIN_CALL) is Era.LEGACY
    era.spoke_modern()  # the late answer to an opener that was given up
    assert era.decided is Era.LEGACY
    with pytest.raises(InvalidRequest):
        era.of(MODERN_CALL)


def test_an_opening_that_failed_leaves_all_open() -> None:
    era = ConnectionEra()
    era.opens(b"1")
    era.finished(b"1", opened=False)
    assert era.of(MODERN_CALL) is Era.MODERN
    assert era.of(HELLO) is Era.LEGACY
    assert era.of(PLAIN_CALL) is None


def test_a_second_opening_changes_nothing() -> None:
    era = ConnectionEra()
    era.opens(b"1")
    era.finished(b"1", opened=True)
    era.opens(b"9")
    assert not is_opening(era)
    era.finished(b"9", opened=True)
    assert era.decided is Era.LEGACY


def test_stateless() -> None:
    era = ConnectionEra()
    era.spoke_modern()
    assert era.of(PLAIN_CALL) is Era.MODERN  # whose checks then refuse it
    with pytest.raises(UnsupportedVersion) as raised:
        era.of(HELLO)
    assert raised.value.data == {"supported": ["2026-07-28"], "requested": "2025-11-25"}
    with pytest.raises(UnsupportedVersion) as raised:
        era.of(Call("initialize", b"1"))
    assert raised.value.data == {"supported": ["2026-07-28"], "requested": ""}
