"""Only the configured keys, only while they are configured; no number of keys means everybody."""

from __future__ import annotations

import copy
import pickle
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from open_mcp_gateway.access.policy import ROLES, platform_admin
from open_mcp_gateway.auth.apikeys import KeyDigest, digest_of
from open_mcp_gateway.auth.identify import (
    ANONYMOUS_ROLE,
    Identifier,
    NoAuthentication,
    anonymous,
)
from open_mcp_gateway.auth.principal import EVERYTHING, Permission
from open_mcp_gateway.errors import (
    AmbiguousCredentials,
    Unauthenticated,
    WrongKey,
)
from open_mcp_gateway.names import KeyId

KEY: Final = b"test-key-canary-5e1f"
OTHER: Final = b"test-key-canary-77aa"


def configured(**keys: bytes) -> list[KeyDigest]:
    return [KeyDigest(KeyId(name), digest_of(key)) for name, key in keys.items()]


def identifier(**keys: bytes) -> Identifier:
    return Identifier(configured(**keys), platform_admin)


def test_each_key_has_its_owner() -> None:
    two = identifier(first=KEY, second=OTHER)
    assert two.identify(KEY).key_id == "first"
    assert two.identify(OTHER).key_id == "second"
    assert two.identify(KEY) == platform_admin(configured(first=KEY)[0])


def test_by_headers() -> None:
    one = identifier(first=KEY)
    assert one.authenticate([(b"x-api-key", KEY)]).key_id == "first"
    assert one.authenticate([(b"authorization", b"Bearer " + KEY)]).key_id == "first"
    with pytest.raises(Unauthenticated):
        one.authenticate([])
    with pytest.raises(WrongKey):
        one.authenticate([(b"x-api-key", OTHER)])
    with pytest.raises(AmbiguousCredentials):
        one.authenticate([(b"x-api-key", KEY), (b"x-api-key", KEY)])


@pytest.mark.parametrize(
    "credential",
    [
        b"",
        KEY[:-1],
        KEY + b"0",
        KEY[:-1] + b"g",
        KEY.upper(),
        KEY + b" ",
        b"\xff",
        digest_of(KEY),
        digest_of(KEY).hex().encode(),
        b"sha256:" + digest_of(KEY).hex().encode(),
    ],
)
def test_near_misses(credential: bytes) -> None:
    with pytest.raises(WrongKey) as caught:
        identifier(first=KEY).identify(credential)
    assert caught.value.public == "Invalid API key"
    assert caught.value.args == ("Invalid API key",)


@pytest.mark.parametrize("credential", [b"", b"a", KEY, digest_of(b"")])
def test_without_keys_nobody_passes(credential: bytes) -> None:
    nobody = Identifier([], platform_admin)
    with pytest.raises(WrongKey):
        nobody.identify(credential)
    with pytest.raises(Unauthenticated):
        nobody.authenticate([])


def test_the_same_key_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="'a' and 'b' are the same key") as caught:
        identifier(a=KEY, b=KEY)
    assert KEY.decode() not in str(caught.value)


@pytest.mark.parametrize("digest", [b"", b"short", digest_of(KEY)[:-1], digest_of(KEY) + b"x"])
def test_what_is_no_digest_is_refused(digest: bytes) -> None:
    with pytest.raises(ValueError, match="'odd' is not 32 bytes long"):
        Identifier([KeyDigest(KeyId("odd"), digest)], platform_admin)


def test_a_colliding_table_entry_is_not_believed() -> None:
    """The lookup alone does not decide: the stored digest is compared as a whole."""
    live = identifier(first=KEY)
    live._principals[digest_of(OTHER)] = live._principals[digest_of(KEY)]
    with pytest.raises(WrongKey):
        live.identify(OTHER)


def test_keys_do_not_show() -> None:
    one = identifier(first=KEY)
    principal = one.identify(KEY)
    shown = f"{one!r} {one} {principal!r} {principal}".encode() + pickle.dumps(principal)
    digest = digest_of(KEY)
    for secret in (KEY, digest, digest.hex().encode(), repr(digest).encode()):
        assert secret not in shown
    for write in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError):
            write(one)


def test_the_anonymous_caller_is_written_out() -> None:
    principal = anonymous()
    assert principal.key_id == "anonymous"
    assert principal.role == ANONYMOUS_ROLE
    assert principal.role not in ROLES
    assert principal.namespaces is EVERYTHING
    assert principal.permissions == {
        "servers:list",
        "servers:read",
        "servers:start",
        "servers:stop",
        "servers:restart",
        "stats:read",
        "mcp:call",
        "catalog:reload",
    }
    assert all(isinstance(permission, Permission) for permission in principal.permissions)


@pytest.mark.parametrize(
    "headers", [[], [(b"x-api-key", KEY)], [(b"x-api-key", b"")] * 2, [(b"authorization", b"\xff")]]
)
def test_with_authentication_off_everybody_is_anonymous(headers: list[tuple[bytes, bytes]]) -> None:
    assert NoAuthentication().authenticate(headers) == anonymous()


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=64))
def test_no_other_bytes_pass(credential: bytes) -> None:
    one = identifier(first=KEY)
    if credential != KEY:
        with pytest.raises(WrongKey):
            one.identify(credential)
