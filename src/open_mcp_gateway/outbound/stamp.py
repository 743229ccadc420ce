"""What the gateway writes into ``_meta`` of a request on its way to a server.

Spec: 2026-07-28 basic#_meta; 2025-11-25 basic/utilities/progress. Hot.
"""

from __future__ import annotations

from msgspec import Raw

from open_mcp_gateway.outbound.handshake import CLIENT_INFO, NO_CAPABILITIES
from open_mcp_gateway.protocol.jsonrpc import Call, Params, encode
from open_mcp_gateway.protocol.meta import (
    CLIENT_CAPABILITIES,
    LOG_LEVEL,
    PROGRESS_TOKEN,
    modern_meta,
    modern_params,
)
from open_mcp_gateway.protocol.repeated import remembered


class Stamp:
    """For the requests on one connection of the modern era."""

    __slots__ = ("_minted", "_plain", "_told")

    def __init__(self, version: str) -> None:
        self._minted = modern_meta(version, NO_CAPABILITIES, CLIENT_INFO)
        self._plain = Raw(encode(self._minted))
        self._told = remembered(self._capable)
        """The ``_meta`` of calls that say no more than what their caller can be asked for."""

    def params(self, call: Call, upstream_id: int) -> Params:
        """The call's params as they go to the server; ``upstream_id`` serves as progress token.

        Raises:
            InvalidRequest: ``_meta`` is not an object.
        """
        params = call.params
        if call.progress_token is None and call.log_level is None:
            if call.capabilities is None:
                return self.own_params(params)
            if params is None or "_meta" not in params:
                return {**(params or {}), "_meta": self._told(call.capabilities)}
        minted = dict(self._minted)
        if call.capabilities is not None:
            minted[CLIENT_CAPABILITIES] = Raw(call.capabilities)
        if call.log_level is not None:
            minted[LOG_LEVEL] = call.log_level
        if call.progress_token is not None:
            minted[PROGRESS_TOKEN] = _token(upstream_id)
        return modern_params(params, minted)

    def _capable(self, capabilities: bytes) -> Raw:
        return Raw(encode({**self._minted, CLIENT_CAPABILITIES: Raw(capabilities)}))

    def own_params(self, params: Params | None = None) -> Params:
        """The params of a request that asks for nothing in particular."""
        if params is None:
            return {"_meta": self._plain}
        if "_meta" not in params:
            return {**params, "_meta": self._plain}
        return modern_params(params, self._minted)


def with_progress(params: Params | None, upstream_id: int) -> Params:
    """``params`` of a request of the session era that wants progress.

    Raises:
        InvalidRequest: ``_meta`` is not an object.
    """
    return modern_params(params, {PROGRESS_TOKEN: _token(upstream_id)})


def _token(upstream_id: int) -> Raw:
    return Raw(b"%d" % upstream_id)
