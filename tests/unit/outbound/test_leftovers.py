"""Whose gateway is gone is found; everybody else is left alone."""

from __future__ import annotations

from pathlib import Path

from open_mcp_gateway.outbound.environment import OWNER_VARIABLE
from open_mcp_gateway.outbound.leftovers import Leftover, find_leftovers

GATEWAY, CHILD = 100, 200


def process(
    proc: Path, pid: int, *, mark: str | None = None, state: str = "S", started: int = 5
) -> None:
    folder = proc / str(pid)
    folder.mkdir()
    rest = ["0"] * 50
    rest[0], rest[2], rest[19] = state, str(pid - 1), str(started)
    (folder / "stat").write_text(f"{pid} (x) {' '.join(rest)}\n")
    marks = "" if mark is None else f"{OWNER_VARIABLE}={mark}\0"
    (folder / "environ").write_bytes(f"PATH=/bin\0{marks}HOME=/\0".encode())
    (folder / "cmdline").write_bytes(b"node\0--token\0test-key-1\0")


def test_a_child_of_a_gateway_that_is_gone_is_found_without_its_arguments(tmp_path: Path) -> None:
    process(tmp_path, CHILD, mark=f"{GATEWAY}-5")
    found = Leftover(pid=CHILD, pgid=CHILD - 1, command="node", owner_pid=GATEWAY)
    assert find_leftovers(tmp_path) == [found]


def test_a_child_of_a_gateway_that_lives_is_not(tmp_path: Path) -> None:
    process(tmp_path, GATEWAY, started=5)
    process(tmp_path, CHILD, mark=f"{GATEWAY}-5")
    assert find_leftovers(tmp_path) == []


def test_a_new_process_under_the_old_pid_is_not_taken_for_the_gateway(tmp_path: Path) -> None:
    process(tmp_path, GATEWAY, started=6)
    process(tmp_path, CHILD, mark=f"{GATEWAY}-5")
    assert [leftover.pid for leftover in find_leftovers(tmp_path)] == [CHILD]


def test_a_zombie_gateway_is_gone_and_a_zombie_child_is_no_leftover(tmp_path: Path) -> None:
    process(tmp_path, GATEWAY, state="Z")
    process(tmp_path, CHILD, mark=f"{GATEWAY}-5")
    process(tmp_path, CHILD + 1, mark=f"{GATEWAY}-5", state="Z")
    assert [leftover.pid for leftover in find_leftovers(tmp_path)] == [CHILD]


def test_where_start_times_are_unknown_a_living_pid_counts_as_the_gateway(tmp_path: Path) -> None:
    process(tmp_path, GATEWAY)
    process(tmp_path, CHILD, mark=f"{GATEWAY}-0")
    process(tmp_path, CHILD + 1, mark="999-0")
    assert [leftover.pid for leftover in find_leftovers(tmp_path)] == [CHILD + 1]


def test_processes_without_a_sane_mark_are_left_alone(tmp_path: Path) -> None:
    for number, mark in enumerate((None, "", "100", "-5", "x-5", "²-5", "1" * 5000 + "-5")):
        process(tmp_path, CHILD + number, mark=mark)
    assert find_leftovers(tmp_path) == []


def test_a_process_that_ends_meanwhile_or_hides_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "300").mkdir()
    (tmp_path / "self").mkdir()
    assert find_leftovers(tmp_path) == []


def test_without_proc_there_is_nothing_to_find(tmp_path: Path) -> None:
    assert find_leftovers(tmp_path / "absent") == []
