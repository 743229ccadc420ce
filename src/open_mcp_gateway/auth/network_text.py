"""Networks as they are written, wherever that is: what is wrong with one, and which of them lie
within others. Pure."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable
from ipaddress import IPv6Network, ip_address, ip_network
from typing import Final, final

_NETWORK: Final = re.compile(r"[0-9A-Fa-f.:]+(?:/[0-9]{1,3})?")
_WRONG: Final = "is no network or address; write e.g. 10.0.0.0/8, 192.0.2.7 or 2001:db8::/32"


def wrong_network(text: str) -> str | None:
    """What is wrong with it, and how to mend it; None when nothing is. What can fit no caller is
    wrong: zones, since addresses are compared without theirs, and IPv4 in the dress of IPv6."""
    try:
        network = ip_network(text, strict=False) if _NETWORK.fullmatch(text) else None
    except ValueError:
        network = None
    if network is None:
        return _WRONG
    if ip_address(text.partition("/")[0]) != network.network_address:
        return f"has bits set beyond its prefix; write {network}"
    if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped is not None:
        return "is IPv4 written as IPv6, which fits no caller; write it as IPv4"
    return None


@final
class Networks:
    """Written networks, read once and asked often."""

    __slots__ = ("_spans",)

    def __init__(self, texts: Iterable[str]) -> None:
        """Raises ValueError: one of ``texts`` is no network."""
        spans: dict[int, list[tuple[int, int]]] = {4: [], 6: []}
        for network in map(ip_network, texts):
            first, last = int(network.network_address), int(network.broadcast_address)
            spans[network.version].append((first, last))
        self._spans = {version: _apart(found) for version, found in spans.items()}

    def __contains__(self, text: str) -> bool:
        """Whether ``text``, which is a network, lies within one of these. One that only several of
        them cover together does not."""
        network = ip_network(text)
        firsts, lasts = self._spans[network.version]
        before = bisect_right(firsts, int(network.network_address))
        return before > 0 and int(network.broadcast_address) <= lasts[before - 1]


def networks_of(texts: Iterable[str] | None) -> Networks | None:
    """Those of a key; None: from anywhere. Raises ValueError: one is no network."""
    return None if texts is None else Networks(texts)


def _apart(spans: list[tuple[int, int]]) -> tuple[list[int], list[int]]:
    """The first and last addresses of the widest, in order. Two networks either lie apart or one
    within the other, so nothing else is lost."""
    firsts, lasts = [], []
    end = -1
    for first, last in sorted(spans, key=lambda span: (span[0], -span[1])):
        if last > end:
            firsts.append(first)
            lasts.append(last)
            end = last
    return firsts, lasts
