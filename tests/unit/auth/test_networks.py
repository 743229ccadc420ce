"""Networks in networks, against the plain way of asking, and how long that takes."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from open_mcp_gateway.auth.identify import shared, within
from open_mcp_gateway.auth.networks import Network, covering
from tests.steps import calls_in

MANY: Final = 300

_fours = st.builds(
    lambda bits, length: IPv4Network((bits << 28, length), strict=False),
    st.integers(0, 15),
    st.integers(0, 4) | st.just(32),
)
_sixes = st.builds(
    lambda bits, length: IPv6Network((bits << 124, length), strict=False),
    st.integers(0, 15),
    st.integers(0, 4) | st.just(128),
)
networks = st.lists(_fours | _sixes, max_size=6)


def plainly(inner: Network, outer: Network) -> bool:
    if isinstance(inner, IPv4Network):
        return isinstance(outer, IPv4Network) and inner.subnet_of(outer)
    return isinstance(outer, IPv6Network) and inner.subnet_of(outer)


@given(networks, networks)
def test_within_a_single_one(inner: list[Network], outer: list[Network]) -> None:
    covers = covering(outer)
    assert [covers(one) for one in inner] == [
        any(plainly(one, each) for each in outer) for one in inner
    ]


def test_among_many_it_takes_no_longer_than_to_sort_them() -> None:
    one = tuple(ip_network(f"10.{n // 250}.{n % 250}.0/25") for n in range(MANY))
    other = tuple(ip_network(f"10.{n // 250}.{n % 250}.0/24") for n in reversed(range(MANY)))
    assert within(one, other)
    assert calls_in(lambda: within(one, other)) < 200 * MANY
    assert calls_in(lambda: shared(one, other)) < 400 * MANY
