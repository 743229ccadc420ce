"""A descriptor is closed once, by whoever closes it first, and nobody else's instead."""

from __future__ import annotations

import os

import pytest

from open_mcp_gateway.outbound.pipes import PipeEnd, Pipes


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def test_close_closes_once() -> None:
    ours, theirs = os.pipe()
    end = PipeEnd(ours)
    assert end.fileno() == ours
    end.close()
    assert not is_open(ours)
    os.dup2(theirs, ours)
    end.close()
    assert is_open(ours)
    os.close(ours)
    os.close(theirs)


def test_a_number_that_was_given_to_somebody_else_is_not_closed() -> None:
    ours, theirs = os.pipe()
    end = PipeEnd(ours)
    other = os.open(os.devnull, os.O_RDONLY)
    os.dup2(other, ours)
    os.close(other)
    end.close()
    assert is_open(ours)
    os.close(ours)
    os.close(theirs)


def test_started_closes_the_child_s_ends_and_close_all() -> None:
    pipes = Pipes()
    ours = pipes.started()
    assert not any(map(is_open, pipes.of_child))
    assert all(is_open(end.fileno()) for end in ours.values())
    for end in ours.values():
        end.close()
    unused = Pipes()
    unused.close()
    assert not any(map(is_open, (*unused.of_child, *unused.ours.values())))


def test_when_descriptors_run_out_none_is_left_open(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[int] = []
    real = os.pipe

    def pipe() -> tuple[int, int]:
        if len(made) == 4:
            raise OSError(24, "Too many open files")
        made.extend(real())
        return made[-2], made[-1]

    monkeypatch.setattr(os, "pipe", pipe)
    with pytest.raises(OSError, match="Too many"):
        Pipes()
    assert not any(map(is_open, made))
