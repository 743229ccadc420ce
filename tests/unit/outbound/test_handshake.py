"""Which answers mean which era."""

from __future__ import annotations

import json

import pytest

from open_mcp_gateway.outbound.handshake import (
    AskAgain,
    NotModern,
    NoWay,
    judge_discovery,
    read_initialize,
    versions_of,
)
from open_mcp_gateway.outbound.peer import Handshake
from open_mcp_gateway.protocol.eras import LEGACY_VERSIONS, Era

MODERN = "2026-07-28"


def ok(**result: object) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}).encode()


def error(code: int, message: str = "no", **data: object) -> bytes:
    body = {"code": code, "message": message} | ({"data": data} if data else {})
    return json.dumps({"jsonrpc": "2.0", "id": 1, "error": body}).encode()


def discovered(*versions: str) -> bytes:
    return ok(supportedVersions=list(versions), capabilities={})


@pytest.mark.parametrize("versions", [[MODERN], ["2024-11-05", MODERN, "2099-01-01"]])
def test_a_discover_result_with_a_version_we_speak_is_modern(versions: list[str]) -> None:
    judged = judge_discovery(discovered(*versions))
    assert isinstance(judged, Handshake)
    assert (judged.era, judged.version) == (Era.MODERN, MODERN)
    assert json.loads(judged.result)["supportedVersions"] == versions


@pytest.mark.parametrize(
    "answer",
    [
        error(-32601),
        error(-32602, "Invalid request parameters"),
        error(-32600),
        error(-32000),
        error(0),
        error(-32022),
        error(-32022, supported="2026-07-28"),
        error(-32022, supported=[]),
        error(-32022, supported=["2025-11-25"]),
        error(-32022, supported=["2099-01-01", "2024-11-05"]),
        discovered("2025-11-25", "2025-06-18"),
        discovered(),
        ok(),
        ok(tools=[]),
        b'{"jsonrpc":"2.0","id":1,"result":null}',
        b'{"jsonrpc":"2.0","id":1,"error":"no"}',
        b'{"jsonrpc":"2.0","id":1,"error":{"code":"x"}}',
    ],
)
def test_anything_else_means_initialize(answer: bytes) -> None:
    assert judge_discovery(answer) == NotModern()


def test_another_version_is_asked_for_again() -> None:
    assert judge_discovery(error(-32022, supported=["2025-11-25", MODERN])) == AskAgain(MODERN)
    assert judge_discovery(error(-32020)) == AskAgain(MODERN)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (error(-32022, supported=["2099-01-01"]), "2099-01-01"),
        (discovered("2099-01-01"), "2099-01-01"),
        (error(-32021, "needs sampling"), "needs sampling"),
    ],
)
def test_a_modern_server_that_cannot_be_spoken_to_is_not_tried_otherwise(
    answer: bytes, reason: str
) -> None:
    judged = judge_discovery(answer)
    assert isinstance(judged, NoWay)
    assert reason in judged.reason


@pytest.mark.parametrize("version", LEGACY_VERSIONS)
def test_initialize_may_settle_on_any_legacy_version(version: str) -> None:
    agreed = read_initialize(ok(protocolVersion=version, serverInfo={"name": "é"}))
    assert isinstance(agreed, Handshake)
    assert (agreed.era, agreed.version) == (Era.LEGACY, version)
    assert json.loads(agreed.result)["serverInfo"] == {"name": "é"}


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (ok(protocolVersion="2023-01-01"), "'2023-01-01'"),
        (ok(protocolVersion=MODERN), "2026-07-28"),
        (ok(), "without a protocolVersion"),
        (ok(protocolVersion=5), "without a protocolVersion"),
        (error(-32603, "no licence"), "no licence (code -32603)"),
        (error(-32603, "x" * 10_000), "x" * 300 + " (code"),
    ],
)
def test_a_failed_initialize_says_why(answer: bytes, reason: str) -> None:
    agreed = read_initialize(answer)
    assert isinstance(agreed, NoWay)
    assert reason in agreed.reason
    assert len(agreed.reason) < 500


def test_what_a_server_lists_is_kept_within_bounds() -> None:
    listed = [f"2099-01-{day:02}" for day in range(1, 99)]
    judged = judge_discovery(discovered("2025-11-25", "x" * 1000, *listed, MODERN))
    assert isinstance(judged, Handshake)
    assert versions_of(judged) == (MODERN, *listed[:16])
    agreed = read_initialize(ok(protocolVersion="2025-06-18"))
    assert isinstance(agreed, Handshake)
    assert versions_of(agreed) == ("2025-06-18",)
