"""Many networks compared with many, in about the time it takes to sort them. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable
from ipaddress import IPv4Network, IPv6Network
from itertools import accumulate
from typing import TypeAlias

Network: TypeAlias = IPv4Network | IPv6Network


def covering(outer: Iterable[Network]) -> Callable[[Network], bool]:
    """Who says of a network whether it is within a single one of ``outer``."""
    spans = sorted(map(_span, outer))
    firsts = [first for first, _ in spans]
    # Of those that begin no later, the one that ends last covers whatever any of them covers.
    ends = list(accumulate((end for _, end in spans), max))

    def covers(inner: Network) -> bool:
        first, end = _span(inner)
        before = bisect_right(firsts, first)
        return before > 0 and ends[before - 1] >= end

    return covers


def _span(network: Network) -> tuple[tuple[int, int], tuple[int, int]]:
    """The first address, and what comes after the last; those of IPv6 come after all of IPv4."""
    version, first = network.version, int(network.network_address)
    addresses = 1 << (network.max_prefixlen - network.prefixlen)
    return (version, first), (version, first + addresses)
