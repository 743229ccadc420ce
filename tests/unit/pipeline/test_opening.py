"""``initialize`` is answered from the server's own handshake."""

import json

import pytest
from msgspec import Raw

from open_mcp_gateway.outbound.peer import Handshake
from open_mcp_gateway.pipeline.opening import initialize_result
from open_mcp_gateway.protocol.eras import Era

DISCOVERED = {
    "supportedVersions": ["2026-07-28"],
    "capabilities": {"tools": {}},
    "instructions": "be kind",
    "_meta": {"io.modelcontextprotocol/serverInfo": {"name": "s", "version": "1"}},
}


def modern(result: dict[str, object]) -> Handshake:
    return Handshake(era=Era.MODERN, version="2026-07-28", result=json.dumps(result).encode())


def test_a_session_era_result_passes_byte_for_byte() -> None:
    shake = Handshake(era=Era.LEGACY, version="2025-06-18", result=b'{ "x" : 1.0 }')
    assert initialize_result(shake, None) == b'{ "x" : 1.0 }'


@pytest.mark.parametrize(
    ("asked", "answered"),
    [
        (None, "2025-11-25"),
        ({}, "2025-11-25"),
        ({"protocolVersion": Raw(b'"2024-11-05"')}, "2024-11-05"),
        ({"protocolVersion": Raw(b'"2026-07-28"')}, "2025-11-25"),
        ({"protocolVersion": Raw(b"7")}, "2025-11-25"),
    ],
)
def test_a_stateless_server_gets_a_result_of_the_session_era(
    asked: dict[str, Raw] | None, answered: str
) -> None:
    result = json.loads(initialize_result(modern(dict(DISCOVERED)), asked))
    assert result == {
        "protocolVersion": answered,
        "capabilities": {"tools": {}},
        "serverInfo": {"name": "s", "version": "1"},
        "instructions": "be kind",
    }


def test_what_a_stateless_server_leaves_out_gets_a_neutral_value() -> None:
    result = json.loads(initialize_result(modern({}), None))
    assert result["capabilities"] == {}
    assert result["serverInfo"]["name"] == "unknown"
    assert "instructions" not in result
