"""A local process of the catalog, from its entry to an open peer."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from open_mcp_gateway.catalog.model import CatalogEntry, EraChoice, LocalProcess
from open_mcp_gateway.errors import (
    EraNotSpoken,
    InternalError,
    UpstreamError,
    UpstreamUnavailable,
)
from open_mcp_gateway.outbound.child import Launch, find_program
from open_mcp_gateway.outbound.duplex import DuplexPeer
from open_mcp_gateway.outbound.environment import child_environment, owner_mark
from open_mcp_gateway.outbound.greeting import DiedAsking, Plan, greet
from open_mcp_gateway.outbound.handshake import NoWay
from open_mcp_gateway.outbound.peer import Handshake, Manner, Peer
from open_mcp_gateway.outbound.settings import OutboundSettings
from open_mcp_gateway.outbound.stderr import StderrTail
from open_mcp_gateway.outbound.stdio import StdioChannel
from open_mcp_gateway.outbound.verdicts import EraVerdicts, Verdict
from open_mcp_gateway.protocol.eras import Era

_log = logging.getLogger(__name__)


async def open_local(
    entry: CatalogEntry,
    manner: Manner,
    settings: OutboundSettings,
    verdicts: EraVerdicts,
    environ: Mapping[str, str],
) -> Peer:
    """Start the process and do the handshake. The caller bounds the time; cancelled or failed,
    nothing of the attempt is left behind.

    Raises:
        EraNotSpoken: the server does not speak the era that ``manner`` asks for.
        UpstreamUnavailable: with the cause, scrubbed.
    """
    verdicts.refuse_unspoken(entry, manner.era)
    try:
        start = _Start(entry, manner, settings, _launch(entry, environ))
        return await _open(start, verdicts)
    except EraNotSpoken:
        raise
    except UpstreamUnavailable as error:
        raise UpstreamUnavailable(entry.scrub(f"Server '{entry.spec.id}' {error.public}")) from None


class _Start(NamedTuple):
    """How to start the process."""

    entry: CatalogEntry
    manner: Manner
    settings: OutboundSettings
    launch: Launch


async def _open(start: _Start, verdicts: EraVerdicts) -> Peer:
    entry = start.entry
    known = verdicts.recall(entry)
    plan = _plan(entry.spec.era, start.manner.era, known)
    try:
        outcome = await _attempt(start, plan)
    except BaseException:
        if plan is Plan.MODERN_FIRST:
            verdicts.forget(entry)  # it waits out silence, so it must not outlive one failure
        raise
    if isinstance(outcome, NoWay) and known is not None and entry.spec.era is EraChoice.AUTO:
        verdicts.forget(entry)
        if plan is not Plan.LEGACY_FIRST:
            plan = Plan.FIND_OUT
            outcome = await _attempt(start, plan)
    if isinstance(outcome, DiedAsking):
        outcome = await _attempt(start, Plan.LEGACY_ONLY)
    if not isinstance(outcome, DuplexPeer):
        raise UpstreamUnavailable(
            outcome.reason if isinstance(outcome, NoWay) else "ended during the handshake"
        )
    found = outcome.handshake
    if entry.spec.era is EraChoice.AUTO:
        _learn(entry, plan, found, verdicts)
    if start.manner.era is not None and start.manner.era is not found.era:
        await outcome.aclose()
        raise verdicts.not_spoken(entry, start.manner.era)
    return outcome


_ASKED_FIRST: Final = {
    Plan.FIND_OUT: Era.MODERN,
    Plan.MODERN_FIRST: Era.MODERN,
    Plan.MODERN_ONLY: Era.MODERN,
    Plan.LEGACY_FIRST: Era.LEGACY,
    Plan.LEGACY_ONLY: Era.LEGACY,
}


def _learn(entry: CatalogEntry, plan: Plan, found: Handshake, verdicts: EraVerdicts) -> None:
    """What an opening that succeeded says about the server."""
    verdicts.learn(entry, found)
    if found.era is not _ASKED_FIRST[plan]:
        verdicts.deny(entry, _ASKED_FIRST[plan])
    if plan is not Plan.LEGACY_FIRST or found.era is Era.MODERN:
        verdicts.remember(entry, Verdict(era=found.era))


def _plan(choice: EraChoice, wanted: Era | None, known: Verdict | None) -> Plan:
    match choice:
        case EraChoice.MODERN:
            return Plan.MODERN_ONLY
        case EraChoice.LEGACY:
            return Plan.LEGACY_ONLY
        case EraChoice.AUTO:
            if wanted is Era.LEGACY:
                return Plan.LEGACY_FIRST
            if known is not None and known.era is Era.MODERN:
                return Plan.MODERN_FIRST
            return Plan.FIND_OUT if known is None or wanted is Era.MODERN else Plan.LEGACY_ONLY


def _launch(entry: CatalogEntry, environ: Mapping[str, str]) -> Launch:
    runtime = entry.spec.runtime
    if not isinstance(runtime, LocalProcess):
        raise InternalError(f"Server '{entry.spec.id}' is not a local process")
    env = child_environment(environ, entry.spec.env, owner_mark())
    return Launch(
        program=find_program(runtime.command, runtime.working_dir, env),
        args=runtime.args,
        working_dir=runtime.working_dir,
        env=env,
    )


async def _attempt(start: _Start, plan: Plan) -> DuplexPeer | NoWay | DiedAsking:
    """One process, asked by ``plan``; it is gone again unless it is returned.

    Raises:
        UpstreamUnavailable: it could not be started, or ended before it was ready.
    """
    entry, manner, settings, launch = start
    channel = StdioChannel(settings)
    peer = DuplexPeer(entry, channel)
    stderr = StderrTail(settings.stderr_lines, entry.scrub, _stderr_logger(entry))
    await channel.open(launch, peer, stderr, settings)
    _log.info("process started", extra={"server": entry.spec.id, "pid": peer.pid})
    opened = False
    try:
        greeting = await greet(peer, plan, silence_s=settings.probe_silence_s, manner=manner)
        if not isinstance(greeting, Handshake):
            return greeting
        peer.settle(greeting)
        opened = True
        return peer
    except UpstreamError as error:
        loss = peer.loss
        if loss is None:
            raise UpstreamUnavailable(f"failed in the handshake: {error.public}") from error
        raise UpstreamUnavailable(
            f"{loss.what} before it was ready (command '{launch.program}'). {loss.detail}".rstrip()
        ) from error
    finally:
        if not opened:
            await peer.aclose()


def _stderr_logger(entry: CatalogEntry) -> Callable[[str], None]:
    def log_line(text: str) -> None:
        if _log.isEnabledFor(logging.DEBUG):
            line = entry.scrub(text)
            _log.debug("stderr", extra={"server": entry.spec.id, "text": line})

    return log_line
