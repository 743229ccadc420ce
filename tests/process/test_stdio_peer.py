"""Real servers over stdio, well-behaved and not, on both event loops."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from msgspec import Raw
from msgspec.structs import replace

from open_mcp_gateway.catalog.model import EraChoice, LocalProcess
from open_mcp_gateway.errors import (
    Busy,
    GatewayError,
    UpstreamBroken,
    UpstreamTimeout,
    UpstreamUnavailable,
)
from open_mcp_gateway.outbound.environment import OWNER_VARIABLE, owner_mark
from open_mcp_gateway.outbound.leftovers import find_leftovers
from open_mcp_gateway.outbound.local import open_local
from open_mcp_gateway.outbound.peer import ANY_MANNER
from open_mcp_gateway.outbound.settings import OutboundSettings
from open_mcp_gateway.outbound.verdicts import EraVerdicts, Verdict
from open_mcp_gateway.protocol.eras import Era
from open_mcp_gateway.protocol.jsonrpc import Call, restore_id
from tests.process.stdio_peers import (
    QUICK,
    SECRET,
    SERVER,
    Caller,
    entry_of,
    is_running,
    peer_of,
    permit_of,
    pids_in,
    process_exists,
    tool_params,
)

pytestmark = pytest.mark.anyio

LOOPS = [
    pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"),
    pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
]


@pytest.fixture(params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> object:
    return request.param


@pytest.fixture
def pids(tmp_path: Path) -> Path:
    return tmp_path / "pids"


# Opening


@pytest.mark.parametrize(
    ("mode", "era", "processes"),
    [
        ("echo", Era.LEGACY, 1),
        ("echo_modern", Era.MODERN, 1),
        ("noisy_stdout", Era.LEGACY, 1),
        ("silent_to_probe", Era.LEGACY, 1),
        ("late_to_probe", Era.LEGACY, 1),
        ("slow_start", Era.LEGACY, 1),
        ("slow_start_modern", Era.MODERN, 1),
        ("dies_on_unknown_first_request", Era.LEGACY, 2),
    ],
)
async def test_the_era_is_found_out_and_remembered(
    mode: str, era: Era, processes: int, pids: Path
) -> None:
    entry, verdicts = entry_of(mode, pids), EraVerdicts()
    async with peer_of(entry, verdicts=verdicts) as caller:
        assert caller.peer.handshake.era is era
        assert (await caller.tool("add", a=1, b=2).wait()).text == "3"
    assert verdicts.recall(entry) == Verdict(era=era)
    assert len(pids_in(pids)) == processes
    async with peer_of(entry, verdicts=verdicts) as caller:
        assert (await caller.tool("echo", text="again").wait()).text == "again"
    assert len(pids_in(pids)) == processes + 1, "the second opening asks no question that kills"
    assert not any(map(process_exists, pids_in(pids)))


@pytest.mark.parametrize("version", ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"])
async def test_every_legacy_version_is_accepted(version: str) -> None:
    async with peer_of(entry_of("echo", env={"TEST_PROTOCOL_VERSION": version})) as caller:
        assert caller.peer.handshake.version == version


async def test_a_version_nobody_speaks_is_refused(pids: Path) -> None:
    entry = entry_of("echo", pids, env={"TEST_PROTOCOL_VERSION": "2023-01-01"})
    with pytest.raises(UpstreamUnavailable, match="'2023-01-01'"):
        await open_local(entry, ANY_MANNER, QUICK, EraVerdicts(), {})
    assert not any(map(process_exists, pids_in(pids)))


@pytest.mark.parametrize(("was", "mode"), [(Era.LEGACY, "echo_modern"), (Era.MODERN, "echo")])
async def test_a_verdict_that_stopped_holding_is_found_anew(was: Era, mode: str) -> None:
    entry, verdicts = entry_of(mode), EraVerdicts()
    verdicts.remember(entry, Verdict(era=was))
    async with peer_of(entry, verdicts=verdicts) as caller:
        assert (await caller.tool("add", a=1, b=2).wait()).text == "3"
    verdict = verdicts.recall(entry)
    assert verdict is not None
    assert verdict.era is not was


async def test_the_catalog_s_word_on_the_era_is_final(pids: Path) -> None:
    verdicts = EraVerdicts()
    with pytest.raises(UpstreamUnavailable, match="era: modern"):
        await open_local(
            entry_of("echo", pids, era=EraChoice.MODERN), ANY_MANNER, QUICK, verdicts, {}
        )
    with pytest.raises(UpstreamUnavailable, match="refused initialize"):
        await open_local(
            entry_of("echo_modern", pids, era=EraChoice.LEGACY), ANY_MANNER, QUICK, verdicts, {}
        )
    assert len(pids_in(pids)) == 2
    async with peer_of(entry_of("dies_on_unknown_first_request", pids, era=EraChoice.LEGACY)):
        assert len(pids_in(pids)) == 3


async def test_a_crash_at_start_says_command_code_and_last_words_and_is_no_verdict(
    pids: Path,
) -> None:
    entry, verdicts = entry_of("crash_at_start", pids), EraVerdicts()
    with pytest.raises(UpstreamUnavailable) as raised:
        await open_local(entry, ANY_MANNER, QUICK, verdicts, {})
    text = raised.value.public
    assert text.startswith("Server 'x' exited with code 3 before it was ready (command '")
    assert text.endswith("stderr: cannot open database\nset *** and try again")
    assert sys.executable.rpartition("/")[2] in text
    assert verdicts.recall(entry) is None
    assert not any(map(process_exists, pids_in(pids)))


async def test_what_a_server_says_against_initialize_is_quoted_and_scrubbed() -> None:
    with pytest.raises(UpstreamUnavailable, match=r"no licence for \*\*\* \(code -32603\)"):
        await open_local(entry_of("refuses_initialize"), ANY_MANNER, QUICK, EraVerdicts(), {})


async def test_a_missing_command_is_named_and_scrubbed() -> None:
    runtime = LocalProcess(command=f"/opt/{SECRET}/server")
    with pytest.raises(UpstreamUnavailable, match=r"'x' cannot be started: command '/opt/\*\*\*/s"):
        await open_local(entry_of("", runtime=runtime), ANY_MANNER, QUICK, EraVerdicts(), {})


@pytest.mark.parametrize("mode", ["slow_start", "ignores_sigterm"])
async def test_a_start_given_up_leaves_no_process(mode: str, pids: Path) -> None:
    entry = entry_of(mode, pids, env={"TEST_SLOW_START_S": "600"})
    if mode == "ignores_sigterm":
        entry = entry_of("silent_to_probe", pids)
    silent = replace(QUICK, probe_silence_s=600)
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(open_local, entry, ANY_MANNER, silent, EraVerdicts(), {})
            with anyio.fail_after(60):
                while not pids_in(pids):  # noqa: ASYNC110 - written by another process
                    await anyio.sleep(0.01)
            scope.cancel()
    assert not any(map(process_exists, pids_in(pids)))


async def test_the_child_sees_its_own_settings_and_none_of_the_gateway_s() -> None:
    environ = {"PATH": os.environ["PATH"], "HOME": "/home/x", "GATEWAY_API_KEY": "test-key-1"}
    async with peer_of(entry_of("echo", env={"OWN": "value"}), environ=environ) as caller:
        seen = await caller.ask("test/environment")
    seen.pop("LC_CTYPE", None)  # Python sets it for itself
    assert seen == {
        "PATH": os.environ["PATH"],
        "HOME": "/home/x",
        "OWN": "value",
        OWNER_VARIABLE: owner_mark(),
    }


# Calls


async def test_many_calls_at_once_each_get_their_own_answer() -> None:
    async with peer_of(entry_of("echo")) as caller:
        outcomes = [caller.tool("echo", text=f"é {number}") for number in range(2000)]
        for number, outcome in enumerate(outcomes):
            assert (await outcome.wait()).text == f"é {number}"
        assert {outcome.times for outcome in outcomes} == {1}
        assert caller.peer.inflight == 0


@pytest.mark.parametrize("end", [b"\n", b"\r", b"\r\n"])
async def test_a_payload_with_line_ends_cannot_smuggle_in_a_second_message(end: bytes) -> None:
    smuggled = b'{"jsonrpc":"2.0","method":"notifications/smuggled"}'
    arguments = b'{"text":"seen","more":' + end + smuggled + end + b"}"
    params = {"name": Raw(b'"echo"'), "arguments": Raw(arguments)}
    async with peer_of(entry_of("echo")) as caller:
        outcome, _ = caller.begin("tools/call", params)
        assert (await outcome.wait()).text == "seen"
        assert (await caller.ask("test/seen"))["seen"] == [
            {"jsonrpc": "2.0", "method": "notifications/initialized"}
        ]


async def test_the_caller_s_id_goes_back_in_place_of_ours() -> None:
    async with peer_of(entry_of("echo")) as caller:
        outcome = await caller.tool("add", a=20, b=22).wait()
        assert b'"id":"caller"' in restore_id(outcome.message, outcome.upstream_id, b'"caller"')


@pytest.mark.parametrize("mode", ["echo", "echo_modern"])
async def test_a_cancelled_call_is_cancelled_at_the_server(mode: str) -> None:
    async with peer_of(entry_of(mode)) as caller:
        outcome, ticket = caller.begin("tools/call", tool_params("sleep", seconds=0.05))
        ticket.cancel("caller left")
        seen = (await caller.ask("test/seen"))["seen"]
        assert outcome.times == 0
        assert seen[-1]["method"] == "notifications/cancelled"
        assert seen[-1]["params"]["reason"] == "caller left"
        assert caller.peer.strays == 1


async def test_no_answer_is_a_timeout_at_the_deadline() -> None:
    async with peer_of(entry_of("never_answers")) as caller:
        begun_s = time.monotonic()
        outcome = await caller.tool("add", within_s=0.2).wait()
        assert isinstance(outcome.failure, UpstreamTimeout)
        assert 0.19 <= time.monotonic() - begun_s < 20  # others are given 60 s
        with anyio.fail_after(60):
            await caller.peer.probe()


async def test_an_answer_after_its_timeout_goes_to_nobody() -> None:
    async with peer_of(entry_of("late_answers")) as caller:
        first = await caller.tool("echo", text="first", within_s=0.05).wait()
        second = caller.tool("echo", text="second")
        third = caller.tool("echo", text="third", within_s=0.3)
        assert (await second.wait()).text == "second"
        assert isinstance((await third.wait()).failure, UpstreamTimeout)
        assert first.times == 1
        assert caller.peer.strays == 1


@pytest.mark.parametrize(
    ("mode", "says"),
    [
        ("crash_mid_call", "exited with code 3 during the call; it may have taken effect. stderr:"),
        ("killed_mid_call", "was ended by SIGKILL during the call; it may have taken effect."),
        ("half_line", "broke the protocol"),
        ("bad_utf8", "broke the protocol"),
        ("deep_json", "nested too deeply"),
        ("closes_stdout", "closed its standard output while running during the call"),
        ("closes_stdin", "closed its standard input while running during the call"),
    ],
)
async def test_a_call_that_breaks_off_says_why(mode: str, says: str, pids: Path) -> None:
    async with peer_of(entry_of(mode, pids)) as caller:
        outcome = await caller.tool("add", a=1, b=2).wait()
        assert isinstance(outcome.failure, UpstreamBroken)
        assert outcome.failure.public.startswith("Server 'x' ")
        assert says in outcome.failure.public
        assert SECRET not in outcome.failure.public
    assert not any(map(process_exists, pids_in(pids)))


async def test_a_crash_fails_every_call_and_then_tells_the_owner() -> None:
    async with peer_of(entry_of("crash_mid_call")) as caller:
        lost: list[GatewayError] = []
        heard = anyio.Event()

        def on_lost(error: GatewayError) -> None:
            lost.append(error)
            heard.set()

        caller.peer.on_lost(on_lost)
        outcomes = [caller.tool("add", a=1, b=2) for _ in range(50)]
        with anyio.fail_after(60):
            await heard.wait()
        assert {outcome.times for outcome in outcomes} == {1}
        assert all("*** broke" in outcome.failure.public for outcome in outcomes)
        with pytest.raises(UpstreamUnavailable, match="exited with code 3"):
            caller.tool("add")
    assert len(lost) == 1


async def test_a_last_answer_without_line_end_is_an_answer() -> None:
    async with peer_of(entry_of("last_line_without_end")) as caller:
        assert (await caller.tool("add").wait()).answer["result"] == {"last": True}


async def test_a_wrong_id_answers_nobody() -> None:
    async with peer_of(entry_of("wrong_id")) as caller:
        outcome = await caller.tool("add", a=1, b=2, within_s=0.3).wait()
        assert isinstance(outcome.failure, UpstreamTimeout)
        await caller.ask("ping")  # answered after it, which may have come later than the deadline
        assert caller.peer.strays == 1


async def test_a_second_answer_answers_nobody() -> None:
    async with peer_of(entry_of("answers_twice")) as caller:
        first = await caller.tool("echo", text="1").wait()
        second = await caller.tool("echo", text="2").wait()
        assert (first.text, second.text) == ("1", "2")
        await caller.peer.probe()
        assert (first.times, second.times, caller.peer.strays) == (1, 1, 2)


async def test_noise_on_stdout_is_passed_over() -> None:
    async with peer_of(entry_of("noisy_stdout")) as caller:
        outcomes = [caller.tool("echo", text=str(number)) for number in range(20)]
        assert [(await outcome.wait()).text for outcome in outcomes] == list(map(str, range(20)))


async def test_a_flood_of_notifications_does_not_drown_the_answers() -> None:
    async with peer_of(entry_of("floods_notifications")) as caller:
        outcomes = [caller.tool("echo", text=str(number)) for number in range(5)]
        assert [(await outcome.wait()).text for outcome in outcomes] == list("01234")


async def test_questions_of_the_server_are_answered_and_confuse_nobody() -> None:
    async with peer_of(entry_of("asks_client")) as caller:
        outcome = await caller.tool("echo", text="mine").wait()
        assert outcome.text == "mine"
        seen = (await caller.ask("test/seen"))["seen"]
        assert {"jsonrpc": "2.0", "id": "p1", "result": {}} in seen
        refused = [message for message in seen if "error" in message]
        assert [(message["id"], message["error"]["code"]) for message in refused] == [
            (outcome.upstream_id, -32601)
        ]


LIMITED = replace(QUICK, max_message_bytes=1_000_000)


async def test_a_big_answer_comes_through_whole() -> None:
    async with peer_of(entry_of("huge_reply")) as caller:
        outcome = await caller.tool("x", size=20_000_000).wait()
        assert len(outcome.text) == 20_000_000


@pytest.mark.parametrize("where", ["id_first", "id_last"])
async def test_an_answer_over_the_limit_fails_its_own_call_only(where: str) -> None:
    async with peer_of(entry_of("huge_reply"), LIMITED) as caller:
        outcome = await caller.tool("x", size=3_000_000, **{where: True}).wait()
        assert isinstance(outcome.failure, UpstreamBroken)
        assert "size limit" in outcome.failure.public
        assert len((await caller.tool("x", size=10).wait()).text) == 10


async def test_a_message_over_the_limit_for_nobody_known_ends_the_server(pids: Path) -> None:
    async with peer_of(entry_of("huge_reply", pids), LIMITED) as caller:
        outcome = await caller.tool("x", size=3_000_000, id_hidden=True).wait()
        assert "size limit" in outcome.failure.public
        with pytest.raises(UpstreamUnavailable):
            caller.tool("x", size=1)
    assert not any(map(process_exists, pids_in(pids)))


@pytest.mark.parametrize(
    "text",
    [
        '{"jsonrpc":"2.0","id":%d,"result":{},"error":{"code":1,"message":"x"}}',
        '{"jsonrpc":"2.0","id":%d}',
        '{"jsonrpc":"1.0","id":%d,"result":{}}',
        '{"jsonrpc":"2.0","id":%d,"result":{]}',
    ],
)
async def test_a_malformed_answer_fails_its_call_and_the_next_works(text: str) -> None:
    async with peer_of(entry_of("not_json")) as caller:
        broken = await caller.tool("x", text=text).wait()
        assert isinstance(broken.failure, UpstreamBroken)
        good = await caller.tool("x", text='{"jsonrpc":"2.0","id":%d,"result":{"ok":1}}\r').wait()
        assert good.answer["result"] == {"ok": 1}


def fill_up(caller: Caller) -> None:
    sent = 0
    try:
        while sent < 100:
            caller.tool("echo", text="x" * 10_000)
            sent += 1
    except Busy:
        return
    pytest.fail("never busy")


async def test_a_server_that_does_not_read_makes_callers_busy_and_can_be_stopped(
    pids: Path,
) -> None:
    small = replace(QUICK, max_send_buffer_bytes=100_000)
    async with peer_of(entry_of("does_not_read_stdin", pids), small) as caller:
        fill_up(caller)
        for _ in range(10):
            await anyio.lowlevel.checkpoint()
        fill_up(caller)
        assert caller.peer.inflight < 40
    assert not any(map(process_exists, pids_in(pids)))


@pytest.mark.parametrize("mode", ["echo", "echo_modern"])
async def test_a_sign_of_life(mode: str) -> None:
    async with peer_of(entry_of(mode)) as caller:
        with anyio.fail_after(60):
            await caller.peer.probe()


async def test_notifications_reach_the_server() -> None:
    entry = entry_of("echo")
    async with peer_of(entry) as caller:
        caller.peer.notify(permit_of(entry), Call("notifications/x", None, {"a": Raw(b"1")}))
        seen = (await caller.ask("test/seen"))["seen"]
        assert seen[-1] == {"jsonrpc": "2.0", "method": "notifications/x", "params": {"a": 1}}


# Stopping


@pytest.mark.parametrize(
    "mode", ["echo", "ignores_stdin_eof", "ignores_sigterm", "leaves_grandchild"]
)
async def test_nothing_is_left_after_a_stop(mode: str, pids: Path) -> None:
    async with peer_of(entry_of(mode, pids)) as caller:
        await caller.tool("echo", text="").wait()
        running = pids_in(pids)
        assert caller.peer.pid in running
        assert all(map(is_running, running))
    assert not any(map(is_running, running))
    assert not process_exists(running[0])


async def test_calls_in_flight_at_a_stop_fail() -> None:
    async with peer_of(entry_of("never_answers")) as caller:
        outcome = caller.tool("add")
    assert "was stopped during the call" in outcome.failure.public


async def test_a_crash_takes_the_grandchildren_with_it(pids: Path) -> None:
    async with peer_of(entry_of("leaves_grandchild", pids)) as caller:
        outcome = await caller.tool("exit").wait()
        assert "exited with code 7" in outcome.failure.public
    assert not any(map(is_running, pids_in(pids)))


# After a gateway that was killed

GATEWAY = """
import asyncio, sys
from tests.process.stdio_peers import entry_of, peer_of
from pathlib import Path
async def main():
    async with peer_of(entry_of("ignores_stdin_eof", Path(sys.argv[1]))):
        print("ready", flush=True)
        await asyncio.sleep(600)
asyncio.run(main())
"""


@pytest.mark.skipif(
    sys.platform != "linux", reason="looks at processes through /proc, which only Linux has"
)
def test_what_a_killed_gateway_leaves_is_found(pids: Path) -> None:
    root = SERVER.parents[2]
    gateway = subprocess.Popen(
        [sys.executable, "-c", GATEWAY, str(pids)], stdout=subprocess.PIPE, cwd=root
    )
    try:
        assert gateway.stdout is not None
        assert gateway.stdout.readline() == b"ready\n"
        (pid,) = pids_in(pids)
        assert pid not in [leftover.pid for leftover in find_leftovers()]
    finally:
        gateway.kill()
        gateway.communicate()
    try:
        (leftover,) = [found for found in find_leftovers() if found.pid == pid]
        assert (leftover.pgid, leftover.owner_pid) == (pid, gateway.pid)
        assert leftover.command == sys.executable
    finally:
        os.kill(pid, 9)


def test_the_defaults_are_those_of_the_specification_s_guidance() -> None:
    assert 2 <= OutboundSettings().probe_silence_s <= 5
