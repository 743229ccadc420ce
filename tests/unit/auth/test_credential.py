"""Which key a request presents: every header combination, then headers nobody would send."""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from open_mcp_gateway.auth.credential import credential_of
from open_mcp_gateway.errors import (
    AmbiguousCredentials,
    GatewayError,
    Unauthenticated,
    WrongKey,
)

KEY: Final = b"test-key-7f3a"
OTHER: Final = b"test-key-9999"

Pairs = list[tuple[bytes, bytes]]


def authorization(*values: bytes) -> Pairs:
    return [(b"authorization", value) for value in values]


def x_api_key(*values: bytes) -> Pairs:
    return [(b"x-api-key", value) for value in values]


ACCEPTED: Final[dict[str, Pairs]] = {
    "bearer": authorization(b"Bearer " + KEY),
    "lower case": authorization(b"bearer " + KEY),
    "upper case": authorization(b"BEARER " + KEY),
    "mixed case": authorization(b"bEaReR " + KEY),
    "many spaces": authorization(b"Bearer    " + KEY),
    "tabs": authorization(b"Bearer\t" + KEY),
    "whitespace around": authorization(b" \tBearer \t " + KEY + b" \t"),
    "x-api-key": x_api_key(KEY),
    "x-api-key, whitespace around": x_api_key(b"\t " + KEY + b" \t"),
    "both the same": authorization(b"Bearer " + KEY) + x_api_key(KEY),
    "both the same, x-api-key first": x_api_key(KEY) + authorization(b"bearer  " + KEY),
    "basic beside x-api-key": authorization(b"Basic dXNlcjpwYXNz") + x_api_key(KEY),
    "digest with a list beside x-api-key": authorization(b'Digest username="u", realm="bearer"')
    + x_api_key(KEY),
    "scheme without a space beside x-api-key": authorization(b"Bearer" + OTHER) + x_api_key(KEY),
    "empty authorization beside x-api-key": authorization(b"") + x_api_key(KEY),
    "empty bearer beside x-api-key": authorization(b"Bearer ") + x_api_key(KEY),
    "bearer beside empty x-api-key": authorization(b"Bearer " + KEY) + x_api_key(b" "),
    "underscore twin": [*x_api_key(KEY), (b"x_api_key", OTHER)],
    "proxy-authorization": [*x_api_key(KEY), (b"proxy-authorization", b"Bearer " + OTHER)],
    "cookie": [*x_api_key(KEY), (b"cookie", b"authorization=Bearer " + OTHER)],
}

AMBIGUOUS: Final[dict[str, Pairs]] = {
    "two bearers": authorization(b"Bearer " + KEY, b"Bearer " + OTHER),
    "the same bearer twice": authorization(b"Bearer " + KEY, b"Bearer " + KEY),
    "two x-api-keys": x_api_key(KEY, OTHER),
    "the same x-api-key twice": x_api_key(KEY, KEY),
    "x-api-key and an empty one": x_api_key(KEY, b""),
    "an empty x-api-key and one": x_api_key(b"", KEY),
    "basic and bearer": authorization(b"Basic dTpw", b"Bearer " + KEY),
    "empty and bearer": authorization(b"", b"Bearer " + KEY),
    "both, different": authorization(b"Bearer " + KEY) + x_api_key(OTHER),
    "both, different, x-api-key first": x_api_key(KEY) + authorization(b"Bearer " + OTHER),
    "both, differ in case": authorization(b"Bearer " + KEY) + x_api_key(KEY.upper()),
    "both, one a prefix": authorization(b"Bearer " + KEY) + x_api_key(KEY[:-1]),
    "both the same, and once more": authorization(b"Bearer " + KEY) + x_api_key(KEY, KEY),
    "bearers joined": authorization(b"Bearer " + KEY + b", Bearer " + OTHER),
    "bearers joined tightly": authorization(b"Bearer " + KEY + b",Bearer " + OTHER),
    "the same joined": authorization(b"Bearer " + KEY + b", Bearer " + KEY),
    "basic joined with bearer": authorization(b"Basic dTpw, bearer " + KEY),
    "basic joined with bearer, tab": authorization(b"Basic dTpw,\tBEARER\t" + KEY),
    "empty joined with bearer": authorization(b", Bearer " + KEY),
    "x-api-keys joined": x_api_key(KEY + b", " + OTHER),
    "x-api-keys joined with a tab": x_api_key(KEY + b",\t" + OTHER),
}

MISSING: Final[dict[str, Pairs]] = {
    "nothing": [],
    "other headers": [(b"host", b"localhost"), (b"accept", b"*/*")],
    "empty authorization": authorization(b""),
    "blank authorization": authorization(b" \t "),
    "scheme alone": authorization(b"Bearer"),
    "scheme and space": authorization(b"Bearer \t "),
    "empty x-api-key": x_api_key(b""),
    "blank x-api-key": x_api_key(b" \t"),
    "both empty": authorization(b"Bearer ") + x_api_key(b""),
    "basic": authorization(b"Basic dXNlcjpwYXNz"),
    "key without a scheme": authorization(KEY),
    "scheme without a space": authorization(b"Bearer" + KEY),
    "scheme with a colon": authorization(b"Bearer: " + KEY),
    "scheme with another space": authorization(b"Bearer\xa0" + KEY),
    "look-alike scheme": authorization("\u0412earer ".encode() + KEY),
    "underscore twin": [(b"x_api_key", KEY)],
    "proxy-authorization": [(b"proxy-authorization", b"Bearer " + KEY)],
    "cookie": [(b"cookie", b"x-api-key=" + KEY)],
    "longer name": [(b"x-api-key-2", KEY), (b"authorization2", b"Bearer " + KEY)],
}

IMPOSSIBLE: Final[dict[str, Pairs]] = {
    "space within": x_api_key(b"test key"),
    "space within bearer": authorization(b"Bearer test key"),
    "control byte": x_api_key(KEY + b"\x00"),
    "vertical tab is not trimmed": x_api_key(b"\x0b" + KEY),
    "line feed is not trimmed": x_api_key(KEY + b"\n"),
    "delete": x_api_key(KEY + b"\x7f"),
    "latin-1": x_api_key(KEY + b"\xe9"),
    "utf-8": authorization("Bearer schlüssel".encode()),
    "not utf-8": authorization(b"Bearer \xff\xfe"),
    "513 bytes": x_api_key(b"k" * 513),
    "64 KiB": authorization(b"Bearer " + b"k" * 65536),
    "the same in both": authorization(b"Bearer \xff") + x_api_key(b"\xff"),
}


@pytest.mark.parametrize("headers", ACCEPTED.values(), ids=ACCEPTED)
def test_the_one_key(headers: Pairs) -> None:
    assert credential_of(headers) == KEY


@pytest.mark.parametrize(
    "key",
    [b"!", b"~", b"a,b", b",", b"k" * 512, b"Bearer", b"=?&%/\\;'\""],
    ids=["first", "last", "comma", "comma alone", "512", "scheme's name", "marks"],
)
def test_any_visible_ascii_is_a_key(key: bytes) -> None:
    assert credential_of(x_api_key(key)) == key
    assert credential_of(authorization(b"Bearer " + key)) == key


@pytest.mark.parametrize("headers", AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_more_than_one_key(headers: Pairs) -> None:
    with pytest.raises(AmbiguousCredentials) as caught:
        credential_of(headers)
    assert_silent(caught.value)


@pytest.mark.parametrize("headers", MISSING.values(), ids=MISSING)
def test_no_key(headers: Pairs) -> None:
    with pytest.raises(Unauthenticated) as caught:
        credential_of(headers)
    assert caught.value.public == "API key required"


@pytest.mark.parametrize("headers", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_what_cannot_be_a_key(headers: Pairs) -> None:
    with pytest.raises(WrongKey) as caught:
        credential_of(headers)
    assert caught.value.public == "Invalid API key"
    assert_silent(caught.value)


def assert_silent(error: GatewayError) -> None:
    """Nothing of a key is in the error, nor in a chained one."""
    shown = f"{error!r} {error} {error.args} {error.__cause__!r} {error.__context__!r}"
    assert "test" not in shown


fragments = st.sampled_from(
    [
        b"Bearer",
        b"bearer",
        b"BEARER ",
        b" ",
        b"\t",
        b",",
        b", ",
        b"Basic x",
        KEY,
        OTHER,
        KEY[:-1],
        b"\x00",
        b"\xff",
        b"\r\n",
        b'"',
        b"k" * 600,
        b"",
    ]
)
values = st.lists(st.one_of(fragments, st.binary(max_size=6)), max_size=5).map(b"".join)
names = st.sampled_from(
    [b"authorization", b"x-api-key", b"x_api_key", b"authorization ", b"host", b"", b"X-API-Key"]
)


@settings(max_examples=1000, deadline=None)
@given(st.lists(st.tuples(names, values), max_size=5))
@example([(b"authorization", b"Bearer " + KEY), (b"x-api-key", KEY)])
def test_a_key_comes_out_only_if_exactly_one_went_in(headers: Pairs) -> None:
    try:
        found = credential_of(headers)
    except (AmbiguousCredentials, Unauthenticated, WrongKey):
        return
    bearers = [value for name, value in headers if name == b"authorization"]
    keys = [value for name, value in headers if name == b"x-api-key"]
    assert len(bearers) <= 1
    assert len(keys) <= 1
    presented = {value.strip(b" \t") for value in keys}
    presented |= {
        value.strip(b" \t")[6:].strip(b" \t")
        for value in bearers
        if value.strip(b" \t").lower().startswith((b"bearer ", b"bearer\t"))
    }
    assert presented - {b""} == {found}
    assert 0 < len(found) <= 512
    assert all(0x21 <= byte <= 0x7E for byte in found)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=40)), max_size=8))
def test_arbitrary_bytes_are_no_surprise(headers: Pairs) -> None:
    with pytest.raises(Unauthenticated):
        credential_of([(b"x-" + name, value) for name, value in headers if name != b"api-key"])


def test_nothing_but_white_space_is_trimmed_or_ends_the_scheme() -> None:
    assert credential_of([(b"authorization", b"Bearer XkeyX")]) == b"XkeyX"
    assert credential_of([(b"x-api-key", b"XkeyX")]) == b"XkeyX"
    with pytest.raises(Unauthenticated):
        credential_of([(b"authorization", b"BearerXkey")])
