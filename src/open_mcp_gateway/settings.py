"""What each room needs to know of the configuration."""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

from open_mcp_gateway.access.keyring import Keyring
from open_mcp_gateway.auth.principal import Platform
from open_mcp_gateway.catalog.model import CatalogEntry, Isolation
from open_mcp_gateway.config.model import Config
from open_mcp_gateway.inbound.origin import OriginPolicy
from open_mcp_gateway.names import KeyId
from open_mcp_gateway.operations.inforce import Configured
from open_mcp_gateway.supervisor.policy import Common, InstanceKey, key_id_of
from open_mcp_gateway.supervisor.settings import FleetSettings


def fleet_settings(config: Config, keyring: Keyring) -> FleetSettings:
    """How servers are run."""
    tenants = any(one.deleted_at is None for one in keyring.tenants.values())
    return FleetSettings(
        idle_timeout_s=config.idle_timeout_seconds,
        health_check_interval_s=config.health_check_interval_seconds,
        start_timeout_s=config.start_timeout_seconds,
        drain_timeout_s=config.max_request_seconds,
        max_connections_per_server=config.max_connections_per_server,
        default_isolation=Isolation.TENANT if tenants else Isolation.SHARED,
    )


def origin_policy(config: Config) -> OriginPolicy:
    """Which hosts and origins are welcome."""
    return OriginPolicy(
        cors_enabled=config.cors_enabled,
        cors_origins=config.cors_origins,
        allowed_hosts=config.allowed_hosts,
        auth_enabled=config.auth_enabled,
        public_url=config.public_url,
        scheme="https" if config.tls else "http",
    )


def path_of(public_url: str | None) -> str:
    """What a proxy in front puts before our paths."""
    return "" if public_url is None else urlsplit(public_url).path.rstrip("/")


def configured(config: Config) -> Configured:
    """The tenants, keys and roles of the files."""
    return Configured(tenants=config.tenants, keys=config.keys, roles=config.roles)


def is_deserted(
    entry: CatalogEntry, key: InstanceKey, keyring: Keyring, opens: Callable[[KeyId], bool]
) -> bool:
    """Whether nobody is left whom an instance of a server is for; ``opens`` says which keys are in
    force."""
    key_id, of = key_id_of(key), key.of
    if key_id is not None and not opens(key_id):
        return True
    if isinstance(of, Platform | Common):
        return False
    tenant = keyring.tenants.get(of)
    if tenant is None or tenant.deleted_at is not None or tenant.disabled_at is not None:
        return True
    return entry.spec.namespace not in tenant.namespaces
