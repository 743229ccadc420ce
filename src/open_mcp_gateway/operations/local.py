"""Who changes a store without a key: whoever can write it could put any key into it by hand."""

from __future__ import annotations

from typing import Final

from open_mcp_gateway.access.policy import ADMIN_ROLE, ROLES
from open_mcp_gateway.auth.principal import PLATFORM, Principal
from open_mcp_gateway.auth.scope import EVERYTHING, UNNARROWED
from open_mcp_gateway.names import KeyId

LOCAL: Final = Principal(
    key_id=KeyId("local"),
    holder=PLATFORM,
    role=ADMIN_ROLE,
    permissions=ROLES[ADMIN_ROLE],
    namespaces=EVERYTHING,
    scope=UNNARROWED,
)
"""Recognised by being this very object, which no request over a network comes to act for. It has no
secret, is in no keyring, and is no administrator that others could rely on."""
