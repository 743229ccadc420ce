"""The states a server can be in, and what is reported of one."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from datetime import datetime
from typing import Final

from msgspec import Struct


class ServerState(enum.StrEnum):
    STOPPED = "stopped"
    STARTING = "starting"
    RUNNING = "running"
    SHUTTING_DOWN = "shutting_down"
    UNHEALTHY = "unhealthy"


LEGAL: Final[dict[ServerState, frozenset[ServerState]]] = {
    ServerState.STOPPED: frozenset({ServerState.STARTING, ServerState.UNHEALTHY}),
    # A start that failed or was given up leaves nothing; one of a series of restarts leaves the
    # server unhealthy until the next.
    ServerState.STARTING: frozenset(
        {ServerState.RUNNING, ServerState.STOPPED, ServerState.UNHEALTHY}
    ),
    ServerState.RUNNING: frozenset({ServerState.SHUTTING_DOWN, ServerState.UNHEALTHY}),
    ServerState.UNHEALTHY: frozenset(
        {
            ServerState.STARTING,
            ServerState.RUNNING,
            ServerState.SHUTTING_DOWN,
            ServerState.STOPPED,
        }
    ),
    ServerState.SHUTTING_DOWN: frozenset({ServerState.STOPPED}),
}
"""What each state of one instance can turn into."""

_MOST_TELLING: Final = (
    ServerState.RUNNING,
    ServerState.STARTING,
    ServerState.UNHEALTHY,
    ServerState.SHUTTING_DOWN,
)


def can_become(old: ServerState, new: ServerState) -> bool:
    """Whether an instance in state ``old`` may turn to ``new``."""
    return new in LEGAL[old]


def overall(states: Iterable[ServerState]) -> ServerState:
    """The state of a server with instances in ``states``: what the next caller may hope for.

    Running if any runs, else starting, else unhealthy, else shutting down, else stopped.
    """
    present = frozenset(states)
    return next((state for state in _MOST_TELLING if state in present), ServerState.STOPPED)


class ServerStatus(Struct, frozen=True, kw_only=True):
    """What is known of one server now."""

    state: ServerState
    started_at: datetime | None = None
    last_activity: datetime | None = None
    request_count: int = 0
    error_count: int = 0
    uptime_seconds: int | None = None
    """None while it does not run."""

    connection_count: int = 0
    """Live processes or sessions."""

    last_error: str | None = None
