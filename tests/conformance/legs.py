"""What is run: the suite's server scenarios against a fixture, alone or behind the gateway."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from tests.conformance.fixture_servers import listening, remote_entry, stdio_entry
from tests.conformance.suite import Outcome, requirements_of, run_suite
from tests.gateway import start_gateway

SERVER_ID: Final = "fixture"
TASK_SCENARIOS: Final = tuple(
    f"tasks-{name}"
    for name in (
        "lifecycle",
        "capability-negotiation",
        "wire-fields",
        "request-state-removal",
        "mrtr-input",
        "request-headers",
        "dispatch-and-envelope",
        "status-notifications",
        "required-task-error",
        "mrtr-composition",
    )
)

Way = Literal["alone", "gateway"]
Transport = Literal["http", "stdio", "sse"]


@dataclass(frozen=True)
class Leg:
    """One fixture on one wire."""

    fixture: str
    wire: str
    """The protocol revision that the suite speaks."""

    passing: int
    """How many of its scenarios that count the fixture passes, which is all of them."""

    select: Literal["requirements", "all", "tasks"] = "requirements"
    way: Way = "alone"
    transport: Transport = "http"
    """How the server is reached by whoever speaks to it; the suite itself knows HTTP alone."""

    def __str__(self) -> str:
        return "-".join((self.fixture, self.way, self.transport, self.wire, self.select))

    def alone(self) -> Leg:
        """The same scenarios without a gateway."""
        return replace(self, way="alone", transport="http")

    def behind_gateway(self, transport: Transport) -> Leg:
        return replace(self, way="gateway", transport=transport)

    def required(self, outcome: Outcome) -> frozenset[str]:
        """The scenarios that count: all that were run, but for those a revision leaves open."""
        if self.select == "requirements":
            return requirements_of(self.wire).scored
        return frozenset(outcome)


DUAL: Final = (
    Leg("dual_everything", "2025-06-18", 27, select="all"),
    Leg("dual_everything", "2025-11-25", 30),
    Leg("dual_everything", "2026-07-28", 37),
)
LEGACY: Final = (
    Leg("legacy_everything", "2025-06-18", 27, select="all"),
    Leg("legacy_everything", "2025-11-25", 30),
)
MODERN: Final = (Leg("modern_everything", "2026-07-28", 37),)
TASKS: Final = (Leg("tasks_server", "2026-07-28", len(TASK_SCENARIOS), select="tasks"),)

ALONE: Final = (*DUAL, *LEGACY, *MODERN, *TASKS)
BEHIND_GATEWAY: Final = (
    *(leg.behind_gateway("http") for leg in ALONE),
    *(leg.behind_gateway("stdio") for leg in ALONE if leg != DUAL[0]),
    *(leg.behind_gateway("sse") for leg in LEGACY),
)


def run_leg(leg: Leg, folder: Path) -> Outcome:
    """Run one leg; ``folder`` is its own."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    with _served(leg, folder) as url:
        return _scenarios(leg, url, folder)


@contextmanager
def _served(leg: Leg, folder: Path) -> Iterator[str]:
    """The URL that the suite is pointed at."""
    if leg.transport == "stdio":
        with _gateway(stdio_entry(leg.fixture, SERVER_ID), folder) as url:
            yield url
        return
    with listening(leg.fixture, leg.transport, folder / "fixture.log") as upstream:
        if leg.way == "alone":
            yield upstream
            return
        with _gateway(remote_entry(upstream, SERVER_ID, leg.transport), folder) as url:
            yield url


@contextmanager
def _gateway(entry: dict[str, object], folder: Path) -> Iterator[str]:
    """Without authentication: the suite has no key to send. By name: it tests the Host header."""
    with start_gateway(folder, {}, {"servers": [entry]}) as gateway:
        try:
            yield f"http://localhost:{gateway.port}/servers/{SERVER_ID}/mcp"
        finally:
            (folder / "gateway.log").write_text("\n".join(gateway.lines), "utf-8")


def _scenarios(leg: Leg, url: str, folder: Path) -> Outcome:
    if leg.select == "requirements":
        arguments = ["--url", url, "--requirements", leg.wire]
        return run_suite("server", arguments, folder / "out")
    if leg.select == "all":
        arguments = ["--url", url, "--suite", "all", "--spec-version", leg.wire]
        return run_suite("server", arguments, folder / "out")
    found = Outcome()
    for scenario in TASK_SCENARIOS:
        arguments = ["--url", url, "--scenario", scenario]
        found[scenario] = run_suite("server", arguments, folder / scenario)[scenario]
    return found
