"""A gateway that runs out of file descriptors."""

from __future__ import annotations

import resource
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest

from open_mcp_gateway.descriptors import COMPLAIN_EVERY_S, WANTED, DescriptorWatch
from tests.process.talk import run_gateway, wait_until

NONE_LEFT = "no file descriptors left: new connections are closed, servers cannot start"


def test_as_many_as_may_be_and_a_word_when_they_run_out(tmp_path: Path) -> None:
    with run_gateway(tmp_path, []) as running:
        limit = resource.RLIMIT_NOFILE
        soft, hard = resource.prlimit(running.pid, limit)
        assert soft == min(hard, WANTED) or soft > WANTED or hard == resource.RLIM_INFINITY
        few = len(list(Path(f"/proc/{running.pid}/fd").iterdir())) + 5
        resource.prlimit(running.pid, limit, (few, hard))
        address = (running.gateway.host, running.gateway.port)
        with ExitStack() as opened:
            for _ in range(10):
                opened.enter_context(socket.create_connection(address))
            wait_until(lambda: running.log(NONE_LEFT), "it is in the log")
        wait_until(lambda: _answers(running.caller.host, address[1]), "it goes on")
        assert "LimitNOFILE" in running.log(NONE_LEFT)[0]["mend"]


def _answers(host: str, port: int) -> bool:
    with socket.create_connection((host, port), timeout=60) as one:
        one.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n")
        try:
            return one.recv(100).startswith(b"HTTP/1.1 200")
        except OSError:
            return False


def test_it_is_said_once_in_a_while(caplog: pytest.LogCaptureFixture) -> None:
    watch = DescriptorWatch()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    for now_s, said in ((0.0, 1), (COMPLAIN_EVERY_S - 1, 1), (COMPLAIN_EVERY_S, 2)):
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        try:
            watch.look(now_s)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert len(caplog.messages) == said
    watch.look(10 * COMPLAIN_EVERY_S)
    assert caplog.messages == [NONE_LEFT] * 2
