"""What went wrong last under one key, and who may hear of it."""

from __future__ import annotations

from collections.abc import Iterable

from open_mcp_gateway.auth.principal import Holder, Platform
from open_mcp_gateway.errors import UpstreamUnavailable
from open_mcp_gateway.supervisor.policy import COMMON, InstanceKey, retry_after_s
from open_mcp_gateway.supervisor.site import Site


class Trouble:
    """May quote what the server wrote while it worked for somebody, so it is not for everybody."""

    __slots__ = ("_key", "_site", "_told", "text")

    def __init__(self, site: Site, key: InstanceKey) -> None:
        self._site = site
        self._key = key
        self.text: str | None = None
        self._told: frozenset[Holder] = frozenset()

    def because(self, text: str, told: Iterable[Holder] = ()) -> str:
        """Keep ``text`` without the server's secrets, and give it back so; ``told`` are those who
        waited for an instance that is everybody's."""
        self._told = frozenset(told)
        self.text = self._site.blame(self._key, text, self._told)
        return self.text

    def give_up(self, failures: int) -> None:
        """So often in a row that nothing is tried again without being asked for."""
        self._site.give_up(self._key, failures)
        self.because(f"{self.text} (failed {failures} times in a row)", self._told)

    def known_to(self, holder: Holder) -> str | None:
        """What ``holder`` may hear of it."""
        own = self._key.of is not COMMON
        return self.text if own or isinstance(holder, Platform) or holder in self._told else None

    def error(self, holder: Holder, due_s: float, cause: str | None) -> UpstreamUnavailable:
        """Why no call of ``holder`` can be taken before ``due_s``: ``cause`` is what it waited for
        and came to nothing."""
        site = self._site
        return UpstreamUnavailable(
            cause or self.known_to(holder) or f"Server '{site.server_id}' is not available",
            retry_after_s=retry_after_s(due_s, site.now_s()),
        )
