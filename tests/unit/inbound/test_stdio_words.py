"""The codes and words of failures on stdio."""

from __future__ import annotations

import json
from typing import Any

import pytest

from open_mcp_gateway.errors import (
    EraNotSpoken,
    GatewayError,
    InvalidRequest,
    NotFound,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from open_mcp_gateway.inbound.stdio_words import StdioWords
from open_mcp_gateway.outbound.link import DOUBT
from open_mcp_gateway.pipeline.endings import session_ended

ALONE = StdioWords("x", relayed=False)
RELAYED = StdioWords("x", relayed=True)


def told(error: GatewayError, *, modern: bool) -> Any:
    error.request_id = b'"id"'
    answer = json.loads(ALONE.failure(error, modern=modern))
    assert answer["id"] == "id"
    return answer["error"]


def test_a_session_era_client_has_codes_of_its_own() -> None:
    error = told(NotFound("gone"), modern=False)
    assert error["code"] == -32001
    assert error["message"] == "Server 'x' not found in catalog"
    error = told(UpstreamUnavailable("exit code 3"), modern=False)
    assert error["code"] == -32002
    assert error["message"] == "Failed to connect to server: exit code 3"
    assert error["data"]["code"] == "upstream_unavailable"


def test_a_stateless_client_has_them_in_the_detail() -> None:
    for failure, code in ((NotFound("gone"), -32001), (UpstreamUnavailable("down"), -32002)):
        error = told(failure, modern=True)
        assert error["code"] == -32603
        assert error["data"]["code"] == code
        assert error["data"]["message"] == error["message"]
        assert error["data"]["detail"]["code"] == failure.code


@pytest.mark.parametrize("modern", [False, True])
def test_other_failures_are_the_same_for_both(modern: bool) -> None:
    assert told(UpstreamTimeout("late"), modern=modern)["code"] == -32603
    error = told(InvalidRequest("odd"), modern=modern)
    assert (error["code"], error["message"]) == (-32600, "odd")


def test_a_server_of_the_other_era_makes_a_client_fall_back() -> None:
    error = told(EraNotSpoken("sessions only", spoken=("2025-11-25",)), modern=True)
    assert error["code"] == -32022
    assert error["data"] == {"supported": ["2025-11-25"], "requested": "2026-07-28"}


OURS = (
    b'{"jsonrpc":"2.0","id":7,"error":{"code":-32002,"message":"down",'
    b'"data":{"code":"upstream_unavailable","request_id":"r"}}}'
)


def test_only_what_is_not_in_the_catalog_is_said_not_to_be() -> None:
    error = told(session_ended("its key"), modern=False)
    assert (error["code"], error["message"]) == (-32603, "The session has ended: its key")
    assert error["data"]["code"] == "session_ended"


def test_a_call_whose_server_was_taken_from_its_caller_may_have_taken_effect() -> None:
    error = told(NotFound(f"gone{DOUBT}"), modern=False)
    assert error["message"] == f"Server 'x' not found in catalog{DOUBT}"


def test_failures_of_the_gateway_between_are_told_like_our_own() -> None:
    answer = json.loads(RELAYED.answer(OURS, modern=False))
    assert answer["id"] == 7
    assert answer["error"]["message"] == "Failed to connect to server: down"
    assert json.loads(RELAYED.answer(OURS, modern=True))["error"]["code"] == -32603


@pytest.mark.parametrize(
    "message",
    [
        b'{"jsonrpc":"2.0","id":7,"result":{"error":1,"request_id":"r"}}',
        b'{"jsonrpc":"2.0","id":7,"error":{"code":-32002,"message":"no such resource"}}',
        b'{"jsonrpc":"2.0","id":7,"error":{"code":-32002,"message":"m","data":"request_id"}}',
        b'{"jsonrpc":"2.0","id":7,"error":{"code":1,"message":"m","data":{"request_id":5}}}',
        b'{"jsonrpc":"2.0","id":7,"error":"request_id"}',
        OURS.replace(b"upstream_unavailable", b"upstream_timeout"),
    ],
)
def test_what_a_server_says_is_never_touched(message: bytes) -> None:
    assert RELAYED.answer(message, modern=False) is message
    assert ALONE.answer(OURS, modern=False) is OURS
