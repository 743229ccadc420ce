"""What ends up in ``_meta`` of a request."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import Raw

from open_mcp_gateway.errors import InvalidRequest
from open_mcp_gateway.outbound.stamp import Stamp, with_progress
from open_mcp_gateway.protocol.jsonrpc import Call, Params, encode

VERSION = "io.modelcontextprotocol/protocolVersion"
CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
INFO = "io.modelcontextprotocol/clientInfo"
LEVEL = "io.modelcontextprotocol/logLevel"


def meta_of(params: Params) -> dict[str, Any]:
    meta: dict[str, Any] = json.loads(encode(params))["_meta"]
    return meta


@pytest.mark.parametrize("params", [None, {}, {"name": Raw(b'"t"')}, {"_meta": Raw(b"{}")}])
def test_every_stateless_request_says_who_asks(params: Params | None) -> None:
    stamped = Stamp("2026-07-28").params(Call("tools/call", b"1", params), 5)
    meta = meta_of(stamped)
    assert meta.pop(INFO)["name"] == "open-mcp-gateway"
    assert meta == {VERSION: "2026-07-28", CAPABILITIES: {}}
    assert {name for name in stamped if name != "_meta"} == set(params or ()) - {"_meta"}


def test_what_a_call_asks_for_is_its_own_and_leaves_no_trace_on_the_next() -> None:
    stamp = Stamp("2026-07-28")
    call = Call(
        "tools/call",
        b"1",
        {"_meta": Raw(b'{"v/x":1.0}')},
        progress_token=Raw(b'"mine"'),
        capabilities=Raw(b'{"roots":{}}'),
        log_level=Raw(b'"info"'),
    )
    meta = meta_of(stamp.params(call, 5))
    assert meta["v/x"] == 1
    assert (meta[CAPABILITIES], meta[LEVEL], meta["progressToken"]) == ({"roots": {}}, "info", 5)
    again = meta_of(stamp.params(Call("tools/call", b"1"), 6))
    assert set(again) == {VERSION, CAPABILITIES, INFO}
    assert set(meta_of(stamp.own_params())) == set(again)


def test_in_the_session_era_there_is_but_the_token() -> None:
    assert meta_of(with_progress(None, 5)) == {"progressToken": 5}
    params = {"name": Raw(b'"t"'), "_meta": Raw(b'{"v/x":[ 1.0 ]}')}
    assert encode(with_progress(params, 6)) == (
        b'{"name":"t","_meta":{"v/x":[ 1.0 ],"progressToken":6}}'
    )


def test_meta_that_is_no_object_is_refused() -> None:
    with pytest.raises(InvalidRequest):
        with_progress({"_meta": Raw(b"[]")}, 1)
