"""The settings of one gateway, as read from ``config.yaml`` and the command line."""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Literal

from msgspec import Struct, field

from open_mcp_gateway.access.policy import ROLES, Roles
from open_mcp_gateway.auth.records import KeyRecord, TenantRecord
from open_mcp_gateway.inbound.access_log import AccessLog
from open_mcp_gateway.outbound.settings import OutboundSettings
from open_mcp_gateway.secrecy import Secretive


class LogLevel(enum.StrEnum):
    TRACE = "trace"
    DEBUG = "debug"
    INFO = "info"
    WARN = "warn"
    ERROR = "error"


class LogFormat(enum.StrEnum):
    HUMAN = "human"
    JSON = "json"


class ListenAddress(Struct, frozen=True):
    """Where to listen. Port 0 takes a free one, which the start-up line then names."""

    host: str
    """Without brackets: ``127.0.0.1``, ``::1``."""

    port: int

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{host}:{self.port}"


class ServerTls(Struct, frozen=True):
    """The listener's own certificate chain and private key, as PEM files."""

    cert: Path
    key: Path


class StoreLocation(Secretive, frozen=True, kw_only=True):
    """Where keys and tenants made at run time are kept."""

    kind: Literal["sqlite", "postgres"]
    url: str
    """May hold the password of the database."""

    path: Path | None = None
    """The file, absolute; None where it is no file."""

    def __repr__(self) -> str:
        return f"<StoreLocation {self.kind} {self.path or '***'}>"


class Config(Struct, frozen=True, kw_only=True):
    """Everything configured, checked and with defaults filled in. Times in whole seconds."""

    source: Path | None = None
    """The file it came from; None when the gateway runs on options alone."""

    listen_addr: ListenAddress = ListenAddress("127.0.0.1", 4444)
    catalog_path: Path = Path("catalog.yaml")
    """Absolute after loading."""

    log_level: LogLevel = LogLevel.INFO
    log_format: LogFormat | None = None
    """None is human on a terminal, else json."""

    access_log: AccessLog = AccessLog.ERRORS
    keys: tuple[KeyRecord, ...] = ()
    """The configured keys as digests; the plain text is gone after loading."""

    tenants: tuple[TenantRecord, ...] = ()
    """The configured tenants."""

    roles: Roles = field(default_factory=lambda: ROLES)
    """The built-in roles and the configured ones."""

    key_files: tuple[Path, ...] = ()
    """The files that keys were read from; a change of one is a reload."""

    store: StoreLocation | None = None
    """None: there are no keys but the configured ones."""

    auth_enabled: bool = False
    """True when any way to authenticate is configured; never derived from ``keys`` later."""

    idle_timeout_seconds: int = 300
    health_check_interval_seconds: int = 30
    start_timeout_seconds: int = 60
    request_timeout_seconds: int = 30
    max_request_seconds: int = 600
    max_connections_per_server: int = 10
    max_body_bytes: int = 8 * 1024 * 1024
    cors_enabled: bool = True
    cors_origins: tuple[str, ...] | None = None
    """None: any origin while authentication is on, loopback origins only while it is off."""

    allowed_hosts: tuple[str, ...] | None = None
    """None: any host while authentication is on, loopback names only while it is off."""

    public_url: str | None = None
    hot_reload: bool = True
    tls: ServerTls | None = None
    outbound: OutboundSettings = OutboundSettings()
    """Not settable from the file in this version."""
