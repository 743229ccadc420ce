"""Which proxy a URL goes through."""

from __future__ import annotations

import pytest

from open_mcp_gateway.outbound.endpoint import BadUrl, parse
from open_mcp_gateway.outbound.proxy import Proxy, proxy_for

PROXY = "http://proxy.test:3128"


def found(url: str, **environ: str) -> Proxy | None:
    return proxy_for(parse(url).origin, environ)


@pytest.mark.parametrize(
    ("url", "variable"),
    [
        ("http://a.test", "http_proxy"),
        ("http://a.test", "HTTP_PROXY"),
        ("https://a.test", "https_proxy"),
        ("https://a.test", "HTTPS_PROXY"),
        ("https://a.test", "ALL_PROXY"),
    ],
)
def test_by_scheme_in_either_case(url: str, variable: str) -> None:
    assert found(url, **{variable: PROXY}) == Proxy("proxy.test", 3128)


def test_the_lower_case_variable_wins() -> None:
    both = found("http://a.test", http_proxy="http://low", HTTP_PROXY="http://up")
    assert both == Proxy("low", 80)


def test_the_other_schemes_variable_is_not_used() -> None:
    assert found("https://a.test", http_proxy=PROXY) is None
    assert found("http://a.test", https_proxy=PROXY) is None


def test_empty_means_none() -> None:
    assert found("http://a.test", http_proxy=" ", HTTP_PROXY="") is None


@pytest.mark.parametrize("host", ["localhost", "api.localhost", "127.0.0.1", "127.9.9.9", "[::1]"])
def test_loopback_is_never_proxied(host: str) -> None:
    assert found(f"http://{host}", http_proxy=PROXY) is None


@pytest.mark.parametrize(
    ("host", "no_proxy", "direct"),
    [
        ("a.test", "*", True),
        ("a.test", "a.test", True),
        ("a.test", "b.test, a.test", True),
        ("a.test", "A.TEST", True),
        ("x.a.test", "a.test", True),
        ("x.a.test", ".a.test", True),
        ("x.a.test", "*.a.test", True),
        ("xa.test", "a.test", False),
        ("a.test", "a.test:80", True),
        ("a.test", "a.test:81", False),
        ("10.1.2.3", "10.0.0.0/8", True),
        ("11.1.2.3", "10.0.0.0/8", False),
        ("a.test", "10.0.0.0/8", False),
        ("[fd00::1]", "fd00::/8", True),
        ("[fd00::1]", "fd00::1", True),
        ("[fd00::1]", "[fd00::1]:80", True),
        ("[fd00::1]", "[fd00::1]:81", False),
        ("10.1.2.3", "nonsense/8", False),
        ("a.test", "", False),
        ("a.test", ",. ,", False),
    ],
)
def test_no_proxy(host: str, no_proxy: str, direct: bool) -> None:
    assert (found(f"http://{host}", http_proxy=PROXY, no_proxy=no_proxy) is None) == direct


def test_credentials_and_a_missing_scheme() -> None:
    assert found("http://a.test", http_proxy="user:test-key@proxy.test:1") == Proxy(
        "proxy.test", 1, b"Basic dXNlcjp0ZXN0LWtleQ=="
    )


@pytest.mark.parametrize("proxy", ["https://p", "socks5://p", "http://", "http://p:x"])
def test_odd_proxies_are_refused_by_name(proxy: str) -> None:
    with pytest.raises(BadUrl, match="HTTPS_PROXY"):
        found("https://a.test", https_proxy=proxy)
