from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from open_mcp_gateway.catalog.diff import Changes, diff
from open_mcp_gateway.catalog.model import (
    CatalogEntry,
    EraChoice,
    Isolation,
    LocalProcess,
    ServerSpec,
    Snapshot,
)
from open_mcp_gateway.names import Namespace, ServerId


def entry(name: str, **changes: Any) -> CatalogEntry:
    spec = ServerSpec(id=ServerId(name), display_name=name, runtime=LocalProcess(command="x"))
    spec = replace(spec, **changes)
    return CatalogEntry(spec=spec, shown=spec, runtime_type="local-process")


def snapshot(*entries: CatalogEntry) -> Snapshot:
    return Snapshot({one.spec.id: one for one in entries})


def test_nothing() -> None:
    assert diff(Snapshot(), Snapshot()) == Changes()
    assert diff(snapshot(entry("a")), snapshot(entry("a"))) == Changes()


def test_added_and_removed_in_file_order() -> None:
    changes = diff(
        snapshot(entry("c"), entry("a"), entry("b")), snapshot(entry("z"), entry("b"), entry("y"))
    )
    assert changes == Changes(
        added=(ServerId("z"), ServerId("y")), removed=(ServerId("c"), ServerId("a"))
    )


def test_order_alone_is_no_change() -> None:
    one, two = entry("a"), entry("b")
    assert diff(snapshot(one, two), snapshot(two, one)) == Changes()


@pytest.mark.parametrize(
    "change",
    [
        {"runtime": LocalProcess(command="y")},
        {"runtime": LocalProcess(command="x", args=("z",))},
        {"env": {"A": "b"}},
        {"era": EraChoice.MODERN},
    ],
)
def test_what_outdates_a_process(change: dict[str, object]) -> None:
    a = (ServerId("a"),)
    changes = diff(snapshot(entry("a")), snapshot(entry("a", **change)))
    assert changes == Changes(modified=a, relaunch=a)


@pytest.mark.parametrize(
    "change",
    [
        {"namespace": Namespace("n")},
        {"tags": ("t",)},
        {"isolation": Isolation.KEY},
        {"display_name": "A"},
        {"description": "d"},
        {"idle_timeout_seconds": 1},
        {"request_timeout_seconds": 1},
        {"interactive": False},
    ],
)
def test_what_changes_in_place(change: dict[str, object]) -> None:
    changes = diff(snapshot(entry("a")), snapshot(entry("a", **change)))
    assert changes == Changes(modified=(ServerId("a"),))


def test_what_is_shown_of_it_counts() -> None:
    before = entry("a")
    after = replace(before, secrets=("test-secret",))
    assert diff(snapshot(before), snapshot(after)) == Changes(modified=(ServerId("a"),))
