"""The example server, message by message."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest

from open_mcp_gateway.examples.demo_server import (
    CAPABILITIES_KEY,
    MODERN_VERSION,
    VERSION_KEY,
    answer,
    serve,
)

MODERN = {VERSION_KEY: MODERN_VERSION, CAPABILITIES_KEY: {}}


def ask(method: str, *, meta: object = None, **params: object) -> dict[str, Any]:
    """The response to one request with id 7."""
    if meta is not None:
        params["_meta"] = meta
    request = {"jsonrpc": "2.0", "id": 7, "method": method, "params": params}
    response = answer(json.dumps(request).encode())
    assert response is not None
    assert response["id"] == 7
    return response


def call(name: str, **arguments: object) -> dict[str, Any]:
    result: dict[str, Any] = ask("tools/call", name=name, arguments=arguments)["result"]
    return result


@pytest.mark.parametrize(
    ("asked", "given"),
    [("2024-11-05", "2024-11-05"), ("2025-06-18", "2025-06-18"), ("1999-01-01", "2025-11-25")],
)
def test_initialize_takes_known_versions_and_offers_its_newest(asked: str, given: str) -> None:
    assert ask("initialize", protocolVersion=asked)["result"]["protocolVersion"] == given


def test_discover_answers_with_what_every_modern_result_carries() -> None:
    result = ask("server/discover", meta=MODERN)["result"]
    assert result["supportedVersions"] == [MODERN_VERSION]
    assert result["resultType"] == "complete"
    assert result["ttlMs"] >= 0
    assert result["_meta"]["io.modelcontextprotocol/serverInfo"]["name"]


@pytest.mark.parametrize(
    ("meta", "code"),
    [
        ({VERSION_KEY: MODERN_VERSION}, -32602),
        ({VERSION_KEY: 1, CAPABILITIES_KEY: {}}, -32602),
        ({VERSION_KEY: "2099-01-01", CAPABILITIES_KEY: {}}, -32022),
        ("text", -32602),
    ],
)
def test_modern_requests_are_checked_in_order(meta: object, code: int) -> None:
    assert ask("tools/list", meta=meta)["error"]["code"] == code


def test_an_unsupported_version_is_told_what_is_supported() -> None:
    error = ask("tools/list", meta={VERSION_KEY: "2099-01-01", CAPABILITIES_KEY: {}})["error"]
    assert error["data"] == {"supported": [MODERN_VERSION], "requested": "2099-01-01"}


@pytest.mark.parametrize("method", ["initialize", "ping", "resources/list"])
def test_methods_of_the_other_era_are_unknown(method: str) -> None:
    assert ask(method, meta=MODERN)["error"]["code"] == -32601


def test_lists_are_the_same_in_both_eras() -> None:
    legacy, modern = ask("tools/list")["result"], ask("tools/list", meta=MODERN)["result"]
    assert legacy["tools"] == modern["tools"]
    assert set(legacy) == {"tools"}
    assert modern["resultType"] == "complete"


def test_tools() -> None:
    assert call("echo", text="a\ud800\u2028b")["content"][0]["text"] == "a\ud800\u2028b"
    assert call("add", a=1, b=2)["structuredContent"] == {"sum": 3}
    assert call("now")["content"][0]["text"].endswith("+00:00")
    assert 1 <= int(call("roll_dice", sides=2)["content"][0]["text"]) <= 2


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("echo", {}),
        ("add", {"a": True, "b": 1}),
        ("add", {"a": 2**53 + 1, "b": 1}),
        ("roll_dice", {"sides": 1}),
        ("roll_dice", {"sides": 2.5}),
    ],
)
def test_bad_arguments_are_results_that_say_so(name: str, arguments: dict[str, object]) -> None:
    result = call(name, **arguments)
    assert result["isError"] is True
    assert "must be" in result["content"][0]["text"]


def test_unknown_tool() -> None:
    assert ask("tools/call", name="rm")["error"]["code"] == -32602


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"{", -32700),
        (b"\xff", -32700),
        (b"[" * 100_000, -32700),
        (b'{"id":1,"method":"tools/call","params":{"x":NaN}}', -32700),
        (b"[]", -32600),
        (b"{}", -32600),
        (b'{"id":true,"method":"ping"}', -32600),
        (b'{"id":1,"method":2}', -32600),
        (b'{"id":1.5,"method":"ping"}', -32600),
    ],
)
def test_what_is_no_request_is_refused_without_an_id(line: bytes, code: int) -> None:
    response = answer(line)
    assert response is not None
    assert (response["id"], response["error"]["code"]) == (None, code)


@pytest.mark.parametrize(
    "line", [b'{"method":"notifications/initialized"}', b'{"id":1,"result":{}}']
)
def test_notifications_and_responses_get_no_answer(line: bytes) -> None:
    assert answer(line) is None


def test_it_answers_line_by_line_until_its_input_ends() -> None:
    out = io.BytesIO()
    serve([b"\n", b'{"id":1,"method":"ping"}\n', b'{"id":"a","method":"ping"}\n'], out)
    assert [json.loads(line)["id"] for line in out.getvalue().splitlines()] == [1, "a"]
