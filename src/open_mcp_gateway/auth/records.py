"""What is known of tenants and keys, wherever it was written down: a file or the store."""

from __future__ import annotations

import enum
import math
from typing import Final

from msgspec import Struct, field

from open_mcp_gateway.auth.principal import Holder
from open_mcp_gateway.auth.scope import ScopeText
from open_mcp_gateway.names import KeyId, Namespace, TenantId
from open_mcp_gateway.secrecy import Secretive

NEVER_S: Final = math.inf


class Source(enum.StrEnum):
    """Where a tenant or key is kept, and so where it can be changed."""

    CONFIG = "config"
    STORE = "api"


class TenantRecord(Struct, frozen=True, kw_only=True):
    """One tenant."""

    id: TenantId
    namespaces: tuple[Namespace, ...]
    """What its keys may reach at most; empty reaches nothing."""

    name: str = ""
    disabled_at: float | None = None
    """Seconds since the epoch (UTC), like every moment here; None: it is not."""

    deleted_at: float | None = None
    """Set on what is left of a tenant so that every process learns that it is gone."""

    created_at: float | None = None
    """None for tenants of the configuration."""

    source: Source = Source.CONFIG
    rev: int = 0
    unusable: str = ""
    """What of it cannot be read, as names of columns; it is disabled then, and reaches nothing."""


class KeyRecord(Secretive, frozen=True, kw_only=True):
    """One key without its secret. Moments are seconds since the epoch (UTC), None is never."""

    id: KeyId
    holder: Holder
    name: str
    role: str
    scope: ScopeText = ScopeText()
    digests: tuple[bytes, ...]
    """SHA-256 of each secret that opens it, 32 bytes each."""

    hint: str = ""
    """What may be shown of the secret."""

    ip_allow: tuple[str, ...] | None = None
    """Networks it may be used from (RFC 4632, RFC 4291); None: from anywhere."""

    metadata: dict[str, str] = field(default_factory=dict)
    not_before: float | None = None
    expires_at: float | None = None
    disabled_at: float | None = None
    revoked_at: float | None = None
    revoke_reason: str | None = None
    created_at: float | None = None
    """None for keys of the configuration."""

    created_by: str | None = None
    parent: KeyId | None = None
    last_used_at: float | None = None
    source: Source = Source.CONFIG
    rev: int = 0
    unusable: str = ""
    """What of it cannot be read, as names of columns; it is disabled then, and grants nothing."""

    def __repr__(self) -> str:
        # A weak key can be found from its digest by trying, so no digest is shown.
        return f"<KeyRecord {self.id}>"

    def status(self, now_s: float) -> Status:
        """What it is at a moment. Whether its tenant is disabled is not looked at."""
        if self.revoked_at is not None:
            return Status.REVOKED
        if self.disabled_at is not None or not self.digests:  # without a secret nothing opens it
            return Status.DISABLED
        if self.expires_at is not None and self.expires_at <= now_s:
            return Status.EXPIRED
        if self.not_before is not None and self.not_before > now_s:
            return Status.SCHEDULED
        return Status.ACTIVE


class Status(enum.StrEnum):
    """The state of a key at one moment."""

    SCHEDULED = "scheduled"
    ACTIVE = "active"
    DISABLED = "disabled"
    EXPIRED = "expired"
    REVOKED = "revoked"
