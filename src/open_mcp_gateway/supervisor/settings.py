"""How long servers may take, idle and be waited for."""

from __future__ import annotations

from msgspec import Struct

from open_mcp_gateway.catalog.model import Isolation


class FleetSettings(Struct, frozen=True, kw_only=True):
    """What holds for every server that does not say otherwise itself. Times in seconds."""

    idle_timeout_s: float = 300.0
    """Stop a server that nobody has used for this long; 0 never does."""

    health_check_interval_s: float = 30.0
    """Between two probes of a server that answers no calls meanwhile; 0 probes never."""

    health_check_timeout_s: float = 10.0
    """A probe waits this long, and never longer than the interval."""

    failed_checks: int = 3
    """Probes in a row without an answer that make a server unhealthy."""

    start_timeout_s: float = 60.0
    """From launch to the end of the handshake."""

    stop_timeout_s: float = 15.0
    """Bound of one orderly stop; above the sum of the transports' own grace times."""

    drain_timeout_s: float = 600.0
    """How long a replaced, removed or unresponsive server may keep the calls it has: as long as the
    longest call may take."""

    max_connections_per_server: int = 10
    """Processes or sessions of one server at one time within one isolation scope. A replacement may
    exceed it by itself until the one it replaces is gone."""

    first_backoff_s: float = 0.5
    """Wait before the second restart in a row (the first comes at once); doubles from there on."""

    max_backoff_s: float = 30.0
    stable_after_s: float = 10.0
    """A server that ran this long had a good start: what failed before no longer counts."""

    max_restarts: int = 5
    """Automatic restarts in a row; after that only a request or an explicit start tries again."""

    patience_s: float = 1.0
    """A request waits for a restart that is due within this time, and fails at once otherwise."""

    refusal_s: float = 60.0
    """A server that turned out not to speak an era is not asked for it again for this long."""

    default_isolation: Isolation = Isolation.SHARED
    """For servers whose catalog entry does not say."""
