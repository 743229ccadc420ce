"""The ``_meta`` object of requests: what belongs to a connection is taken out and minted anew.

Spec: 2026-07-28 basic#_meta; 2025-11-25 basic#_meta and basic/utilities/progress.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from msgspec import Raw

from open_mcp_gateway.errors import InvalidRequest
from open_mcp_gateway.protocol.jsonrpc import Params, encode
from open_mcp_gateway.protocol.repeated import remembered
from open_mcp_gateway.protocol.spelling import folded, spellings
from open_mcp_gateway.protocol.surrogates import Lenient

PROTOCOL_VERSION = "io.modelcontextprotocol/protocolVersion"
CLIENT_CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
CLIENT_INFO = "io.modelcontextprotocol/clientInfo"
LOG_LEVEL = "io.modelcontextprotocol/logLevel"
SERVER_INFO = "io.modelcontextprotocol/serverInfo"
PROGRESS_TOKEN = "progressToken"  # noqa: S105 - the name of a member, not a secret

CONNECTION_OWNED = frozenset(
    {PROTOCOL_VERSION, CLIENT_CAPABILITIES, CLIENT_INFO, LOG_LEVEL, PROGRESS_TOKEN}
)
"""Members that describe the caller's own connection, or ask for messages only it could receive."""

_OWNED = spellings(CONNECTION_OWNED)

_members = Lenient(dict[str, Raw])


def without_connection_owned(params: Params | None) -> Params | None:
    """``params`` with the connection-owned members of ``_meta`` taken out, others untouched.

    Raises:
        InvalidRequest: ``_meta`` is not an object.
    """
    if params is None or "_meta" not in params:
        return params
    return with_meta(params, not_owned(read_meta(params)))


def read_meta(params: Params) -> Mapping[str, Raw]:
    """The members of ``params._meta``; empty when there is none.

    Raises:
        InvalidRequest: ``_meta`` is not an object.
    """
    raw = params.get("_meta")
    if raw is None:
        return {}
    return members_of(bytes(raw))


@remembered
def members_of(meta: bytes) -> Mapping[str, Raw]:
    """The members of ``_meta``, given as JSON.

    Raises:
        InvalidRequest: it is not an object.
    """
    try:
        return _members.decode(meta)
    except msgspec.DecodeError as error:
        raise InvalidRequest("'params._meta' must be a JSON object") from error


def not_owned(meta: Mapping[str, Raw]) -> Raw | None:
    """What of ``_meta`` is sent on: its members without the connection-owned ones, however they are
    spelt, if any."""
    kept = {name: value for name, value in meta.items() if folded(name) not in _OWNED}
    return Raw(encode(kept)) if kept else None


def with_meta(params: Params, meta: Raw | None) -> Params:
    """``params`` with another ``_meta`` in place of its own; None for none."""
    changed = {**params}
    changed.pop("_meta", None)
    if meta is not None:
        changed["_meta"] = meta
    return changed


def modern_meta(version: str, capabilities: bytes, client_info: bytes) -> Params:
    """The members that every request of the modern era carries (2026-07-28 basic#_meta)."""
    return {
        PROTOCOL_VERSION: Raw(encode(version)),
        CLIENT_CAPABILITIES: Raw(capabilities),
        CLIENT_INFO: Raw(client_info),
    }


def modern_params(params: Params | None, minted: Params) -> Params:
    """``params`` with the ``minted`` members (see ``modern_meta``) added to its ``_meta``."""
    if params is None:
        return {"_meta": Raw(encode(minted))}
    if "_meta" not in params:
        return {**params, "_meta": Raw(encode(minted))}
    return {**params, "_meta": Raw(encode({**read_meta(params), **minted}))}
