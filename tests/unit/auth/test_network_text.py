"""Networks as they are written."""

from __future__ import annotations

import random
from ipaddress import IPv4Network, IPv6Network, ip_network

import pytest

from open_mcp_gateway.auth.network_text import Networks, networks_of, wrong_network


@pytest.mark.parametrize("text", ["10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "::1", "::/0"])
def test_what_is_a_network(text: str) -> None:
    assert wrong_network(text) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "is no network"),
        ("*", "is no network"),
        ("10.0.0.0/33", "is no network"),
        ("10.0.0.0/255.0.0.0", "is no network"),
        ("fe80::1%eth0", "is no network"),
        ("1" * 100_000, "is no network"),
        ("10.1.0.0/8", "has bits set beyond its prefix; write 10.0.0.0/8"),
        ("::ffff:127.0.0.0/104", "is IPv4 written as IPv6, which fits no caller"),
        ("::ffff:192.0.2.7", "is IPv4 written as IPv6, which fits no caller"),
    ],
)
def test_what_can_fit_nobody(text: str, words: str) -> None:
    assert (wrong_network(text) or "").startswith(words)


def some_network(chance: random.Random) -> str:
    """Of few addresses, so that many lie within each other."""
    if chance.random() < 0.5:
        length = chance.randint(0, 8)
        return str(
            IPv4Network((chance.randrange(256) << 24 >> (32 - length) << (32 - length), length))
        )
    length = chance.randint(0, 8)
    return str(
        IPv6Network((chance.randrange(256) << 120 >> (128 - length) << (128 - length), length))
    )


def naive(inner: str, outer: list[str]) -> bool:
    own = ip_network(inner)
    for one in map(ip_network, outer):
        if isinstance(own, IPv4Network) and isinstance(one, IPv4Network) and own.subnet_of(one):
            return True
        if isinstance(own, IPv6Network) and isinstance(one, IPv6Network) and own.subnet_of(one):
            return True
    return False


def test_a_network_lies_within_others_as_each_pair_says() -> None:
    chance = random.Random(4)
    for _ in range(500):
        outer = [some_network(chance) for _ in range(chance.randint(0, 6))]
        known = Networks(outer)
        for inner in (some_network(chance) for _ in range(20)):
            assert (inner in known) == naive(inner, outer), (inner, outer)


def test_no_networks_are_not_nowhere() -> None:
    assert networks_of(None) is None
    nowhere = networks_of(())
    assert nowhere is not None
    assert "10.0.0.0/8" not in nowhere
