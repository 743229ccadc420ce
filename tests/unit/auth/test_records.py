"""The state of a key at a moment, and that its digest is not shown."""

from __future__ import annotations

import math

import pytest

from open_mcp_gateway.auth.apikeys import digest_of
from open_mcp_gateway.auth.principal import PLATFORM
from open_mcp_gateway.auth.records import NEVER_S, KeyRecord, Source, Status, TenantRecord
from open_mcp_gateway.auth.scope import UNNARROWED
from open_mcp_gateway.names import KeyId, TenantId

DIGEST = digest_of(b"test-key-record")


def record(**more: float) -> KeyRecord:
    return KeyRecord(
        id=KeyId("key_a"),
        holder=PLATFORM,
        name="a",
        role="viewer",
        digests=(DIGEST,),
        **more,  # type: ignore[arg-type]
    )


@pytest.mark.parametrize(
    ("moments", "status"),
    [
        ({}, Status.ACTIVE),
        ({"not_before": 10.0, "expires_at": 10.1}, Status.ACTIVE),
        ({"not_before": 10.1}, Status.SCHEDULED),
        ({"expires_at": 10.0}, Status.EXPIRED),
        ({"expires_at": 0.0}, Status.EXPIRED),
        ({"not_before": 11.0, "expires_at": 9.0}, Status.EXPIRED),
        ({"disabled_at": 99.0}, Status.DISABLED),
        ({"disabled_at": 0.0, "expires_at": 9.0}, Status.DISABLED),
        ({"revoked_at": 0.0, "disabled_at": 1.0, "expires_at": 9.0}, Status.REVOKED),
    ],
)
def test_the_state_of_a_key(moments: dict[str, float], status: Status) -> None:
    assert record(**moments).status(10.0) is status


def test_no_digest_is_shown() -> None:
    shown = f"{record()!r} {record()}"
    assert shown == "<KeyRecord key_a> <KeyRecord key_a>"


def test_a_key_that_does_not_say_is_of_the_configuration_and_not_narrowed() -> None:
    plain = record()
    assert plain.source is Source.CONFIG
    assert plain.scope.compiled() == UNNARROWED
    assert (plain.ip_allow, plain.metadata) == (None, {})
    assert (plain.hint, plain.unusable, plain.rev) == ("", "", 0)
    assert math.inf == NEVER_S


def test_a_tenant_that_does_not_say_is_of_the_configuration() -> None:
    plain = TenantRecord(id=TenantId("alpha"), namespaces=())
    assert plain.source is Source.CONFIG
    assert (plain.name, plain.unusable, plain.rev) == ("", "", 0)
    assert (plain.disabled_at, plain.deleted_at, plain.created_at) == (None, None, None)


def test_the_words_of_records() -> None:
    """They are part of answers."""
    assert list(Source) == ["config", "api"]
    assert list(Status) == ["scheduled", "active", "disabled", "expired", "revoked"]
