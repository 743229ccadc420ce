"""One form for every spelling of a host, and None for what is no host."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from open_mcp_gateway.inbound.authority import (
    Authority,
    WebOrigin,
    is_loopback,
    parse_authority,
    parse_origin,
)


@pytest.mark.parametrize(
    ("value", "name", "port"),
    [
        (b"localhost", "localhost", None),
        (b"LOCALHOST:4444", "localhost", 4444),
        (b"localhost.", "localhost", None),
        (b"localhost.:80", "localhost", 80),
        (b"gw.Example.COM:", "gw.example.com", None),
        (b"my_service-1:8080", "my_service-1", 8080),
        (b"127.0.0.1:65535", "127.0.0.1", 65535),
        (b"[::1]", "[::1]", None),
        (b"[::1]:4444", "[::1]", 4444),
        (b"[0:0:0:0:0:0:0:1]", "[::1]", None),
        (b"[2001:DB8::A]:443", "[2001:db8::a]", 443),
        (b"a:00080", "a", 80),
    ],
)
def test_one_form(value: bytes, name: str, port: int | None) -> None:
    assert parse_authority(value) == Authority(name, port)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b" ",
        b".",
        b"..",
        b"a..b",
        b".a",
        b"localhost..",
        b":80",
        b"a:b",
        b"a:0",
        b"a:65536",
        b"a:123456",
        b"a:-1",
        b"a:+1",
        b"a:1:2",
        b"::1",
        b"[::1",
        b"::1]",
        b"[]",
        b"[::g]",
        b"[::1%lo]",
        b"[1.2.3.4]",
        b"[::1]x",
        b"user@localhost",
        b"localhost/",
        b"localhost?x",
        b"localhost#x",
        b"a,b",
        b"a b",
        b"localhost\n",
        b"localhost\x00",
        b"l%6fcalhost",
        b"evil\\localhost",
        "l\u00f6calhost".encode(),
        b"\xff",
        b"a" * 301,
    ],
)
def test_no_host(value: bytes) -> None:
    assert parse_authority(value) is None


@pytest.mark.parametrize(
    ("value", "loopback"),
    [
        (b"localhost", True),
        (b"app.localhost:3000", True),
        (b"127.0.0.1", True),
        (b"127.255.255.254:1", True),
        (b"[::1]:4444", True),
        (b"127.0.0.1.", True),
        (b"localhost.evil.example", False),
        (b"notlocalhost", False),
        (b"127.0.0.1.evil.example", False),
        (b"127.0.0.1.nip.io", False),
        (b"127.1", False),
        (b"2130706433", False),
        (b"0177.0.0.1", False),
        (b"0x7f.0.0.1", False),
        (b"128.0.0.1", False),
        (b"0.0.0.0", False),
        (b"[::]", False),
        (b"[::2]", False),
        (b"[::ffff:127.0.0.1]", False),
        (b"10.0.0.1", False),
    ],
)
def test_loopback(value: bytes, loopback: bool) -> None:
    host = parse_authority(value)
    assert host is not None
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(
    ("value", "address"),
    [(b"127.0.0.1", True), (b"[::1]", True), (b"localhost", False), (b"1.2.3", False)],
)
def test_is_address(value: bytes, address: bool) -> None:
    host = parse_authority(value)
    assert host is not None
    assert host.is_address is address


@pytest.mark.parametrize(
    ("value", "scheme", "name", "port"),
    [
        (b"https://gw.example", "https", "gw.example", 443),
        (b"https://gw.example:443", "https", "gw.example", 443),
        (b"HTTP://GW.Example", "http", "gw.example", 80),
        (b"http://[::1]:3000", "http", "[::1]", 3000),
        (b"chrome-extension://abcdef", "chrome-extension", "abcdef", None),
    ],
)
def test_origins(value: bytes, scheme: str, name: str, port: int | None) -> None:
    origin = parse_origin(value)
    assert origin == WebOrigin(scheme, Authority(name, port))
    assert origin.is_web is scheme.startswith("http")


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"null",
        b"*",
        b"localhost",
        b"//localhost",
        b"://localhost",
        b"http:localhost",
        b"http:/localhost",
        b"http://",
        b"http://localhost/",
        b"http://user@localhost",
        b"http://a http://b",
        b"http://a, http://b",
        b"1http://a",
        b"ht tp://a",
        b"h\xfftp://a",
        b"http://a\x00",
        b"file://",
    ],
)
def test_no_origin(value: bytes) -> None:
    assert parse_origin(value) is None


@given(st.binary(max_size=60))
def test_arbitrary_bytes(value: bytes) -> None:
    host = parse_authority(value)
    assert host is None or parse_authority(host.name.encode()) == Authority(host.name, None)
    origin = parse_origin(b"http://" + value)
    assert (origin is None) is (host is None)
