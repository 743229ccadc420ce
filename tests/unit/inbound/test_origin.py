"""Host, Origin and CORS: who passes, and exactly which headers the browser is told."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from open_mcp_gateway.errors import ForeignOrigin, InvalidRequest
from open_mcp_gateway.inbound.origin import AllowedOrigin, OriginPolicy, host_rule, origin_rule

Pairs = list[tuple[bytes, bytes]]

HOST = (b"host", b"localhost:4444")
PAGE = AllowedOrigin(b"https://app.example")


def policy(**settings: Any) -> OriginPolicy:
    defaults: dict[str, Any] = {
        "cors_enabled": True,
        "cors_origins": None,
        "allowed_hosts": None,
        "auth_enabled": True,
        "public_url": None,
    }
    return OriginPolicy(**(defaults | settings))


LOCKED = policy()
OPEN = policy(auth_enabled=False)
NARROW = policy(
    cors_origins=("https://app.example", "http://localhost:3000"),
    allowed_hosts=("gw.example", "gw.example:8443", "*.lan", "[2001:db8::1]:80", "10.0.0.7"),
)
CLOSED = policy(cors_origins=(), allowed_hosts=())
STARS = policy(cors_origins=("*",), allowed_hosts=("*",), auth_enabled=False)
PUBLIC = policy(auth_enabled=False, public_url="https://mcp.example/gateway/")


@pytest.mark.parametrize(
    ("rules", "host", "passes"),
    [
        (LOCKED, b"anything.example:99", True),
        (LOCKED, b"localhost", True),
        (OPEN, b"localhost:4444", True),
        (OPEN, b"LocalHost.", True),
        (OPEN, b"app.localhost", True),
        (OPEN, b"127.9.9.9:1", True),
        (OPEN, b"[::1]:4444", True),
        (OPEN, b"evil.example", False),
        (OPEN, b"localhost.evil.example", False),
        (OPEN, b"192.168.0.2:4444", False),
        (OPEN, b"0.0.0.0:4444", False),
        (NARROW, b"gw.example", True),
        (NARROW, b"GW.example.:1234", True),
        (NARROW, b"gw.example:8443", True),
        (NARROW, b"box.lan", True),
        (NARROW, b"a.b.lan:1", True),
        (NARROW, b"lan", False),
        (NARROW, b"evillan", False),
        (NARROW, b"[2001:db8:0::1]", True),
        (NARROW, b"[2001:db8::1]:81", False),
        (NARROW, b"10.0.0.7:4444", True),
        (NARROW, b"localhost", False),
        (NARROW, b"127.0.0.1", False),
        (NARROW, b"x.gw.example", False),
        (CLOSED, b"localhost", False),
        (CLOSED, b"gw.example", False),
        (STARS, b"evil.example", True),
        (PUBLIC, b"mcp.example", True),
        (PUBLIC, b"mcp.example:8080", True),
        (PUBLIC, b"localhost", True),
        (PUBLIC, b"other.example", False),
    ],
)
def test_hosts(rules: OriginPolicy, host: bytes, passes: bool) -> None:
    for _ in range(2):  # the second verdict is a remembered one
        if passes:
            assert rules.check([(b"host", host)]) is None
        else:
            with pytest.raises(ForeignOrigin):
                rules.check([(b"host", host)])


def test_a_port_in_the_list_is_the_port_that_was_meant() -> None:
    plain = policy(allowed_hosts=("gw.example:80", "gw.example:8443"))
    tls = policy(allowed_hosts=("gw.example:443",), scheme="https")
    for rules, host in ((plain, b"gw.example"), (plain, b"gw.example:8443"), (tls, b"gw.example")):
        assert rules.check([(b"host", host)]) is None
    for rules, host in ((plain, b"gw.example:443"), (tls, b"gw.example:80"), (plain, b"gw:80")):
        with pytest.raises(ForeignOrigin):
            rules.check([(b"host", host)])


@pytest.mark.parametrize("rules", [LOCKED, OPEN, NARROW, CLOSED, STARS])
@pytest.mark.parametrize(
    "hosts",
    [
        [],
        [b""],
        [b"localhost", b"localhost"],
        [b"localhost", b"evil.example"],
        [b"localhost, evil.example"],
        [b"user@localhost"],
        [b"localhost:99999"],
        [b"local host"],
        [b"localhost\x00"],
        [b"l\xf6calhost"],
        [b"[::1"],
        [b"localhost/x"],
        [b"a" * 301],
        [b"a" * 100_000],
    ],
    ids=lambda hosts: repr(hosts)[:30],
)
def test_hosts_that_are_none(rules: OriginPolicy, hosts: list[bytes]) -> None:
    with pytest.raises(InvalidRequest):
        rules.check([(b"host", host) for host in hosts])


def test_http_1_0_without_a_host() -> None:
    """It may leave Host out (RFC 9112 section 3.2); what is absent is still no allowed name."""
    assert LOCKED.check([], http_version="1.0") is None
    assert STARS.check([], http_version="1.0") is None
    for rules in (OPEN, NARROW, CLOSED, PUBLIC):
        with pytest.raises(ForeignOrigin):
            rules.check([], http_version="1.0")


@pytest.mark.parametrize(
    ("rules", "origin", "passes"),
    [
        (LOCKED, b"https://evil.example", True),
        (LOCKED, b"null", True),
        (LOCKED, b"chrome-extension://abc", True),
        (LOCKED, b"", False),
        (LOCKED, b"nonsense", False),
        (LOCKED, b"https://a.example, https://b.example", False),
        (LOCKED, b"https://a.example/" + b"p" * 1000, False),
        (OPEN, b"http://localhost:3000", True),
        (OPEN, b"https://localhost", True),
        (OPEN, b"HTTP://LOCALHOST:3000", True),
        (OPEN, b"http://app.localhost", True),
        (OPEN, b"http://127.0.0.1:6274", True),
        (OPEN, b"http://[::1]:80", True),
        (OPEN, b"null", False),
        (OPEN, b"", False),
        (OPEN, b"https://evil.example", False),
        (OPEN, b"http://localhost.evil.example", False),
        (OPEN, b"http://localhost@evil.example", False),
        (OPEN, b"chrome-extension://localhost", False),
        (OPEN, b"http://127.0.0.1.nip.io", False),
        (OPEN, b"http://192.168.0.2", False),
        (NARROW, b"https://app.example", True),
        (NARROW, b"https://APP.example:443", True),
        (NARROW, b"http://localhost:3000", True),
        (NARROW, b"http://app.example", False),
        (NARROW, b"https://app.example:8443", False),
        (NARROW, b"https://x.app.example", False),
        (NARROW, b"http://localhost:3001", False),
        (NARROW, b"null", False),
        (policy(cors_origins=()), b"http://localhost", False),
        (policy(cors_origins=()), b"null", False),
        (STARS, b"https://evil.example", True),
        (STARS, b"null", True),
        (STARS, b"nonsense", False),
        (PUBLIC, b"https://mcp.example", True),
        (PUBLIC, b"http://mcp.example", False),
        (PUBLIC, b"http://localhost", True),
        (policy(cors_origins=("null",)), b"null", True),
        (policy(cors_origins=("null",)), b"https://null", False),
        (policy(cors_origins=("chrome-extension://abc",)), b"chrome-extension://abc", True),
    ],
)
def test_origins(rules: OriginPolicy, origin: bytes, passes: bool) -> None:
    host = {NARROW: b"gw.example", PUBLIC: b"mcp.example"}.get(rules, b"localhost")
    headers = [(b"host", host), (b"origin", origin)]
    for _ in range(2):
        if passes:
            assert rules.check(headers) == origin
        else:
            with pytest.raises(ForeignOrigin):
                rules.check(headers)


def test_one_origin_only() -> None:
    with pytest.raises(ForeignOrigin):
        LOCKED.check([HOST, (b"origin", b"http://localhost"), (b"origin", b"http://localhost")])


def test_without_an_origin_nothing_is_said() -> None:
    assert OPEN.check([HOST]) is None
    assert OPEN.cors_headers(None) == ()
    assert OPEN.preflight(b"OPTIONS", [(b"access-control-request-method", b"GET")], None) is None


def test_headers_of_an_answer() -> None:
    assert LOCKED.cors_headers(PAGE) == (
        (b"access-control-allow-origin", b"https://app.example"),
        (
            b"access-control-expose-headers",
            b"ETag, Location, Mcp-Session-Id, Retry-After, WWW-Authenticate, X-Auth-Reason, "
            b"X-Request-Id",
        ),
        (b"vary", b"Origin"),
    )


ASKED: Pairs = [
    (b"access-control-request-method", b"POST"),
    (b"access-control-request-headers", b"authorization,content-type, mcp-protocol-version"),
]


def test_headers_of_a_preflight() -> None:
    assert LOCKED.preflight(b"OPTIONS", [HOST, (b"origin", PAGE), *ASKED], PAGE) == (
        (b"access-control-allow-origin", b"https://app.example"),
        (b"access-control-allow-methods", b"GET, HEAD, POST, PUT, PATCH, DELETE"),
        (b"access-control-allow-headers", b"authorization,content-type, mcp-protocol-version"),
        (b"access-control-max-age", b"600"),
        (
            b"vary",
            b"Origin, Access-Control-Request-Method, Access-Control-Request-Headers",
        ),
    )


@pytest.mark.parametrize(
    "names", [None, b"", b"a b", b"a,,b", b",a", b"a\x00", b"a: b", b"\xff", b"a," * 3000 + b"a"]
)
def test_only_field_names_are_reflected(names: bytes | None) -> None:
    asked = ASKED[:1] if names is None else [ASKED[0], (ASKED[1][0], names)]
    reply = LOCKED.preflight(b"OPTIONS", asked, PAGE)
    assert reply is not None
    assert b"access-control-allow-headers" not in dict(reply)


@pytest.mark.parametrize(
    ("method", "asked"),
    [
        (b"OPTIONS", []),
        (b"OPTIONS", [(b"access-control-request-method", b"")]),
        (b"OPTIONS", ASKED[1:]),
        (b"GET", ASKED),
        (b"POST", ASKED),
        (b"options", ASKED),
    ],
)
def test_what_is_no_preflight(method: bytes, asked: Pairs) -> None:
    assert LOCKED.preflight(method, asked, PAGE) is None


def test_without_cors_the_check_stays() -> None:
    silent = policy(cors_enabled=False, auth_enabled=False)
    page = silent.check([HOST, (b"origin", b"http://localhost:3000")])
    assert page == b"http://localhost:3000"
    assert silent.cors_headers(page) == ()
    assert silent.preflight(b"OPTIONS", ASKED, page) is None
    with pytest.raises(ForeignOrigin):
        silent.check([HOST, (b"origin", b"https://evil.example")])


@pytest.mark.parametrize(
    "text",
    ["", "*", "*.", "http://a", "a/b", "a:b", "a b", "*.1.2.3.4", "*.*.a", "a*", "ä.example"],
)
def test_entries_that_are_no_host(text: str) -> None:
    with pytest.raises(ValueError, match="not a host name"):
        host_rule(text)


@pytest.mark.parametrize(
    "text", ["", "*", "a.example", "http://", "http://a/", "https://*.a", "Null"]
)
def test_entries_that_are_no_origin(text: str) -> None:
    with pytest.raises(ValueError, match="not an origin"):
        origin_rule(text)


@pytest.mark.parametrize(
    "url", ["", "null", "a.example", "https://", "ftp://a", "https://a b/", "https://a?"]
)
def test_a_public_url_must_be_one(url: str) -> None:
    with pytest.raises(ValueError, match="is not a URL"):
        policy(public_url=url)


@settings(max_examples=500)
@given(
    st.lists(
        st.tuples(
            st.sampled_from([b"host", b"origin", b"access-control-request-method", b"x"]),
            st.one_of(st.binary(max_size=30), st.sampled_from([b"localhost", b"http://localhost"])),
        ),
        max_size=4,
    )
)
def test_an_open_gateway_is_reached_by_loopback_names_alone(headers: Pairs) -> None:
    try:
        origin = OPEN.check(headers)
    except (ForeignOrigin, InvalidRequest):
        return
    values = [value for name, value in headers if name == b"host"]
    assert len(values) == 1
    assert OPEN._host_allowed(values[0])
    assert [value for name, value in headers if name == b"origin"] == [origin] * (
        origin is not None
    )
