"""Failures of the gateway's own, in the codes and words that stdio clients of either era know."""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from open_mcp_gateway.inbound.arrival import new_request_id
from open_mcp_gateway.outbound.link import DOUBT
from open_mcp_gateway.pipeline.endings import SESSION_ENDED
from open_mcp_gateway.pipeline.modern import era_refusal
from open_mcp_gateway.pipeline.reply import failure_of
from open_mcp_gateway.protocol.faults import (
    INTERNAL_ERROR,
    SERVER_NOT_FOUND,
    SERVER_UNAVAILABLE,
    rpc_body,
)
from open_mcp_gateway.protocol.jsonrpc import error_response
from open_mcp_gateway.protocol.surrogates import Lenient

_NOT_FOUND: Final = "not_found"
_UNAVAILABLE: Final = "upstream_unavailable"


class _Origin(Struct):
    code: str = ""
    request_id: str = ""


class _RpcError(Struct):
    code: int
    message: str
    data: Raw | UnsetType = UNSET


class _Failure(Struct):
    error: _RpcError
    id: Raw | UnsetType = UNSET


_failure = Lenient(_Failure)
_origin = Lenient(_Origin)


class StdioWords:
    """How failures are told to a client that wants the server ``server_id``.

    ``relayed``: answers come through another gateway, whose failures are told in the same way.
    """

    def __init__(self, server_id: str, *, relayed: bool) -> None:
        self._server_id = server_id
        self._relayed = relayed

    def failure(self, error: Exception, raw_id: bytes | None = None, *, modern: bool) -> bytes:
        """The response for ``error`` to the request ``raw_id``, or else the one it carries."""
        request_id = new_request_id()
        failure = failure_of(error, raw_id, request_id)
        if modern:
            failure = era_refusal(failure)
        return self.reworded(rpc_body(failure, request_id), modern=modern)

    def answer(self, message: bytes, *, modern: bool) -> bytes:
        """The response ``message``; what a server answered is never touched."""
        return self.reworded(message, modern=modern) if self._relayed else message

    def reworded(self, message: bytes, *, modern: bool) -> bytes:
        """The response of a gateway; as it is, unless it is a failure that has other words here."""
        if b'"error"' not in message or b'"request_id"' not in message:
            return message
        try:
            failure = _failure.decode(message)
            origin = _origin.decode(failure.error.data or b"null")
        except msgspec.DecodeError:
            return message
        if origin.code == _NOT_FOUND:
            code, text = SERVER_NOT_FOUND, f"Server '{self._server_id}' not found in catalog"
            if failure.error.message.endswith(DOUBT):  # not any more
                text += DOUBT
        elif origin.code == _UNAVAILABLE:
            text = f"Failed to connect to server: {failure.error.message}"
            code = SERVER_UNAVAILABLE
        elif origin.code == SESSION_ENDED:
            code, text = INTERNAL_ERROR, failure.error.message
        else:
            return message
        raw_id = None if failure.id is UNSET else bytes(failure.id)
        data: object = failure.error.data
        if not modern:
            return error_response(raw_id, code, text, data)
        # The specification keeps these codes free of meaning for stateless clients.
        detail = {"code": code, "message": text, "detail": data}
        return error_response(raw_id, INTERNAL_ERROR, text, detail)
