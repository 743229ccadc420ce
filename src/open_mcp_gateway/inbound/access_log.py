"""A line per request, for those who asked for it. Never headers, bodies or query strings."""

from __future__ import annotations

import enum
import logging
import time

from open_mcp_gateway.inbound.arrival import Arrival
from open_mcp_gateway.pipeline.reply import AUTH_REASON, Reply

log = logging.getLogger("open_mcp_gateway.access")

MAX_SHOWN_BYTES = 256
"""Of a path; nobody's log is filled with what a stranger makes up."""


class AccessLog(enum.StrEnum):
    """Which requests get a line in the log."""

    ERRORS = "errors"
    """Those answered with a status of 400 or more."""

    ALL = "all"
    OFF = "off"


def record(mode: AccessLog, arrival: Arrival, reply: Reply) -> None:
    """Write the line for an answered request if ``mode`` wants it."""
    if mode is AccessLog.OFF or (mode is AccessLog.ERRORS and reply.status < 400):
        return
    # Taken from the answer, so that the log says what the owner of the key was told.
    reason = dict(reply.headers).get(AUTH_REASON)
    log.info(
        "request",
        extra={
            "method": arrival.method.decode("ascii", "backslashreplace"),
            "path": arrival.path[:MAX_SHOWN_BYTES].decode("ascii", "backslashreplace"),
            "status": reply.status,
            "duration_ms": round((time.perf_counter() - arrival.started_s) * 1000, 3),
            "client": arrival.client,
            "key_id": arrival.key_id,
            "reason": None if reason is None else reason.decode("ascii"),
            "request_id": arrival.request_id,
        },
    )
