"""Bounds of the transports out."""

from __future__ import annotations

from msgspec import Struct


class OutboundSettings(Struct, frozen=True, kw_only=True):
    """Bounds that are the same for every server. Times in seconds, sizes in bytes."""

    stop_grace_s: float = 2.0
    """From closing stdin to SIGTERM."""

    term_grace_s: float = 3.0
    """From SIGTERM to SIGKILL, for the whole process group."""

    probe_silence_s: float = 3.0
    """How long a stdio server may leave ``server/discover`` unanswered before it counts as legacy.
    Within the 2 to 5 s that the specification's guidance gives."""

    max_message_bytes: int = 64 * 1024 * 1024
    """Longest message taken from a server: one line on stdio, one body or event over HTTP."""

    max_send_buffer_bytes: int = 16 * 1024 * 1024
    """Bytes waiting for a server that does not read; beyond that callers get Busy."""

    stderr_lines: int = 200
    """Last lines of a server's stderr kept for errors."""

    connect_timeout_s: float = 10.0
    pool_idle_s: float = 60.0
    """An unused keep-alive connection is closed after this."""

    max_connections_per_origin: int = 256
    """HTTP connections to one server; further calls wait for a free one."""
