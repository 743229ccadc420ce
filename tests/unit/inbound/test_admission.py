"""Whether somebody who was let in may still go on when all of the request is there."""

from __future__ import annotations

import math

import pytest

from open_mcp_gateway.access.keyring import Keyring
from open_mcp_gateway.access.policy import platform_admin
from open_mcp_gateway.auth.apikeys import digest_of
from open_mcp_gateway.errors import WrongKey
from open_mcp_gateway.inbound.admission import Admitted
from open_mcp_gateway.inbound.arrival import Arrival
from open_mcp_gateway.names import KeyId

ROOT, OTHER = (platform_admin(digest_of(one.encode()), KeyId(one)) for one in ("root", "other"))
BEFORE = Keyring((), [ROOT, OTHER], lambda: 0.0)


def admitted(ends_s: float = math.inf) -> Admitted:
    arrival = Arrival(b"GET", b"/", [], "127.0.0.1:1")
    principal = BEFORE.principal(ROOT)
    return Admitted(arrival, principal=principal, ends_s=ends_s, by=BEFORE.identifier)


def test_nothing_has_changed() -> None:
    admitted().check_still_in_force(BEFORE.identifier, 0.0)


def test_other_keys_have_changed() -> None:
    after = BEFORE.changed(gone={OTHER.id})
    admitted().check_still_in_force(after.identifier, 0.0)
    admitted().check_still_in_force(after.identifier.store_lost(), 0.0)


def test_the_key_is_gone() -> None:
    after = BEFORE.changed(gone={ROOT.id})
    with pytest.raises(WrongKey):
        admitted().check_still_in_force(after.identifier, 0.0)


def test_the_key_has_expired() -> None:
    admitted(10.0).check_still_in_force(BEFORE.identifier, 9.0)
    with pytest.raises(WrongKey):
        admitted(10.0).check_still_in_force(BEFORE.identifier, 10.0)


def test_what_needs_no_key_needs_none() -> None:
    nobody = Admitted(admitted().arrival)
    nobody.check_still_in_force(BEFORE.identifier, 0.0)
