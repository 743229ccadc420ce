"""What belongs to a connection in ``_meta`` is taken out and minted anew."""

import json

import pytest
from msgspec import Raw

from open_mcp_gateway.errors import InvalidRequest
from open_mcp_gateway.protocol.jsonrpc import encode_params
from open_mcp_gateway.protocol.meta import (
    CLIENT_INFO,
    CONNECTION_OWNED,
    PROTOCOL_VERSION,
    modern_meta,
    modern_params,
    without_connection_owned,
)

MINTED = modern_meta("2026-07-28", b"{}", b'{"name":"gateway"}')


def meta(members: dict[str, object]) -> dict[str, Raw]:
    return {"name": Raw(b'"x"'), "_meta": Raw(json.dumps(members).encode())}


def test_owned_members_go_and_others_stay_as_written() -> None:
    params = {"_meta": Raw(b'{"progressToken": 1, "acme/x": { "a" : 1.0 }, "traceparent":"00"}')}
    kept = encode_params(without_connection_owned(params))
    assert kept == b'{"_meta":{"acme/x":{ "a" : 1.0 },"traceparent":"00"}}'


def test_owned_members_go_in_whichever_spelling() -> None:
    owned = {name.upper(): 1 for name in CONNECTION_OWNED} | {"progress_token": 1}
    params = without_connection_owned(meta({**owned, "acme/x": 1}))
    assert encode_params(params) == b'{"name":"x","_meta":{"acme/x":1}}'


def test_a_meta_with_nothing_left_goes_altogether() -> None:
    params = without_connection_owned(meta(dict.fromkeys(CONNECTION_OWNED, 1)))
    assert encode_params(params) == b'{"name":"x"}'


@pytest.mark.parametrize("params", [None, {"name": Raw(b'"x"')}])
def test_without_meta_nothing_changes(params: dict[str, Raw] | None) -> None:
    assert without_connection_owned(params) is params


def test_a_meta_that_is_no_object_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="_meta"):
        without_connection_owned({"_meta": Raw(b"[]")})


@pytest.mark.parametrize("params", [None, {"name": Raw(b'"x"')}, meta({"acme/x": 1})])
def test_a_modern_request_carries_what_was_minted(params: dict[str, Raw] | None) -> None:
    read = json.loads(encode_params(modern_params(params, MINTED)) or b"")
    assert read["_meta"][PROTOCOL_VERSION] == "2026-07-28"
    assert read["_meta"][CLIENT_INFO] == {"name": "gateway"}
    assert set(read) - {"_meta"} == set(params or {}) - {"_meta"}
    if params and "_meta" in params:
        assert read["_meta"]["acme/x"] == 1


def test_what_is_minted_wins_over_what_a_caller_claims() -> None:
    read = json.loads(encode_params(modern_params(meta({PROTOCOL_VERSION: "1999"}), MINTED)) or b"")
    assert read["_meta"][PROTOCOL_VERSION] == "2026-07-28"
