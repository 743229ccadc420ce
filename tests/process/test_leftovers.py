"""A gateway killed by force: what it started ends by itself, or is named at the next start."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

from tests.process.stdio_peers import is_running, pids_in
from tests.process.stdio_program import run_stdio
from tests.process.talk import Running, odd_server, run_gateway, wait_until

NOTICE = "a process of an earlier gateway is still running"


def kill_and_wait(running: Running) -> None:
    running.gateway.process.kill()
    running.gateway.process.wait()


def named(running: Running, pids: list[int]) -> dict[int, dict[str, object]]:
    """What a gateway said of these processes. Other tests' processes may be there as well."""
    return {line["pid"]: line for line in running.log(NOTICE) if line["pid"] in pids}


def test_children_end_with_their_stdin(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    with run_gateway(tmp_path, [odd_server("echo", pids)]) as running:
        assert running.caller.call("echo", "ping").result == {}
        kill_and_wait(running)
    wait_until(lambda: not is_running(pids_in(pids)[0]), "the server ended")
    with run_gateway(tmp_path, []) as running:
        pass
    assert named(running, pids_in(pids)) == {}  # all that it ever said is read by now


def test_those_that_do_not_are_named_at_the_next_start(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    modes = ("ignores_stdin_eof", "ignores_sigterm", "leaves_grandchild")
    servers = [odd_server(mode, pids, env={"TOKEN": "test-secret-value"}) for mode in modes]
    with run_gateway(tmp_path, servers) as running:
        for mode in modes:
            assert running.caller.call(mode, "ping").result == {}
        owner = running.pid
        kill_and_wait(running)
    try:
        left = pids_in(pids)
        assert len(left) == 4
        # The parent of the grandchild did end.
        wait_until(lambda: sum(map(is_running, left)) == 3, "one of them ended")
        left = [pid for pid in left if is_running(pid)]

        with run_gateway(tmp_path, []) as running:
            assert running.pid != owner
            wait_until(lambda: named(running, pids_in(pids)).keys() == set(left), "all are named")
            said = named(running, pids_in(pids))
            for pid, line in said.items():
                assert line["level"] == "warning"
                assert line["mend"] == f"kill -s KILL -- -{os.getpgid(pid)}"
                assert "python" in str(line["command"])
                assert "stdio_server.py" not in str(line), "arguments can hold secrets"
            assert "test-secret-value" not in "".join(running.gateway.lines)

            stubborn = [pid for pid in left if _ends_on_sigterm(pid)]
            assert stubborn
            for pid in stubborn:
                subprocess.run(str(said[pid]["mend"]), shell=True, check=True)
            wait_until(lambda: not any(map(is_running, stubborn)), "what was advised works")
    finally:
        for pid in pids_in(pids):
            if is_running(pid):
                os.kill(pid, signal.SIGKILL)


def _ends_on_sigterm(pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text("ascii")
    ignored = next(line for line in status.splitlines() if line.startswith("SigIgn:"))
    return not int(ignored.split()[1], 16) & (1 << (signal.SIGTERM - 1))


def test_the_processes_of_a_gateway_that_runs_are_not_named(tmp_path: Path) -> None:
    (tmp_path / "first").mkdir()
    (tmp_path / "second").mkdir()
    pids = tmp_path / "pids"
    with run_gateway(tmp_path / "first", [odd_server("echo", pids)]) as running:
        assert running.caller.call("echo", "ping").result == {}
        with run_gateway(tmp_path / "second", []) as other:
            pass
        assert named(other, pids_in(pids)) == {}
        assert is_running(pids_in(pids)[0])


def test_children_of_gateway_stdio_end_with_their_stdin(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    with run_gateway(tmp_path, [odd_server("echo", pids)]) as running:
        catalog = str(running.gateway.catalog_path)
        with run_stdio("--server", "echo", "--catalog", catalog) as program:
            assert program.ask("ping")["result"] == {}
            program.process.kill()
            wait_until(lambda: not is_running(pids_in(pids)[0]), "the server ended")
