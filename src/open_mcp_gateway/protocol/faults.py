"""The one table from the gateway's own failures to what each wire says about them."""

from __future__ import annotations

import logging
from http import HTTPStatus
from typing import NamedTuple

from open_mcp_gateway import errors
from open_mcp_gateway.errors import GatewayError
from open_mcp_gateway.protocol.jsonrpc import encode, error_response

PARSE_ERROR = -32700
INVALID_REQUEST = -32600
METHOD_NOT_FOUND = -32601
INVALID_PARAMS = -32602
INTERNAL_ERROR = -32603
HEADER_MISMATCH = -32020
MISSING_CLIENT_CAPABILITY = -32021
UNSUPPORTED_VERSION = -32022
SERVER_NOT_FOUND = -32001
SERVER_UNAVAILABLE = -32002


class Fault(NamedTuple):
    """How one kind of failure is told: HTTP status, JSON-RPC code, level of its log line."""

    status: int
    rpc_code: int
    log_level: int


_CALLER = logging.INFO
_SERVER = logging.WARNING

FAULTS: dict[type[GatewayError], Fault] = {
    errors.MalformedMessage: Fault(400, PARSE_ERROR, _CALLER),
    errors.InvalidRequest: Fault(400, INVALID_REQUEST, _CALLER),
    errors.InvalidParams: Fault(400, INVALID_PARAMS, _CALLER),
    errors.UnknownMethod: Fault(404, METHOD_NOT_FOUND, _CALLER),
    errors.HeaderMismatch: Fault(400, HEADER_MISMATCH, _CALLER),
    errors.UnsupportedVersion: Fault(400, UNSUPPORTED_VERSION, _CALLER),
    errors.MissingCapability: Fault(400, MISSING_CLIENT_CAPABILITY, _CALLER),
    errors.AmbiguousCredentials: Fault(400, INVALID_REQUEST, _CALLER),
    errors.Unauthenticated: Fault(401, INVALID_REQUEST, _CALLER),
    errors.WrongKey: Fault(403, INVALID_REQUEST, _CALLER),
    errors.RightsChanged: Fault(403, INVALID_REQUEST, _CALLER),
    errors.Denied: Fault(403, INVALID_REQUEST, _CALLER),
    errors.ForeignOrigin: Fault(403, INVALID_REQUEST, _CALLER),
    errors.NotFound: Fault(404, SERVER_NOT_FOUND, _CALLER),
    errors.MethodNotAllowed: Fault(405, INVALID_REQUEST, _CALLER),
    errors.Conflict: Fault(409, INVALID_REQUEST, _CALLER),
    errors.Outdated: Fault(412, INVALID_REQUEST, _CALLER),
    errors.Escalation: Fault(403, INVALID_REQUEST, _CALLER),
    errors.TooLarge: Fault(413, INVALID_REQUEST, _CALLER),
    errors.NotAcceptable: Fault(406, INVALID_REQUEST, _CALLER),
    errors.UnsupportedMedia: Fault(415, INVALID_REQUEST, _CALLER),
    errors.HeadTooLarge: Fault(431, INVALID_REQUEST, _CALLER),
    errors.NotConfigured: Fault(501, INTERNAL_ERROR, _CALLER),
    errors.StoreUnavailable: Fault(503, INTERNAL_ERROR, logging.ERROR),
    errors.Busy: Fault(503, INTERNAL_ERROR, _SERVER),
    errors.Draining: Fault(503, INTERNAL_ERROR, _CALLER),
    errors.UpstreamUnavailable: Fault(502, SERVER_UNAVAILABLE, _SERVER),
    errors.EraNotSpoken: Fault(400, UNSUPPORTED_VERSION, _CALLER),
    errors.UpstreamBroken: Fault(502, INTERNAL_ERROR, _SERVER),
    errors.UpstreamTimeout: Fault(504, INTERNAL_ERROR, _SERVER),
    errors.ReloadFailed: Fault(500, INTERNAL_ERROR, logging.ERROR),
    errors.InternalError: Fault(500, INTERNAL_ERROR, logging.ERROR),
}

_EXACT: dict[type[GatewayError], bytes] = {
    errors.Unauthenticated: b'{"error":"Unauthorized","message":"API key required"}',
    errors.WrongKey: b'{"error":"Forbidden","message":"Invalid API key"}',
}
"""Bodies that are the product's promise byte for byte, on every path."""


def management_body(error: GatewayError, request_id: str) -> bytes:
    """The body of the ``{"error","message"}`` family for ``error``."""
    exact = _EXACT.get(type(error))
    if exact is not None:
        return exact
    body: dict[str, object] = {
        "error": HTTPStatus(FAULTS[type(error)].status).phrase,
        "message": error.public,
        "code": error.code,
        "request_id": request_id,
    }
    if isinstance(error, errors.Denied):
        body |= error.details()
    if isinstance(error, errors.Escalation):
        body["excess"] = error.excess
    return encode(body)


def rpc_body(error: GatewayError, request_id: str) -> bytes:
    """The JSON-RPC error response for ``error``, with the id of the request it answers."""
    if error.data is not None:
        code = FAULTS[type(error)].rpc_code
        return error_response(error.request_id, code, error.public, error.data)
    data: dict[str, object] = {"code": error.code, "request_id": request_id}
    if isinstance(error, errors.Denied):
        data |= error.details()
    return error_response(error.request_id, FAULTS[type(error)].rpc_code, error.public, data)
