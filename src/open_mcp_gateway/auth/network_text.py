"""Networks as they are written, wherever that is: what is wrong with one, and which of them lie
within others. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import IPv6Network, ip_address, ip_network
from typing import Final, final

from open_mcp_gateway.auth.networks import covering

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

    __slots__ = ("_covers",)

    def __init__(self, texts: Iterable[str]) -> None:
        """Raises ValueError: one of ``texts`` is no network."""
        self._covers = covering(map(ip_network, texts))

    def __contains__(self, text: str) -> bool:
        """Whether ``text``, which is a network, lies within one of these. One that only several of
        them cover together does not."""
        return self._covers(ip_network(text))


def networks_of(texts: Iterable[str] | None) -> Networks | None:
    """Those of a key; None: from anywhere. Raises ValueError: one is no network."""
    return None if texts is None else Networks(texts)
