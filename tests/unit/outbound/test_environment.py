"""A child sees the allow-list, its own settings and the mark; nothing of the gateway's keys."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from open_mcp_gateway.outbound.environment import (
    OWNER_VARIABLE,
    child_environment,
    group_has_members,
    owner_mark,
    start_token,
    stat_fields,
)


def test_only_what_is_allowed_passes() -> None:
    environ = {
        "PATH": "/bin",
        "LC_ALL": "C",
        "XDG_CACHE_HOME": "/c",
        "https_proxy": "http://proxy",
        "GATEWAY_API_KEY": "test-key-1",
        "OPENAI_API_KEY": "test-key-2",
        "AWS_SECRET_ACCESS_KEY": "test-key-3",
        "LD_PRELOAD": "/x.so",
        "PYTHONPATH": "/x",
        "path": "/lower",
    }
    assert child_environment(environ, {}, "1-2") == {
        "PATH": "/bin",
        "LC_ALL": "C",
        "XDG_CACHE_HOME": "/c",
        "https_proxy": "http://proxy",
        OWNER_VARIABLE: "1-2",
    }


def test_a_server_s_own_settings_win_but_not_over_the_mark() -> None:
    env = child_environment({"PATH": "/bin"}, {"PATH": "/own", OWNER_VARIABLE: "forged"}, "1-2")
    assert env == {"PATH": "/own", OWNER_VARIABLE: "1-2"}


def test_there_is_always_a_path() -> None:
    assert child_environment({}, {}, "1-2")["PATH"] == os.defpath


@pytest.mark.skipif(
    sys.platform != "linux", reason="looks at processes through /proc, which only Linux has"
)
def test_the_mark_names_this_very_process() -> None:
    pid, _, token = owner_mark().partition("-")
    assert int(pid) == os.getpid()
    assert token == start_token(os.getpid())
    assert int(token) > 0


def test_a_process_that_is_gone_has_no_token(tmp_path: Path) -> None:
    assert start_token(1, tmp_path) is None


def stat_line(tmp_path: Path, pid: int, name: str, state: str, pgid: int, started: int) -> None:
    (tmp_path / str(pid)).mkdir()
    rest = ["0"] * 50
    rest[0], rest[2], rest[19] = state, str(pgid), str(started)
    (tmp_path / str(pid) / "stat").write_text(f"{pid} ({name}) {' '.join(rest)}\n")


def test_a_process_name_cannot_forge_the_fields(tmp_path: Path) -> None:
    stat_line(tmp_path, 7, "evil) Z 1 1\n (x) ", "S", 7, 99)
    assert start_token(7, tmp_path) == "99"
    fields = stat_fields(7, tmp_path)
    assert fields is not None
    assert fields[0] == "S"


def test_a_zombie_has_no_token(tmp_path: Path) -> None:
    stat_line(tmp_path, 7, "x", "Z", 7, 99)
    assert start_token(7, tmp_path) is None


def test_a_group_of_nobody_but_zombies_has_no_members(tmp_path: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=-1, start_new_session=True) as p:
        assert group_has_members(p.pid)
        stat_line(tmp_path, p.pid, "x", "Z", p.pid, 1)
        stat_line(tmp_path, p.pid + 1, "y", "S", p.pid + 1, 1)
        assert not group_has_members(p.pid, tmp_path)
        stat_line(tmp_path, p.pid + 2, "z", "R", p.pid, 1)
        assert group_has_members(p.pid, tmp_path)
        p.communicate(b"\n")
    assert not group_has_members(p.pid)
