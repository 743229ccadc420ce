"""``GET /openapi.json``: the running table of routes, described (OpenAPI 3.1).

Written from the table itself and from the types that bodies are read with, so that it cannot tell
of another API than the one that answers.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import cached_property
from typing import Any, Final

import msgspec

from open_mcp_gateway import __version__
from open_mcp_gateway.auth.principal import Permission, Principal
from open_mcp_gateway.inbound.handlers import Handler, McpPoint, McpStream, OnCaller, Probe, Request
from open_mcp_gateway.inbound.routes import ANY_KEY, Open, Route, RouteKind
from open_mcp_gateway.operations.listing import FILTERS
from open_mcp_gateway.operations.requests import (
    KeyCreate,
    KeyImport,
    KeyPatch,
    KeyVerify,
    TenantCreate,
    TenantPatch,
)
from open_mcp_gateway.operations.views import KeyView, TenantView
from open_mcp_gateway.pipeline.reply import Reply

PATH: Final = "/openapi.json"

_BODIES: Final[dict[tuple[str, str], type]] = {
    ("POST", "/admin/keys"): KeyCreate,
    ("PATCH", "/admin/keys/{key}"): KeyPatch,
    ("POST", "/admin/keys/verify"): KeyVerify,
    ("POST", "/admin/keys/import"): KeyImport,
    ("POST", "/admin/tenants"): TenantCreate,
    ("PATCH", "/admin/tenants/{tenant}"): TenantPatch,
}
_ANSWERS: Final[dict[tuple[str, str], type]] = {
    ("GET", "/admin/keys/{key}"): KeyView,
    ("PATCH", "/admin/keys/{key}"): KeyView,
    ("GET", "/admin/tenants/{tenant}"): TenantView,
    ("PATCH", "/admin/tenants/{tenant}"): TenantView,
}
_QUERIES: Final[dict[tuple[str, str], tuple[str, ...]]] = {
    ("GET", "/servers"): ("tag",),
    ("GET", "/admin/keys"): (*FILTERS, "limit", "cursor"),
    ("DELETE", "/admin/keys/{key}"): ("cascade", "reason"),
}
_CREATES: Final = frozenset({("POST", "/admin/keys"), ("POST", "/admin/tenants")})

_SCHEMES: Final[dict[str, Any]] = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
_ERROR: Final[dict[str, Any]] = {
    "type": "object",
    "required": ["error", "message"],
    "properties": {
        "error": {"type": "string"},
        "message": {"type": "string"},
        "code": {"type": "string"},
        "request_id": {"type": "string"},
    },
}
_REFS: Final = "#/components/schemas/{name}"


class OpenApi:
    """Serves the description of ``routes``, which are asked for once the table is complete."""

    def __init__(self, routes: Callable[[], Iterable[Route[Handler]]]) -> None:
        self._routes = routes

    def routes(self) -> list[Route[Handler]]:
        """The one route."""
        handler = OnCaller(self.show)
        return [Route(methods=("GET",), path=PATH, permission=ANY_KEY, handler=handler)]

    async def show(self, _principal: Principal, _request: Request) -> Reply:
        """This description."""
        return Reply(200, self._document)

    @cached_property
    def _document(self) -> bytes:
        return msgspec.json.encode(describe(self._routes()))


def describe(routes: Iterable[Route[Handler]]) -> dict[str, Any]:
    """The OpenAPI document of a table."""
    types = dict.fromkeys([*_BODIES.values(), *_ANSWERS.values()])
    _, schemas = msgspec.json.schema_components(types, ref_template=_REFS)
    # Items are read one by one, so the type of the whole says nothing of them.
    schemas["KeyImport"]["properties"]["keys"]["items"] = _ref("KeyCreate")
    paths: dict[str, Any] = {}
    for route in routes:
        # HEAD comes with GET and is not described by itself, as usual.
        for method in route.methods:
            paths.setdefault(route.path, {})[method.lower()] = _operation(method, route)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Open MCP Gateway", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": {**schemas, "Error": _ERROR},
            "securitySchemes": _SCHEMES,
        },
    }


def _operation(method: str, route: Route[Handler]) -> dict[str, Any]:
    where = (method, route.path)
    name = "_".join(part.strip("{}") for part in route.path.strip("/").split("/"))
    operation: dict[str, Any] = {
        "operationId": f"{method.lower()}_{name}",
        "summary": _summary(route.handler) or f"{method} {route.path}",
        "security": _security(route),
        "parameters": _parameters(where),
        "responses": _responses(where, route),
    }
    body = _body(where, route)
    if body is not None:
        operation["requestBody"] = {"required": True, "content": _json(body)}
    return operation


def _security(route: Route[Handler]) -> list[dict[str, list[str]]]:
    """Either way to send a key, and the permission it needs; an empty list where none is needed."""
    if isinstance(route.permission, Open):
        return []
    needed = [route.permission.value] if isinstance(route.permission, Permission) else []
    return [{scheme: needed} for scheme in _SCHEMES]


def _parameters(where: tuple[str, str]) -> list[dict[str, Any]]:
    text = {"type": "string"}
    _, path = where
    found: list[dict[str, Any]] = [
        {"name": part[1:-1], "in": "path", "required": True, "schema": text}
        for part in path.split("/")
        if part.startswith("{")
    ]
    found += [{"name": one, "in": "query", "schema": text} for one in _QUERIES.get(where, ())]
    headers = ["Idempotency-Key"] if where == ("POST", "/admin/keys") else []
    if where[0] in ("PATCH", "DELETE") and path.startswith("/admin/"):
        headers.append("If-Match")
    found += [{"name": one, "in": "header", "schema": text} for one in headers]
    return found


def _responses(where: tuple[str, str], route: Route[Handler]) -> dict[str, Any]:
    form = _ANSWERS.get(where)
    content = {} if form is None else {"content": _json(_ref(form.__name__))}
    status = "201" if where in _CREATES else "200"
    error = {} if route.kind is RouteKind.MCP else {"content": _json(_ref("Error"))}
    return {
        status: {"description": "Done", **content},
        "default": {"description": "Refused or failed", **error},
    }


def _body(where: tuple[str, str], route: Route[Handler]) -> dict[str, Any] | None:
    form = _BODIES.get(where)
    if form is not None:
        return _ref(form.__name__)
    takes_mcp = where[0] == "POST" and isinstance(route.handler, McpPoint | McpStream)
    return {"type": "object", "description": "A JSON-RPC message"} if takes_mcp else None


def _summary(handler: Handler) -> str:
    """The first line of what the handler says of itself."""
    if isinstance(handler, Probe):
        function: Callable[..., object] = handler.answer
    elif isinstance(handler, McpPoint):
        return "Send a message to the server that the request names"
    elif isinstance(handler, McpStream):
        function = handler.serve
    else:
        function = handler.run
    return (inspect.getdoc(function) or "").partition("\n")[0]


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": _REFS.format(name=name)}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
