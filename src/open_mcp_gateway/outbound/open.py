"""From a catalog entry to a live peer: the only switch on the kind of runtime."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from open_mcp_gateway.catalog.model import CatalogEntry, LocalProcess, Remote
from open_mcp_gateway.errors import UpstreamUnavailable
from open_mcp_gateway.outbound.local import open_local
from open_mcp_gateway.outbound.peer import ANY_MANNER, Manner, Peer
from open_mcp_gateway.outbound.remote import open_remote
from open_mcp_gateway.outbound.settings import OutboundSettings
from open_mcp_gateway.outbound.verdicts import EraVerdicts
from open_mcp_gateway.protocol.nesting import gave_up_reading


class Opener(Protocol):
    """Starts or reaches a server and does the handshake."""

    async def __call__(self, entry: CatalogEntry, manner: Manner = ANY_MANNER) -> Peer:
        """A peer past its handshake, which is of the era that ``manner`` asks for.

        The caller bounds the time; cancelled or failed, nothing of the attempt is left behind (no
        process, no socket).

        Raises:
            EraNotSpoken: the server does not speak that era: a verdict, not a failure.
            UpstreamUnavailable: with the cause (command, exit code, last stderr lines; scrubbed).
        """


def opener_for(
    settings: OutboundSettings, environ: Mapping[str, str], verdicts: EraVerdicts | None = None
) -> Opener:
    """An opener for every runtime; ``environ`` is what children and proxies may draw on, and
    ``verdicts`` what is known of servers already."""
    known = EraVerdicts() if verdicts is None else verdicts

    async def open_entry(entry: CatalogEntry, manner: Manner = ANY_MANNER) -> Peer:
        try:
            return await open_runtime(entry, manner)
        except RecursionError as error:
            if not gave_up_reading(error):
                raise
            text = "answered the handshake with JSON nested too deeply"
            raise UpstreamUnavailable(f"Server '{entry.spec.id}' {text}") from error

    async def open_runtime(entry: CatalogEntry, manner: Manner) -> Peer:
        runtime = entry.spec.runtime
        if isinstance(runtime, LocalProcess):
            return await open_local(entry, manner, settings, known, environ)
        if isinstance(runtime, Remote):
            return await open_remote(entry, manner, settings, known, environ)
        raise UpstreamUnavailable(
            f"runtime '{entry.runtime_type}' is known but cannot be started by this version; "
            "use local-process, remote-http or remote-sse"
        )

    return open_entry
