"""Why instances end."""

from __future__ import annotations

import enum


class Ending(enum.StrEnum):
    """Why an instance ends; the text goes into the log and, where a caller waits, to the caller."""

    IDLE = "not used for its idle timeout"
    ASKED = "stopped on request"
    EVICTED = "stopped to make room for another caller"
    REPLACED = "replaced by a new one"
    REMOVED = "removed from the catalog"
    REGROUPED = "its isolation was changed"
    RELEASED = "its client session is over"
    DESERTED = "nobody that it is for may use it any more"
    DECLINED = "does not speak the protocol era asked for"
    LOST = "ended by itself"
    HUNG = "does not answer health checks"
    SHUTDOWN = "the gateway is stopping"
