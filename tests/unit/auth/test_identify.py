"""Only the configured keys, only while they are configured; no number of keys means everybody."""

from __future__ import annotations

import copy
import math
import pickle
from ipaddress import ip_network
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from open_mcp_gateway.access.policy import ROLES
from open_mcp_gateway.auth.apikeys import digest_of
from open_mcp_gateway.auth.identify import (
    ANONYMOUS_ROLE,
    Holding,
    Identifier,
    Networks,
    NoAuthentication,
    Reason,
    anonymous,
    shared,
    within,
)
from open_mcp_gateway.auth.principal import PLATFORM, Permission, Principal
from open_mcp_gateway.auth.scope import EVERYTHING, UNNARROWED
from open_mcp_gateway.errors import (
    AmbiguousCredentials,
    RightsChanged,
    StoreUnavailable,
    Unauthenticated,
    WrongKey,
)
from open_mcp_gateway.names import KeyId

KEY: Final = b"test-key-canary-5e1f"
OTHER: Final = b"test-key-canary-77aa"
CLIENT: Final = "127.0.0.1:5000"


def owner(name: str) -> Principal:
    return Principal(
        key_id=KeyId(name),
        holder=PLATFORM,
        role="admin",
        permissions=ROLES["admin"],
        namespaces=EVERYTHING,
        scope=UNNARROWED,
    )


def holding(name: str, **more: object) -> Holding:
    return Holding(principal=owner(name), **more)  # type: ignore[arg-type]


def identifier(**keys: bytes) -> Identifier:
    held = [(digest_of(key), holding(name)) for name, key in keys.items()]
    return Identifier(held, lambda: 0.0)


class Clock:
    """A clock that stands where it was put."""

    def __init__(self, now_s: float) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


def test_each_key_has_its_owner() -> None:
    two = identifier(first=KEY, second=OTHER)
    assert two.identify(KEY, CLIENT).principal == owner("first")
    assert two.identify(OTHER, CLIENT).principal == owner("second")
    assert len(two) == 2


def test_by_headers() -> None:
    one = identifier(first=KEY)
    assert one.authenticate([(b"x-api-key", KEY)], CLIENT).principal.key_id == "first"
    assert (
        one.authenticate([(b"authorization", b"Bearer " + KEY)], CLIENT).principal.key_id == "first"
    )
    with pytest.raises(Unauthenticated):
        one.authenticate([], CLIENT)
    with pytest.raises(WrongKey):
        one.authenticate([(b"x-api-key", OTHER)], CLIENT)
    with pytest.raises(AmbiguousCredentials):
        one.authenticate([(b"x-api-key", KEY), (b"x-api-key", KEY)], CLIENT)


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
        identifier(first=KEY).identify(credential, CLIENT)
    assert caught.value.public == "Invalid API key"
    assert caught.value.args == ("Invalid API key",)


@pytest.mark.parametrize("credential", [b"", b"a", KEY, digest_of(b"")])
def test_without_keys_nobody_passes(credential: bytes) -> None:
    nobody = Identifier([], lambda: 0.0)
    with pytest.raises(WrongKey):
        nobody.identify(credential, CLIENT)
    with pytest.raises(Unauthenticated):
        nobody.authenticate([], CLIENT)


def test_the_same_key_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="'a' and 'b' are the same key") as caught:
        identifier(a=KEY, b=KEY)
    assert KEY.decode() not in str(caught.value)


@pytest.mark.parametrize("digest", [b"", b"short", digest_of(KEY)[:-1], digest_of(KEY) + b"x"])
def test_what_is_no_digest_is_refused(digest: bytes) -> None:
    with pytest.raises(ValueError, match="'odd' is not 32 bytes long"):
        Identifier([(digest, holding("odd"))], lambda: 0.0)


def test_a_colliding_table_entry_is_not_believed() -> None:
    """The lookup alone does not decide: the stored digest is compared as a whole."""
    live = identifier(first=KEY)
    live._by_digest[digest_of(OTHER)] = live._by_digest[digest_of(KEY)]
    with pytest.raises(WrongKey):
        live.identify(OTHER, CLIENT)


def test_keys_do_not_show() -> None:
    one = identifier(first=KEY)
    principal = one.identify(KEY, CLIENT).principal
    shown = f"{one!r} {one} {principal!r} {principal}".encode()
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
    assert NoAuthentication().authenticate(headers, CLIENT).principal == anonymous()


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=64))
def test_no_other_bytes_pass(credential: bytes) -> None:
    one = identifier(first=KEY)
    if credential != KEY:
        with pytest.raises(WrongKey):
            one.identify(credential, CLIENT)


def reason_of(one: Identifier, client: str = CLIENT) -> str | None:
    """Why the key does not open; None: it does."""
    try:
        one.identify(KEY, client)
    except WrongKey as error:
        return error.reason
    return None


def test_a_key_opens_from_its_first_moment_until_before_its_last() -> None:
    clock = Clock(9.9)
    held = holding("first", opens_at_s=10.0, closes_at_s=20.0)
    one = Identifier([(digest_of(KEY), held)], clock)
    seen = []
    for moment in (9.9, 10.0, 19.9, 20.0, math.inf):
        clock.now_s = moment
        seen.append((reason_of(one), one.loss(owner("first")) is None))
    assert seen == [
        (Reason.NOT_YET_VALID, False),
        (None, True),
        (None, True),
        (Reason.EXPIRED, False),
        (Reason.EXPIRED, False),
    ]


@pytest.mark.parametrize("reason", Reason)
def test_a_blocked_key_says_why_to_its_owner_alone(reason: Reason) -> None:
    one = Identifier([(digest_of(KEY), holding("first", blocked=reason))], lambda: 0.0)
    assert reason_of(one) is reason
    assert one.loss(owner("first")) is not None
    with pytest.raises(WrongKey) as caught:
        one.identify(KEY[:-1], CLIENT)
    assert caught.value.reason is None


@pytest.mark.parametrize(
    ("client", "within"),
    [
        ("10.1.2.3:80", True),
        ("[10.1.2.3]:80", True),
        ("[::ffff:10.1.2.3]:80", True),
        ("::ffff:10.1.2.3:80", True),
        ("[2001:db8::7]:80", True),
        ("11.1.2.3:80", False),
        ("[::ffff:11.1.2.3]:80", False),
        ("[2001:db9::7]:80", False),
        ("[::1]:80", False),
        ("10.1.2.3", False),
        ("", False),
        ("unix", False),
        ("localhost:80", False),
        ("10.1.2:80", False),
    ],
)
def test_networks(client: str, within: bool) -> None:
    networks = (ip_network("10.0.0.0/8"), ip_network("2001:db8::/32"))
    one = Identifier([(digest_of(KEY), holding("first", networks=networks))], lambda: 0.0)
    assert reason_of(one, client) == (None if within else Reason.IP_NOT_ALLOWED)
    nowhere = Identifier([(digest_of(KEY), holding("first", networks=()))], lambda: 0.0)
    assert reason_of(nowhere, client) is Reason.IP_NOT_ALLOWED
    assert reason_of(identifier(first=KEY), client) is None


def test_who_was_let_in_stays_only_within_its_rights() -> None:
    one = identifier(first=KEY)
    assert one.loss(owner("first")) is None
    assert one.loss(owner("second")) is not None
    assert one.loss(replace(owner("first"), namespaces=frozenset())) is None
    less = replace(owner("first"), role="viewer", namespaces=frozenset())
    lowered = Identifier([(digest_of(KEY), Holding(principal=less))], lambda: 0.0)
    assert isinstance(lowered.loss(owner("first")), RightsChanged)
    assert one.loss(anonymous()) is not None
    assert NoAuthentication().loss(anonymous()) is None
    assert NoAuthentication().loss(owner("first")) is not None


def test_the_next_end() -> None:
    clock = Clock(0.0)
    held = [
        (digest_of(KEY), holding("first", closes_at_s=10.0)),
        (digest_of(OTHER), holding("second", closes_at_s=20.0)),
        (digest_of(b"third"), holding("third")),
    ]
    one = Identifier(held, clock)
    ends = []
    for moment in (0.0, 10.0, 20.0):
        clock.now_s = moment
        ends.append(one.next_end_s())
    assert ends == [10.0, 20.0, math.inf]
    assert Identifier((), clock).next_end_s() == math.inf


def test_a_change_makes_another_one() -> None:
    before = identifier(first=KEY)
    after = before.changed([digest_of(KEY)], [(digest_of(OTHER), holding("second"))])
    assert reason_of(before) is None
    assert after.identify(OTHER, CLIENT).principal == owner("second")
    with pytest.raises(WrongKey):
        after.identify(KEY, CLIENT)
    with pytest.raises(WrongKey):
        before.identify(OTHER, CLIENT)
    assert before.loss(owner("first")) is None
    assert after.loss(owner("first")) is not None
    assert len(before.changed([digest_of(b"nobody's")], ())) == 1
    with pytest.raises(ValueError, match="are the same key"):
        before.changed((), [(digest_of(KEY), holding("second"))])


def test_while_the_store_is_lost_its_keys_open_nothing() -> None:
    held = [
        (digest_of(KEY), holding("file")),
        (digest_of(OTHER), holding("stored", stored=True)),
        (digest_of(b"ended"), holding("ended", stored=True, closes_at_s=-1.0)),
    ]
    before = Identifier(held, lambda: 0.0)
    lost = before.store_lost()
    assert lost.identify(KEY, CLIENT).principal == owner("file")
    for secret in (OTHER, b"ended"):
        with pytest.raises(StoreUnavailable) as caught:
            lost.identify(secret, CLIENT)
        assert caught.value.retry_after_s == 1
    with pytest.raises(WrongKey, match="Invalid API key"):
        lost.identify(b"nobody's", CLIENT)
    # What it has open goes on.
    assert lost.loss(owner("stored")) is None
    assert before.identify(OTHER, CLIENT).principal == owner("stored")
    assert lost.changed((), ()).identify(OTHER, CLIENT).principal == owner("stored")


def test_which_keys_are_in_force_by_their_ids() -> None:
    held = [
        (digest_of(KEY), holding("live")),
        (digest_of(OTHER), holding("ended", closes_at_s=-1.0)),
        (digest_of(b"revoked"), holding("revoked", blocked=Reason.REVOKED)),
    ]
    one = Identifier(held, lambda: 0.0)
    names = ("live", "ended", "revoked", "unknown", "anonymous")
    assert [name for name in names if one.opens(KeyId(name))] == ["live"]
    assert [name for name in names if NoAuthentication().opens(KeyId(name))] == ["anonymous"]


def test_the_words_of_a_refusal() -> None:
    """They are the values of ``X-Auth-Reason``."""
    assert list(Reason) == [
        *("expired", "revoked", "disabled"),
        *("not_yet_valid", "ip_not_allowed", "tenant_disabled"),
    ]


def test_who_anybody_is_without_authentication() -> None:
    assert (anonymous().key_id, anonymous().role) == ("anonymous", "anonymous")


def test_why_somebody_who_was_let_in_is_out() -> None:
    """What is open is told the same as a new request with that key would be."""
    ten = (ip_network("10.0.0.0/8"),)
    held = [
        (digest_of(KEY), holding("near", networks=ten)),
        (digest_of(OTHER), holding("ended", closes_at_s=-1.0, networks=())),
    ]
    one = Identifier(held, lambda: 0.0)

    def told(name: str, client: str | None = None) -> tuple[str, str | None] | None:
        lost = one.loss(owner(name), client)
        if lost is None:
            return None
        assert isinstance(lost, WrongKey)
        return lost.public, lost.reason

    invalid = "Invalid API key"
    assert told("near", "10.1.2.3:80") is None
    assert told("near", "11.1.2.3:80") == (invalid, Reason.IP_NOT_ALLOWED)
    # Nobody knows from where it was opened: that it opens from somewhere is all there is to ask.
    assert told("near") is None
    assert told("ended") == told("ended", "10.1.2.3:80") == (invalid, Reason.EXPIRED)
    assert told("nobody") == told("nobody", "10.1.2.3:80") == (invalid, None)
    off = NoAuthentication().loss(owner("near"))
    assert isinstance(off, WrongKey)
    assert (off.public, off.reason) == (invalid, None)


def test_who_has_lost_rights_is_told_to_ask_again() -> None:
    more = replace(owner("first"), permissions=frozenset(Permission))
    less = replace(more, permissions=frozenset())
    lost = Identifier([(digest_of(KEY), Holding(principal=less))], lambda: 0.0).loss(more)
    assert isinstance(lost, RightsChanged)
    assert lost.public == "What this API key may do has changed; send the request again"


def test_what_a_key_opens_by_its_id() -> None:
    one = identifier(first=KEY)
    held = one.holding(KeyId("first"))
    assert held is not None
    assert held == one.find(KEY) == holding("first")
    assert one.holding(KeyId("second")) is None
    assert one.find(OTHER) is None
    off = NoAuthentication()
    assert off.holding(KeyId("anonymous")) == Holding(principal=anonymous())
    assert off.holding(KeyId("first")) is None


def test_a_key_that_is_gone_is_gone_by_its_id_too() -> None:
    before = identifier(first=KEY, second=OTHER)
    after = before.changed([digest_of(KEY)], ())
    assert after.holding(KeyId("first")) is None
    assert after.holding(KeyId("second")) == holding("second")
    assert before.holding(KeyId("first")) == holding("first")


def test_a_refusal_says_whose_key_it_was_for_the_log() -> None:
    one = Identifier([(digest_of(KEY), holding("first", closes_at_s=-1.0))], lambda: 0.0)
    with pytest.raises(WrongKey) as caught:
        one.identify(KEY, CLIENT)
    assert (caught.value.public, caught.value.key_id) == ("Invalid API key", "first")


def test_a_key_that_does_not_say_opens_at_any_time_and_is_not_of_the_store() -> None:
    plain = holding("first")
    assert (plain.opens_at_s, plain.closes_at_s) == (-math.inf, math.inf)
    assert (plain.networks, plain.blocked, plain.stored) == (None, None, False)


FOUR, FOUR_WIDER = ip_network("10.0.0.0/8"), ip_network("10.0.0.0/7")
SIX, SIX_WIDER = ip_network("2001:db8::/32"), ip_network("2001:db8::/31")


@pytest.mark.parametrize(
    ("inner", "outer", "expected"),
    [
        (None, None, True),
        ((), None, True),
        ((FOUR,), None, True),
        (None, (FOUR,), False),
        (None, (), False),
        ((), (), True),
        ((), (FOUR,), True),
        ((FOUR,), (), False),
        ((FOUR,), (FOUR,), True),
        ((FOUR,), (FOUR_WIDER,), True),
        ((FOUR_WIDER,), (FOUR,), False),
        ((SIX,), (SIX_WIDER,), True),
        ((SIX_WIDER,), (SIX,), False),
        ((FOUR,), (ip_network("::/0"),), False),
        ((SIX,), (ip_network("0.0.0.0/0"),), False),
        ((FOUR, SIX), (SIX, FOUR), True),
        ((FOUR, SIX), (SIX_WIDER, FOUR_WIDER), True),
        ((FOUR, SIX), (FOUR,), False),
        ((FOUR,), (SIX, FOUR_WIDER), True),
        ((ip_network("10.0.0.0/7"),), (FOUR, ip_network("11.0.0.0/8")), False),
    ],
)
def test_networks_within_others(inner: Networks, outer: Networks, expected: bool) -> None:
    assert within(inner, outer) is expected


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        (None, None, None),
        (None, (FOUR,), (FOUR,)),
        (None, (), ()),
        ((), (FOUR,), ()),
        ((FOUR,), (FOUR,), (FOUR,)),
        ((FOUR,), (FOUR_WIDER,), (FOUR,)),
        ((FOUR, SIX), (SIX_WIDER,), (SIX,)),
        ((FOUR, SIX_WIDER), (FOUR_WIDER, SIX), (FOUR, SIX)),
        ((FOUR,), (ip_network("::/0"),), ()),
        ((FOUR,), (ip_network("11.0.0.0/8"),), ()),
    ],
)
def test_from_where_two_keys_may_both_be_used(
    one: Networks, other: Networks, expected: Networks
) -> None:
    for found in (shared(one, other), shared(other, one)):
        assert (found is None) is (expected is None)
        # Each once, in any order.
        assert sorted(map(str, found or ())) == sorted(map(str, expected or ()))
