"""What earlier openings found out about servers, so that later ones need not ask again."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

from msgspec import Struct, field

from open_mcp_gateway.catalog.model import CatalogEntry, EraChoice, Runtime
from open_mcp_gateway.errors import EraNotSpoken
from open_mcp_gateway.names import ServerId
from open_mcp_gateway.outbound.handshake import versions_of
from open_mcp_gateway.outbound.peer import Handshake
from open_mcp_gateway.protocol.eras import LEGACY_VERSIONS, MODERN_VERSIONS, Era

MAX_REMEMBERED = 10_000
"""Servers; the oldest verdict goes first. More than a catalog holds, so a bound and no more."""

DENIAL_S: Final = 300.0
"""How long a server that does not speak an era is not asked for it again: a newer one may have
taken its place, and nothing tells of that."""

_VERSIONS: Final = {Era.MODERN: MODERN_VERSIONS, Era.LEGACY: LEGACY_VERSIONS}
_OTHER: Final = {Era.MODERN: Era.LEGACY, Era.LEGACY: Era.MODERN}
_CHOSEN: Final = {EraChoice.MODERN: Era.MODERN, EraChoice.LEGACY: Era.LEGACY}


class Verdict(Struct, frozen=True, kw_only=True):
    """How to open a server for a caller that has no era of its own."""

    era: Era
    flavour: str | None = None
    """Over HTTP, which of its transports; None where there is only one."""


class _Known(Struct):
    runtime: Runtime
    env: dict[str, str]
    verdict: Verdict | None = None
    spoken: dict[Era, tuple[str, ...]] = field(default_factory=dict)
    """By era what the server is known to speak of it; empty: it does not speak it at all."""
    denied_s: float = 0.0
    """When it last said so."""


class EraVerdicts:
    """Verdicts by server and definition: a server defined anew is asked anew.

    Only what a server answered may be remembered: a timeout, a crash or a network error says
    nothing about how it speaks.
    """

    __slots__ = ("_known", "_now_s")

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self._now_s = now_s
        self._known: dict[ServerId, _Known] = {}

    def recall(self, entry: CatalogEntry) -> Verdict | None:
        known = self._recalled(entry)
        return None if known is None else known.verdict

    def remember(self, entry: CatalogEntry, verdict: Verdict) -> None:
        known = self._renewed(entry)
        known.verdict = verdict
        if not known.spoken.get(verdict.era):
            known.spoken[verdict.era] = _VERSIONS[verdict.era][-1:]

    def forget(self, entry: CatalogEntry) -> None:
        """The verdict stopped holding; the next opening probes."""
        self._known.pop(entry.spec.id, None)

    def learn(self, entry: CatalogEntry, handshake: Handshake) -> None:
        """The server speaks that era."""
        versions = tuple(map(entry.scrub, versions_of(handshake)))
        self._renewed(entry).spoken[handshake.era] = versions

    def deny(self, entry: CatalogEntry, era: Era) -> None:
        """The server answered that it does not speak ``era``, and spoke the other one."""
        known = self._renewed(entry)
        known.spoken[era] = ()
        known.denied_s = self._now_s()

    def pardon(self, server_id: ServerId) -> None:
        """What the server did not speak it may speak by now. How to open it stays known."""
        known = self._known.get(server_id)
        if known is not None:
            known.spoken = {era: versions for era, versions in known.spoken.items() if versions}

    def speaks(self, entry: CatalogEntry, era: Era) -> bool | None:
        """None where that is not known. The catalog's word, if it has one, is final."""
        chosen = _CHOSEN.get(entry.spec.era)
        if chosen is not None:
            return chosen is era
        known = self._recalled(entry)
        spoken = None if known is None else known.spoken.get(era)
        if known is None or spoken is None:
            return None
        return bool(spoken) or (None if self._now_s() - known.denied_s >= DENIAL_S else False)

    def refuse_unspoken(self, entry: CatalogEntry, era: Era | None) -> None:
        """See to it that no server is asked what it is known not to speak.

        Raises:
            EraNotSpoken: it does not speak ``era`` (None: any will do).
        """
        if era is not None and self.speaks(entry, era) is False:
            raise self.not_spoken(entry, era)

    def not_spoken(self, entry: CatalogEntry, era: Era) -> EraNotSpoken:
        """What to say to a caller that needs ``era``."""
        other = _OTHER[era]
        known = self._recalled(entry)
        spoken = () if known is None else known.spoken.get(other, ())
        if not spoken and _CHOSEN.get(entry.spec.era) is other:
            spoken = _VERSIONS[other]
        kind = "stateless requests" if era is Era.MODERN else "sessions"
        text = f"Server '{entry.spec.id}' does not speak a protocol version with {kind}"
        instead = f"; it speaks {', '.join(spoken)}" if spoken else ""
        return EraNotSpoken(f"{text}{instead}", spoken=spoken)

    def _recalled(self, entry: CatalogEntry) -> _Known | None:
        known = self._known.get(entry.spec.id)
        if known is None or known.runtime != entry.spec.runtime or known.env != entry.spec.env:
            return None
        return known

    def _renewed(self, entry: CatalogEntry) -> _Known:
        """What is known of this definition, as the newest of all."""
        known = self._recalled(entry) or _Known(entry.spec.runtime, entry.spec.env)
        self._known.pop(entry.spec.id, None)
        self._known[entry.spec.id] = known
        if len(self._known) > MAX_REMEMBERED:
            del self._known[next(iter(self._known))]
        return known
