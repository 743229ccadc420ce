"""In which order the questions of a handshake are asked, and what they are asked with."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from open_mcp_gateway import __version__
from open_mcp_gateway.errors import UpstreamBroken
from open_mcp_gateway.outbound.greeting import DiedAsking, Greeting, Plan, greet
from open_mcp_gateway.outbound.handshake import NoWay
from open_mcp_gateway.outbound.peer import Handshake, Manner
from open_mcp_gateway.protocol.eras import Era
from open_mcp_gateway.protocol.jsonrpc import Params

MODERN = "2026-07-28"
SILENCE = None


def ok(**result: object) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}).encode()


def error(code: int, message: str = "no", **data: object) -> bytes:
    body = {"code": code, "message": message} | ({"data": data} if data else {})
    return json.dumps({"jsonrpc": "2.0", "id": 1, "error": body}).encode()


def discovered(*versions: str) -> bytes:
    return ok(supportedVersions=list(versions), capabilities={})


class Dies(Exception):
    """What a scripted server does instead of answering."""


Script = Callable[[str, dict[str, Any], int], bytes | None]


class Server:
    """A Conversation in memory: ``script`` answers (method, params, how often asked before)."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.asked: list[str] = []
        self.told: list[str] = []
        self.params: list[dict[str, Any]] = []
        self.waited: list[float | None] = []
        self.abandoned = 0

    def ask(self, method: str, params: Params | None) -> Inquiry:
        decoded = msgspec.json.decode(msgspec.json.encode(params))
        self.asked.append(method)
        self.params.append(decoded)
        return Inquiry(self, method, decoded)

    def tell(self, method: str, params: Params | None) -> None:
        assert params is None
        self.told.append(method)


class Inquiry:
    def __init__(self, server: Server, method: str, params: dict[str, Any]) -> None:
        self.server = server
        self.method = method
        self.params = params
        self.times = 0

    async def within(self, seconds: float | None) -> bytes | None:
        self.server.waited.append(seconds)
        self.times += 1
        try:
            return self.server.script(self.method, self.params, self.times)
        except Dies:
            raise UpstreamBroken("gone") from None

    def abandon(self) -> None:
        self.server.abandoned += 1


async def greeted(server: Server, plan: Plan) -> Greeting:
    return await greet(server, plan, silence_s=3.0)


def modern(method: str, _params: object, _times: int) -> bytes | None:
    return discovered(MODERN) if method == "server/discover" else error(-32022, supported=[MODERN])


def legacy(method: str, _params: object, _times: int) -> bytes | None:
    initialize = method == "initialize"
    return ok(protocolVersion="2025-06-18") if initialize else error(-32602)


@pytest.mark.anyio
async def test_a_modern_server_is_asked_once() -> None:
    server = Server(modern)
    assert isinstance(await greeted(server, Plan.FIND_OUT), Handshake)
    assert (server.asked, server.told) == (["server/discover"], [])
    assert server.params == [
        {
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": MODERN,
                "io.modelcontextprotocol/clientCapabilities": {},
                "io.modelcontextprotocol/clientInfo": {
                    "name": "open-mcp-gateway",
                    "version": __version__,
                },
            }
        }
    ]


@pytest.mark.anyio
@pytest.mark.parametrize("plan", [Plan.FIND_OUT, Plan.MODERN_FIRST])
async def test_a_legacy_server_is_initialized_on_the_same_connection(plan: Plan) -> None:
    server = Server(legacy)
    agreed = await greeted(server, plan)
    assert isinstance(agreed, Handshake)
    assert agreed.version == "2025-06-18"
    assert server.asked == ["server/discover", "initialize"]
    assert server.told == ["notifications/initialized"]
    assert server.params[1] == {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "open-mcp-gateway", "version": __version__},
    }


@pytest.mark.anyio
async def test_a_known_legacy_server_is_not_probed() -> None:
    server = Server(legacy)
    assert isinstance(await greeted(server, Plan.LEGACY_ONLY), Handshake)
    assert server.asked == ["initialize"]


@pytest.mark.anyio
async def test_capabilities_are_sent_in_either_era() -> None:
    for script, plan in ((modern, Plan.FIND_OUT), (legacy, Plan.LEGACY_ONLY)):
        server = Server(script)
        await greet(server, plan, silence_s=1, manner=Manner(capabilities=b'{"roots":{}}'))
        sent = server.params[0]
        meta = sent.get("_meta", {}).get("io.modelcontextprotocol/clientCapabilities")
        assert (meta or sent["capabilities"]) == {"roots": {}}


@pytest.mark.anyio
async def test_silence_means_initialize_and_the_late_answer_is_dropped() -> None:
    def silent(method: str, params: dict[str, Any], times: int) -> bytes | None:
        return SILENCE if method == "server/discover" else legacy(method, params, times)

    server = Server(silent)
    agreed = await greeted(server, Plan.FIND_OUT)
    assert isinstance(agreed, Handshake)
    assert agreed.era is Era.LEGACY
    assert server.waited == [3.0, None]
    assert server.abandoned == 1


@pytest.mark.anyio
async def test_a_slow_modern_server_is_known_by_its_late_answer() -> None:
    def slow(method: str, params: dict[str, Any], times: int) -> bytes | None:
        if method == "server/discover" and times == 1:
            return SILENCE
        return modern(method, params, times)

    agreed = await greeted(Server(slow), Plan.FIND_OUT)
    assert isinstance(agreed, Handshake)
    assert agreed.era is Era.MODERN


@pytest.mark.anyio
async def test_a_server_silent_to_the_probe_that_refuses_initialize_is_quoted() -> None:
    def refusing(method: str, _params: object, _times: int) -> bytes | None:
        return SILENCE if method == "server/discover" else error(-32603, "no licence")

    agreed = await greeted(Server(refusing), Plan.FIND_OUT)
    assert isinstance(agreed, NoWay)
    assert "no licence" in agreed.reason


@pytest.mark.anyio
async def test_a_known_modern_server_is_given_all_the_time_it_takes() -> None:
    server = Server(modern)
    await greeted(server, Plan.MODERN_FIRST)
    assert server.waited == [None]


@pytest.mark.anyio
async def test_asking_again_happens_once() -> None:
    def corrected(_method: str, _params: object, _times: int) -> bytes | None:
        first = len(server.asked) == 1
        return error(-32022, supported=[MODERN]) if first else discovered(MODERN)

    server = Server(corrected)
    assert isinstance(await greeted(server, Plan.FIND_OUT), Handshake)
    server = Server(lambda *_: error(-32020))
    assert isinstance(await greeted(server, Plan.FIND_OUT), NoWay)
    assert server.asked == ["server/discover"] * 2


@pytest.mark.anyio
async def test_the_catalog_can_insist_on_modern() -> None:
    server = Server(legacy)
    assert isinstance(await greeted(server, Plan.MODERN_ONLY), NoWay)
    assert server.asked == ["server/discover"]


def dies(*_: object) -> bytes | None:
    raise Dies


@pytest.mark.anyio
async def test_death_on_the_first_question_is_told_apart_where_it_says_something() -> None:
    assert await greeted(Server(dies), Plan.FIND_OUT) == DiedAsking()
    for plan in (Plan.MODERN_FIRST, Plan.MODERN_ONLY, Plan.LEGACY_ONLY):
        with pytest.raises(UpstreamBroken):
            await greeted(Server(dies), plan)


@pytest.mark.anyio
async def test_death_on_initialize_after_silence_is_that_of_the_first_question() -> None:
    def slow_then_dies(method: str, _params: object, _times: int) -> bytes | None:
        if method == "initialize":
            raise Dies
        return SILENCE

    assert await greeted(Server(slow_then_dies), Plan.FIND_OUT) == DiedAsking()


@pytest.mark.anyio
async def test_the_version_asked_for_is_the_one_that_is_offered() -> None:
    server = Server(legacy)
    manner = Manner(era=Era.LEGACY, version="2024-11-05")
    await greet(server, Plan.LEGACY_FIRST, silence_s=1, manner=manner)
    assert [sent["protocolVersion"] for sent in server.params] == ["2024-11-05"]


@pytest.mark.anyio
async def test_a_server_that_refuses_initialize_is_asked_whether_it_is_modern() -> None:
    server = Server(modern)
    agreed = await greeted(server, Plan.LEGACY_FIRST)
    assert isinstance(agreed, Handshake)
    assert agreed.era is Era.MODERN
    assert server.asked == ["initialize", "server/discover"]
    assert server.waited == [None, 3.0]


def no_licence(_method: str, _params: object, _times: int) -> bytes | None:
    return error(-32603, "no licence")


def no_licence_then_dies(method: str, _params: object, _times: int) -> bytes | None:
    if method == "server/discover":
        raise Dies
    return error(-32603, "no licence")


def no_licence_then_silent(method: str, _params: object, _times: int) -> bytes | None:
    return SILENCE if method == "server/discover" else error(-32603, "no licence")


@pytest.mark.anyio
@pytest.mark.parametrize("script", [no_licence, no_licence_then_dies, no_licence_then_silent])
async def test_a_refusal_that_says_nothing_about_the_era_is_quoted(script: Script) -> None:
    agreed = await greeted(Server(script), Plan.LEGACY_FIRST)
    assert isinstance(agreed, NoWay)
    assert "no licence" in agreed.reason


@pytest.mark.anyio
async def test_death_on_initialize_is_no_verdict() -> None:
    with pytest.raises(UpstreamBroken):
        await greeted(Server(dies), Plan.LEGACY_FIRST)
