"""Whom an instance of a server is for, and whether any of them is left."""

from __future__ import annotations

from msgspec.structs import replace

from open_mcp_gateway.access.keyring import Keyring
from open_mcp_gateway.auth.principal import PLATFORM
from open_mcp_gateway.auth.records import TenantRecord
from open_mcp_gateway.catalog.model import Isolation
from open_mcp_gateway.names import KeyId, Namespace, TenantId
from open_mcp_gateway.outbound.peer import ANY_MANNER
from open_mcp_gateway.settings import is_deserted
from open_mcp_gateway.supervisor.policy import COMMON, SHARED_KEY, InstanceKey, key_id_of, key_of
from tests.unit.access.test_keyring import key
from tests.unit.access.worlds import entry

ACME = TenantRecord(id=TenantId("acme"), namespaces=(Namespace("prod"),))
OWNED, OURS = key("owned", ACME.id), key("ours", PLATFORM)
SERVER = entry("pg", "prod")


def ring(*tenants: TenantRecord) -> Keyring:
    return Keyring(tenants, [OWNED, OURS], lambda: 0.0)


def instance(name: str, isolation: Isolation) -> InstanceKey:
    """The instance of the server that serves the key of that name."""
    record = OWNED if name == "owned" else OURS
    return key_of(SERVER, ring(ACME).principal(record), isolation, ANY_MANNER)


def deserted(instance: InstanceKey, *tenants: TenantRecord, live: tuple[str, ...] = ()) -> bool:
    return is_deserted(SERVER, instance, ring(*tenants), lambda one: one in live)


def test_the_key_that_an_instance_is_for() -> None:
    for isolation in (Isolation.KEY, Isolation.SESSION):
        assert key_id_of(instance("owned", isolation)) == OWNED.id
        assert key_id_of(instance("ours", isolation)) == OURS.id
    for isolation in (Isolation.TENANT, Isolation.SHARED):
        assert key_id_of(instance("owned", isolation)) is None
        assert key_id_of(instance("ours", isolation)) is None


def test_what_is_for_one_key_goes_with_it() -> None:
    for name in ("owned", "ours"):
        own = instance(name, Isolation.KEY)
        assert deserted(own, ACME)
        assert not deserted(own, ACME, live=(name,))


def test_what_is_for_a_tenant_goes_with_it() -> None:
    own = instance("owned", Isolation.TENANT)
    assert not deserted(own, ACME)
    assert deserted(own)
    assert deserted(own, replace(ACME, disabled_at=1.0))
    assert deserted(own, replace(ACME, deleted_at=1.0))
    assert deserted(own, replace(ACME, namespaces=(Namespace("stage"),)))


def test_what_is_for_the_platform_or_for_everybody_stays() -> None:
    assert not deserted(instance("ours", Isolation.TENANT))
    assert not deserted(SHARED_KEY)
    assert not deserted(InstanceKey(SHARED_KEY.scope, COMMON))


def test_a_key_without_a_tenant_in_force_has_nothing() -> None:
    assert deserted(instance("owned", Isolation.KEY), live=(KeyId("owned"),))
