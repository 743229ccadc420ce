"""URLs taken apart."""

from __future__ import annotations

import pytest

from open_mcp_gateway.outbound.endpoint import BadUrl, parse


@pytest.mark.parametrize(
    ("url", "origin", "target", "place"),
    [
        ("http://a", "http://a", "/", "a:80"),
        ("HTTPS://A.Test/mcp?x=1#f", "https://a.test", "/mcp?x=1", "a.test:443"),
        ("http://a:8080/mcp/", "http://a:8080", "/mcp/", "a:8080"),
        ("https://a:443/", "https://a", "/", "a:443"),
        ("http://[::1]:9/x", "http://[::1]:9", "/x", "[::1]:9"),
        ("http://bücher.test/ü b", "http://xn--bcher-kva.test", "/%C3%BC%20b", None),
        (" http://a/%2F%20?q=%26&r=a+b ", "http://a", "/%2F%20?q=%26&r=a+b", None),
    ],
)
def test_parses(url: str, origin: str, target: str, place: str | None) -> None:
    endpoint = parse(url)
    assert (str(endpoint.origin), endpoint.target) == (origin, target)
    assert place is None or endpoint.origin.place == place


@pytest.mark.parametrize(
    "url",
    ["", "a", "/mcp", "ftp://a", "http://", "http://:80", "http://a:b", "http://a:99999",
     "http://[::1", "http://a b/", "file:///etc/passwd"],
)  # fmt: skip
def test_refuses(url: str) -> None:
    with pytest.raises(BadUrl):
        parse(url)


def test_line_ends_cannot_get_into_a_request() -> None:
    endpoint = parse("http://a/x\r\nHost: evil\t?y\n=1")
    assert not set(endpoint.target) & set("\r\n\t ")


def test_userinfo_becomes_basic_credentials_and_is_never_shown() -> None:
    endpoint = parse("http://us%40er:p%3Aw@a/mcp?token=test-key")
    assert endpoint.basic == b"dXNAZXI6cDp3"
    assert str(endpoint) == "http://a/mcp"


@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("/messages?id=1", "http://a/messages?id=1"),
        ("messages", "http://a/x/messages"),
        ("http://b/", "http://b/"),
        ("//b/c", "http://b/c"),
        ("?id=2", "http://a/x/sse?id=2"),
    ],
)
def test_references_are_resolved_without_credentials(reference: str, expected: str) -> None:
    found = parse("http://u:p@a/x/sse").beside(reference)
    assert f"{found.origin}{found.target}" == expected
    assert found.basic is None


@pytest.mark.parametrize("reference", ["file:///etc/passwd", "http://[", "javascript:1"])
def test_odd_references_are_refused(reference: str) -> None:
    with pytest.raises(BadUrl):
        parse("http://a/sse").beside(reference)
