"""The identity of a caller after the door."""

from __future__ import annotations

import enum
from typing import Final, final

from msgspec import Struct

from open_mcp_gateway.names import KeyId, Namespace


@final
class Everything:
    """The written ``"*"``: all of a kind. Never what an absent value means."""

    __slots__ = ()

    def __contains__(self, item: object) -> bool:
        return True

    def __repr__(self) -> str:
        return '"*"'


EVERYTHING: Final = Everything()


class Permission(enum.StrEnum):
    """What a route can demand. A role is a set of these."""

    SERVERS_LIST = "servers:list"
    SERVERS_READ = "servers:read"
    SERVERS_START = "servers:start"
    SERVERS_STOP = "servers:stop"
    SERVERS_RESTART = "servers:restart"
    STATS_READ = "stats:read"
    MCP_CALL = "mcp:call"
    CATALOG_RELOAD = "catalog:reload"


class Principal(Struct, frozen=True, kw_only=True, cache_hash=True):
    """Who a request acts for. There is no value that means "anybody": rights are spelled out."""

    key_id: KeyId
    role: str
    permissions: frozenset[Permission]
    namespaces: frozenset[Namespace] | Everything
