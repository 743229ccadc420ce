"""The era of a message: its body counts first."""

import pytest
from msgspec import Raw

from open_mcp_gateway.protocol.classify import claims_modern, era_of, outside_sessions
from open_mcp_gateway.protocol.eras import Era
from open_mcp_gateway.protocol.jsonrpc import Params

CLAIM: Params = {"_meta": Raw(b'{"io.modelcontextprotocol/protocolVersion":"2026-07-28"}')}
NO_CLAIM: Params = {"_meta": Raw(b'{"progressToken":1}')}


@pytest.mark.parametrize(
    ("method", "params", "header", "era"),
    [
        ("tools/list", CLAIM, "2026-07-28", Era.MODERN),
        ("tools/list", CLAIM, None, Era.MODERN),
        ("tools/list", CLAIM, "2025-11-25", Era.MODERN),
        ("initialize", CLAIM, None, Era.MODERN),
        ("initialize", None, "2026-07-28", Era.LEGACY),
        ("initialize", {}, None, Era.LEGACY),
        ("tools/list", NO_CLAIM, "2026-07-28", Era.MODERN),
        ("tools/list", None, "2099-01-01", Era.MODERN),
        ("tools/list", None, "2025-06-18", Era.LEGACY),
        ("tools/list", None, None, Era.LEGACY),
    ],
)
def test_the_era_of_a_message(
    method: str, params: Params | None, header: str | None, era: Era
) -> None:
    assert era_of(method, params, outside=outside_sessions(header)) is era


def test_a_meta_that_is_no_object_claims_nothing() -> None:
    assert not claims_modern({"_meta": Raw(b"7")})
