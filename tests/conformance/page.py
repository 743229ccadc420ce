"""The tables of ``docs/conformance.md``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tests.conformance.client_legs import ClientLeg
from tests.conformance.legs import Leg
from tests.conformance.suite import Outcome
from tests.environments import ROOT

PAGE: Final = ROOT / "docs/conformance.md"
SERVERS: Final = {
    "dual_everything": "both eras",
    "legacy_everything": "sessions only",
    "modern_everything": "stateless only",
    "tasks_server": "tasks extension",
}
TRANSPORTS: Final = {"http": "Streamable HTTP", "stdio": "stdio", "sse": "HTTP+SSE"}
_SERVER_HEAD: Final = (
    "Server",
    "Reached over",
    "Wire",
    "Required scenarios",
    "Checks passed",
    "Checks failed",
    "Other scenarios",
)
_CLIENT_HEAD: Final = ("Scenario", "Wire", "Checks")

Row = tuple[str, ...]


def server_row(leg: Leg, outcome: Outcome, alone: Outcome) -> Row:
    """One leg: how much passes, of what the server passes without the gateway."""
    required = leg.required(alone)
    others = {name for name, one in alone.items() if one.passed and one.successes} - required
    checks = [check for name in required for check in outcome[name].checks]
    return (
        SERVERS[leg.fixture],
        TRANSPORTS[leg.transport],
        leg.wire,
        f"{sum(outcome[name].passed for name in required)} of {len(required)}",
        str(sum(check.status == "SUCCESS" for check in checks)),
        str(sum(check.status in {"FAILURE", "WARNING"} for check in checks)),
        f"{sum(outcome[name].passed for name in others)} of {len(others)}" if others else "none",
    )


def client_row(leg: ClientLeg, outcome: Outcome) -> Row:
    """One client scenario: how many of its checks succeed."""
    return (leg.scenario, leg.wire, f"{outcome[leg.scenario].successes} of {leg.successes}")


def with_tables(page: str, servers: Sequence[Row], clients: Sequence[Row]) -> str:
    """The page with these tables in place of the ones it has."""
    page = _replaced(page, "servers", _table(_SERVER_HEAD, servers))
    return _replaced(page, "clients", _table(_CLIENT_HEAD, clients))


def _table(head: Row, rows: Sequence[Row]) -> str:
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _replaced(page: str, name: str, table: str) -> str:
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, begun, rest = page.partition(begin)
    _, ended, after = rest.partition(end)
    if not (begun and ended):
        raise AssertionError(f"{PAGE.name} has no place for the table of {name}")
    return f"{before}{begin}\n\n{table}\n\n{end}{after}"
