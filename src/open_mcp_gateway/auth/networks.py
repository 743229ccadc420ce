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
    lasts = list(accumulate((last for _, last in spans), max))

    def covers(inner: Network) -> bool:
        first, last = _span(inner)
        before = bisect_right(firsts, first)
        return before > 0 and lasts[before - 1] >= last

    return covers


def _span(network: Network) -> tuple[tuple[int, int], tuple[int, int]]:
    """First and last address; those of IPv6 come after all of IPv4."""
    version = network.version
    return (version, int(network[0])), (version, int(network[-1]))
