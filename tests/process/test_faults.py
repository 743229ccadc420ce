"""Servers that misbehave, and a gateway that has to live with them: what its callers see, and which
processes there are."""

from __future__ import annotations

import http.client
import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

import pytest

from tests.process.stdio_peers import is_running, pids_in
from tests.process.talk import (
    KEY,
    Answer,
    Caller,
    Json,
    Running,
    at_once,
    meanwhile,
    odd_server,
    owned_by,
    run_gateway,
    wait_until,
)

SECRET = "test-secret-value"
BROKEN = (502, -32603, "upstream_broken")
UNAVAILABLE = (502, -32002, "upstream_unavailable")
TIMEOUT = (504, -32603, "upstream_timeout")
BUSY = (503, -32603, "busy")

PLAIN = (
    "echo",
    "noisy_stdout",
    "floods_notifications",
    "asks_client",
    "answers_twice",
    "huge_reply",
    "half_line",
    "bad_utf8",
    "deep_json",
    "not_json",
    "closes_stdout",
    "closes_stdin",
    "killed_mid_call",
    "dies_on_unknown_first_request",
    "last_line_without_end",
)
HASTY = ("never_answers", "wrong_id", "does_not_read_stdin")
"""Those whose silence is waited out."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
def running(folder: Path) -> Iterator[Running]:
    token = {"TOKEN": "${TEST_TOKEN}"}
    servers = [
        *(odd_server(mode, folder / f"{mode}.pids") for mode in PLAIN),
        *(odd_server(mode, request_timeout_seconds=1) for mode in HASTY),
        odd_server("crash_at_start", folder / "crash_at_start.pids", env=token),
        odd_server("crash_at_start", folder / "crowd.pids", "crowded", env=token),
        odd_server("refuses_initialize", env=token),
        odd_server("crash_mid_call", env=token),
        odd_server("never_answers", folder / "patient.pids", "patient"),
        odd_server("echo", folder / "killed.pids", "killed"),
        odd_server("echo", folder / "loaded.pids", "loaded"),
        odd_server("echo", folder / "idle.pids", "idle", idle_timeout_seconds=1),
        odd_server("echo", folder / "hung.pids", "hung", health_check_interval_seconds=1),
        odd_server("slow_start", folder / "slow.pids", "slow"),
        odd_server(
            "slow_start",
            folder / "late.pids",
            "late",
            env={"TEST_SLOW_START_S": "2"},
            request_timeout_seconds=1,
        ),
        odd_server(
            "slow_start",
            folder / "endless.pids",
            "endless",
            env={"TEST_SLOW_START_S": "600"},
            start_timeout_seconds=1,
        ),
        odd_server("ignores_sigterm", folder / "ignores_sigterm.pids"),
        odd_server("leaves_grandchild", folder / "leaves_grandchild.pids"),
    ]
    with run_gateway(folder, servers, env={"TEST_TOKEN": SECRET}) as gateway:
        yield gateway


def failed(answer: Answer, expected: tuple[int, int, str], id: object = 7) -> str:
    """Check a failure that the gateway reports; gives its text."""
    assert (answer.status, answer.error["code"], answer.error["data"]["code"]) == expected, (
        answer.body
    )
    assert answer.json["id"] == id
    assert answer.json["jsonrpc"] == "2.0"
    assert SECRET not in answer.body.decode()
    return str(answer.error["message"])


def echoes(running: Running, server: str) -> bool:
    return running.caller.tool(server, "echo", text="x").text == "x"


# At the start


def test_a_crash_at_start(running: Running) -> None:
    text = failed(running.caller.call("crash_at_start", "tools/list"), UNAVAILABLE)
    assert "Server 'crash_at_start' " in text
    assert "exited with code 3" in text
    assert "cannot open database" in text
    assert "set *** and try again" in text

    answer = running.caller.post("/servers/crash_at_start/start")
    assert answer.status == 502
    assert answer.json["error"] == "Bad Gateway"
    assert answer.json["message"].startswith("Failed to start server: Server 'crash_at_start' ")
    assert "exited with code 3" in answer.json["message"]
    assert SECRET not in answer.body.decode()

    shown = running.caller.get("/servers/crash_at_start")
    assert "exited with code 3" in shown.json["last_error"]
    assert shown.json["status"] in {"stopped", "unhealthy"}
    assert SECRET not in shown.body.decode()
    assert echoes(running, "echo")
    changes = [
        line for line in running.log("server state changed") if line["server"] == shown.json["id"]
    ]
    assert {one["level"] for one in changes if one["state"] in {"stopped", "unhealthy"}} == {
        "warning"
    }


def test_a_server_that_refuses_the_handshake(running: Running) -> None:
    text = failed(running.caller.call("refuses_initialize", "ping"), UNAVAILABLE)
    assert "refused initialize" in text
    assert "no licence for ***" in text


def test_a_server_that_dies_of_the_newer_handshake(running: Running) -> None:
    assert echoes(running, "dies_on_unknown_first_request")


def test_a_start_that_takes_too_long(running: Running, folder: Path) -> None:
    text = failed(running.caller.call("endless", "ping"), UNAVAILABLE)
    assert "did not finish its handshake within 1 s" in text
    wait_until(
        lambda: not [pid for pid in pids_in(folder / "endless.pids") if is_running(pid)],
        "the process is gone",
    )


def test_a_start_goes_on_when_its_caller_has_given_up(running: Running, folder: Path) -> None:
    text = failed(running.caller.call("late", "ping"), TIMEOUT)
    assert "goes on starting" in text
    wait_until(lambda: running.caller.status("late") == "running", "it started")
    assert running.caller.call("late", "ping").result == {}
    assert len(pids_in(folder / "late.pids")) == 1


def test_fifty_first_requests_make_one_start(running: Running, folder: Path) -> None:
    answers = at_once(50, lambda: running.caller.call("slow", "tools/list"))
    assert all(len(answer.result["tools"]) == 3 for answer in answers)
    assert len(pids_in(folder / "slow.pids")) == 1
    assert len(running.starts("slow")) == 1


def test_fifty_first_requests_to_a_server_that_crashes(running: Running, folder: Path) -> None:
    answers = at_once(50, lambda: running.caller.call("crowded", "tools/list"))
    texts = {failed(answer, UNAVAILABLE) for answer in answers}
    assert any("exited with code 3" in text for text in texts)
    # Whoever comes after a failure makes one more start, and each may ask in two ways.
    assert len(pids_in(folder / "crowd.pids")) <= 12


# In the middle


def test_a_crash_during_a_call(running: Running) -> None:
    text = failed(running.caller.tool("crash_mid_call", "echo"), BROKEN)
    assert "Server 'crash_mid_call' exited with code 3 during the call" in text
    assert "it may have taken effect" in text
    assert "Traceback: something with *** broke" in text
    assert running.caller.call("crash_mid_call", "tools/list").result
    assert running.caller.get("/stats").json["servers"]["crash_mid_call"]["error_count"] == 1


@pytest.mark.parametrize(
    ("server", "text"),
    [
        ("killed_mid_call", "was ended by SIGKILL"),
        ("closes_stdout", "closed its standard output"),
        ("half_line", "broke the protocol: not a JSON-RPC message: Input data was truncated"),
        ("bad_utf8", "broke the protocol"),
        ("deep_json", "broke the protocol"),
    ],
)
def test_a_call_that_breaks(running: Running, server: str, text: str) -> None:
    assert text in failed(running.caller.tool(server, "echo"), BROKEN)
    # Of one that cuts off its own last line this may be known before its end is.
    wait_until(lambda: running.caller.call(server, "tools/list").status == 200, "it is back")
    assert echoes(running, "echo")


@pytest.mark.parametrize(
    "server", ["noisy_stdout", "floods_notifications", "asks_client", "answers_twice"]
)
def test_what_a_server_says_unasked_disturbs_nobody(running: Running, server: str) -> None:
    answers = at_once(5, lambda: running.caller.tool(server, "add", a=2, b=2))
    assert {answer.text for answer in answers} == {"4"}
    assert len(running.starts(server)) == 1
    if server == "noisy_stdout":
        warning = "server sends what is not JSON-RPC; skipped"
        wait_until(
            lambda: server in {line["server"] for line in running.log(warning)}, "it is in the log"
        )
        assert [line["server"] for line in running.log(warning)].count(server) == 1


def test_an_answer_cut_off_only_by_the_end_counts(running: Running) -> None:
    assert running.caller.tool("last_line_without_end", "echo").result == {"last": True}


def test_a_huge_reply(running: Running) -> None:
    assert len(running.caller.tool("huge_reply", "x", size=20_000_000).text) == 20_000_000


def test_a_reply_over_the_limit_fails_alone(running: Running) -> None:
    assert running.caller.call("huge_reply", "ping").result == {}
    answer = running.caller.tool("huge_reply", "x", size=64 * 1024 * 1024)
    assert "over the size limit" in failed(answer, BROKEN)
    assert running.caller.tool("huge_reply", "x", size=3).text == "xxx"
    assert len(running.starts("huge_reply")) == 1


@pytest.mark.parametrize("server", ["never_answers", "wrong_id"])
def test_no_answer_in_time(running: Running, server: str) -> None:
    assert running.caller.post(f"/servers/{server}/start").status == 200  # takes what it takes
    began_s = time.monotonic()
    text = failed(running.caller.tool(server, "echo"), TIMEOUT)
    assert "did not answer before the deadline" in text
    assert 0.9 < time.monotonic() - began_s < 20, "others are given 30 s"
    # It was told, it is not restarted for it, and it goes on serving.
    seen = running.caller.call(server, "test/seen").result["seen"]
    assert "notifications/cancelled" in {message.get("method") for message in seen}
    assert len(running.starts(server)) == 1


def test_a_server_that_stops_reading(running: Running) -> None:
    """Its callers time out; beyond a bound of bytes there is no room for more of them."""
    assert running.caller.post("/servers/does_not_read_stdin/start").status == 200
    text = "x" * 7_000_000
    answers = at_once(6, lambda: running.caller.tool("does_not_read_stdin", "echo", text=text))
    kinds = {answer.status for answer in answers}
    assert kinds == {503, 504}
    for answer in answers:
        failed(answer, BUSY if answer.status == 503 else TIMEOUT)
    assert echoes(running, "echo")


def test_a_caller_that_leaves_cancels_its_call(running: Running) -> None:
    connection = running.caller.begin("patient", "echo")
    wait_until(lambda: running.caller.shown("patient")["request_count"] > 0, "the call is sent")
    before = running.caller.call("patient", "test/seen").result["seen"]
    connection.close()
    wait_until(
        lambda: len(running.caller.call("patient", "test/seen").result["seen"]) > len(before),
        "the server was told",
    )
    last = running.caller.call("patient", "test/seen").result["seen"][-1]
    assert last["method"] == "notifications/cancelled"
    assert last["params"]["reason"] == "client disconnected"


def test_everyone_in_flight_hears_of_a_death(running: Running, folder: Path) -> None:
    """And nobody at another server does, where a call goes on through all of it."""
    count = 12
    before = running.caller.shown("patient").get("request_count", 0)
    with meanwhile(lambda: running.caller.tool("echo", "sleep", seconds=1)) as other:
        calls = [running.caller.begin("patient", "echo", n=number) for number in range(count)]
        wait_until(
            lambda: running.caller.shown("patient")["request_count"] >= before + count,
            "all calls are with the server",
        )
        os.kill(pids_in(folder / "patient.pids")[-1], signal.SIGKILL)
        for connection in calls:
            assert "was ended by SIGKILL during the call" in failed(read(connection), BROKEN)
        assert other.result().text == "slept"


def read(connection: http.client.HTTPConnection) -> Answer:
    response = connection.getresponse()
    answer = Answer(response.status, response.read(), dict(response.getheaders()))
    connection.close()
    return answer


# After a death


def test_a_killed_server_comes_back_by_itself_and_more_and_more_slowly(
    running: Running, folder: Path
) -> None:
    pids = folder / "killed.pids"
    assert echoes(running, "killed")
    waits_s = []
    for _ in range(3):
        wait_until(lambda: running.caller.status("killed") == "running", "it runs")
        killed_s = time.time()
        os.kill(pids_in(pids)[-1], signal.SIGKILL)
        waits_s.append(_next_start_s(running, "killed", killed_s) - killed_s)
    # At once, then 0.5 s and 1 s, of which chance takes up to half off.
    assert waits_s[1] + 0.02 >= 0.25
    assert waits_s[2] + 0.02 >= 0.5
    wait_until(lambda: running.caller.status("killed") == "running", "it runs")
    assert echoes(running, "killed")
    assert "was ended by SIGKILL" in running.caller.shown("killed")["last_error"]


def _next_start_s(running: Running, server: str, after_s: float) -> float:
    """When ``server`` was first started again after a moment. Log lines tell milliseconds."""

    def starts() -> list[float]:
        lines = [line for line in running.log("process started") if line["server"] == server]
        moments = [datetime.fromisoformat(line["time"]).timestamp() for line in lines]
        return [moment for moment in moments if moment > after_s]

    wait_until(starts, f"{server} was restarted")
    return starts()[0]


def test_a_request_during_the_backoff_waits_for_the_restart(running: Running) -> None:
    """It is due within the time that callers are asked to wait anyway."""
    for _ in range(2):
        failed(running.caller.tool("killed_mid_call", "echo"), BROKEN)
        assert running.caller.call("killed_mid_call", "tools/list").result


def test_a_hung_server_is_noticed_and_replaced(running: Running, folder: Path) -> None:
    assert echoes(running, "hung")
    first = pids_in(folder / "hung.pids")[-1]
    os.kill(first, signal.SIGSTOP)
    wait_until(lambda: running.caller.status("hung") == "unhealthy", "it was found out")
    answer = running.caller.call("hung", "ping")
    if answer.status != 200:
        assert "did not answer 3 health checks in a row" in failed(answer, UNAVAILABLE)
        assert int(answer.headers["retry-after"]) >= 1
    wait_until(lambda: running.caller.status("hung") == "running", "a new one runs")
    assert echoes(running, "hung")
    assert not is_running(first)


# Idle


def test_an_idle_server_stops_and_starts_again(running: Running, folder: Path) -> None:
    pids = folder / "idle.pids"
    assert echoes(running, "idle")
    first = pids_in(pids)[-1]
    wait_until(lambda: running.caller.status("idle") == "stopped", "it stopped")
    assert not is_running(first)
    # A request that takes longer than the idle time is no idleness.
    count = len(pids_in(pids))
    assert running.caller.tool("idle", "sleep", seconds=2).text == "slept"
    assert len(pids_in(pids)) == count + 1
    assert pids_in(pids)[-1] != first
    stops = [
        line
        for line in running.log("server state changed")
        if line["server"] == "idle" and line["state"] == "shutting_down"
    ]
    assert {line["reason"] for line in stops} == {"not used for its idle timeout"}


# By hand


def test_stop_ends_the_whole_group_however_stubborn(running: Running, folder: Path) -> None:
    servers = ("ignores_sigterm", "leaves_grandchild")
    for server in servers:
        assert running.caller.call(server, "ping").result == {}
    pids = [pid for server in servers for pid in pids_in(folder / f"{server}.pids")]
    assert len(pids) == 3
    assert all(is_running(pid) for pid in pids)

    names = iter(servers)
    answers = at_once(2, lambda: running.caller.post(f"/servers/{next(names)}/stop"))

    assert {answer.json["message"] for answer in answers} == {"Server stopped successfully"}
    assert not [pid for pid in pids if is_running(pid)]
    for server in servers:
        answer = running.caller.post(f"/servers/{server}/stop")
        assert answer.json == {
            "id": server,
            "status": "stopped",
            "message": "Server already stopped",
        }


@contextmanager
def hammering(caller: Caller, server: str) -> Iterator[list[Answer]]:
    """Calls by eight callers all the time; all of their answers are there at the end."""
    answers: list[Answer] = []
    done = threading.Event()

    def hammer() -> None:
        while not done.is_set():
            answers.append(caller.tool(server, "echo", text="still here"))

    threads = [threading.Thread(target=hammer) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        done.set()
        for thread in threads:
            thread.join()


def test_start_stop_restart_under_load(running: Running, folder: Path) -> None:
    caller = running.caller
    assert caller.post("/servers/loaded/start").json["message"] == "Server started successfully"
    assert caller.post("/servers/loaded/start").json["message"] == "Server already running"

    with hammering(caller, "loaded") as answers:
        for _ in range(3):
            assert caller.post("/servers/loaded/restart").status == 200
    # The new one is ready before the old one goes: nobody notices.
    assert answers
    assert {answer.text for answer in answers} == {"still here"}

    with hammering(caller, "loaded") as answers:
        for _ in range(3):
            assert caller.post("/servers/loaded/stop").status == 200
            assert caller.post("/servers/loaded/start").status == 200
    for answer in answers:
        if answer.status != 200:
            failed(answer, BROKEN if answer.error["code"] == -32603 else UNAVAILABLE)
    assert echoes(running, "loaded")
    alive = [pid for pid in pids_in(folder / "loaded.pids") if is_running(pid)]
    assert len(alive) == 1


def test_the_figures_add_up(running: Running) -> None:
    stats = running.caller.get("/stats").json
    assert stats["total_servers"] == len(stats["servers"])
    for server, figures in stats["servers"].items():
        assert 0 <= figures["error_count"] <= figures["request_count"], server
    assert stats["total_requests"] == sum(
        figures["request_count"] for figures in stats["servers"].values()
    )


# The end of the gateway


STUBBORN = ("echo", "ignores_sigterm", "ignores_stdin_eof", "leaves_grandchild")


def stubborn_servers(folder: Path) -> list[Json]:
    return [odd_server(mode, folder / f"{mode}.pids") for mode in STUBBORN]


def test_sigterm_finishes_what_is_in_flight_and_leaves_nothing(tmp_path: Path) -> None:
    with run_gateway(tmp_path, stubborn_servers(tmp_path)) as running:
        for server in STUBBORN:
            assert running.caller.call(server, "ping").result == {}
        assert len(owned_by(running.pid)) == 5
        before = running.caller.shown("echo")["request_count"]
        with meanwhile(lambda: running.caller.tool("echo", "sleep", seconds=1)) as call:
            wait_until(
                lambda: running.caller.shown("echo")["request_count"] > before, "it is in flight"
            )
            running.gateway.process.terminate()
            assert call.result().text == "slept"
        assert running.gateway.process.wait(60) == 0
        assert owned_by(running.pid) == []
        assert running.log("stopped")


def test_a_second_sigterm_waits_for_no_request(tmp_path: Path) -> None:
    with run_gateway(tmp_path, [odd_server("never_answers")]) as running:
        call = running.caller.begin("never_answers", "echo")
        wait_until(
            lambda: running.caller.shown("never_answers")["request_count"] > 0, "it is in flight"
        )
        running.gateway.process.terminate()
        wait_until(lambda: running.log("stopping"), "the first one is being obeyed")
        running.gateway.process.terminate()
        assert running.gateway.process.wait(60) == 0
        assert owned_by(running.pid) == []
        call.close()


def test_no_signal_interrupts_the_stop_of_servers(tmp_path: Path) -> None:
    with run_gateway(tmp_path, stubborn_servers(tmp_path)) as running:
        for server in STUBBORN:
            assert running.caller.call(server, "ping").result == {}
        running.gateway.process.terminate()
        wait_until(
            lambda: [
                line
                for line in running.log("server state changed")
                if line["state"] == "shutting_down"
            ],
            "servers are being stopped",
        )
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            running.gateway.process.send_signal(number)
        assert running.gateway.process.wait(60) == 0
        assert owned_by(running.pid) == []


def test_without_a_key_nothing_starts(running: Running) -> None:
    count = len(owned_by(running.pid))
    for key, status in ((None, 401), ("test-key-wrong", 403)):
        answer = running.as_caller(key).call("slow", "tools/list")
        assert answer.status == status
        assert set(json.loads(answer.body)) == {"error", "message"}
    assert len(owned_by(running.pid)) == count
    assert KEY not in "".join(running.gateway.lines)
