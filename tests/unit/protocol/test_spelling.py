"""Every spelling that some parser takes for a name is found."""

from __future__ import annotations

import pytest

from open_mcp_gateway.protocol.spelling import folded, misspelt, spellings

GUARDED = spellings({"taskId", "_meta"})


@pytest.mark.parametrize(
    "other",
    [
        *("TaskId", "TASKID", "taskid", "tAsKiD"),
        "tas\u212aId",  # the Kelvin sign
        "ta\u017fkId",  # the long s
        "task\u0131d",  # the dotless i
        "task\u0130d",  # the I with a dot
        *("task_id", "task-id", "Task_Id"),
    ],
)
def test_other_spellings_are_found(other: str) -> None:
    assert misspelt(["name", other], GUARDED) == "taskId"
    assert misspelt(["taskId", other], GUARDED) == "taskId"


@pytest.mark.parametrize("other", ["_Meta", "_META", "meta", "Meta"])
def test_so_are_those_of_meta(other: str) -> None:
    assert misspelt([other], GUARDED) == "_meta"


@pytest.mark.parametrize("name", ["taskId", "_meta", "task", "id", "taskIds", "", "t" * 10**6])
def test_other_names_are_not(name: str) -> None:
    assert misspelt([name], GUARDED) is None


def test_long_names_are_not_worked_on() -> None:
    long = "\u0130" * 10**6
    assert folded(long) is long
