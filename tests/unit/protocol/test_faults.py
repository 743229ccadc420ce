"""Every failure has one row, and its bodies say what is promised."""

import json

from open_mcp_gateway.errors import Denied, NotFound, Unauthenticated, UpstreamTimeout, WrongKey
from open_mcp_gateway.protocol.faults import FAULTS, management_body, rpc_body


def test_the_two_exact_bodies() -> None:
    assert management_body(Unauthenticated("x"), "r") == (
        b'{"error":"Unauthorized","message":"API key required"}'
    )
    assert management_body(WrongKey("x"), "r") == (
        b'{"error":"Forbidden","message":"Invalid API key"}'
    )


def test_a_management_body_names_the_failure() -> None:
    body = json.loads(management_body(NotFound("Server 'x' not found"), "r1"))
    assert body == {
        "error": "Not Found",
        "message": "Server 'x' not found",
        "code": "not_found",
        "request_id": "r1",
    }


def test_a_denial_names_permission_and_resource_in_both_families() -> None:
    error = Denied("no", permission="mcp:call", resource="server/x", key_id="k")
    assert json.loads(management_body(error, "r"))["permission"] == "mcp:call"
    assert json.loads(rpc_body(error, "r"))["error"]["data"]["resource"] == "server/x"


def test_an_rpc_body_carries_the_id_of_its_request() -> None:
    error = UpstreamTimeout("late")
    assert json.loads(rpc_body(error, "r"))["id"] is None
    error.request_id = b'"a"'
    assert json.loads(rpc_body(error, "r"))["id"] == "a"
    assert FAULTS[UpstreamTimeout].status == 504
