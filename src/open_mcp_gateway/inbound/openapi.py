"""``GET /openapi.json``: the running table of routes, described (OpenAPI 3.1).

Written from the table itself and from the types that bodies are read with, so that it cannot tell
of another API than the one that answers.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any, Final

import msgspec

from open_mcp_gateway import __version__
from open_mcp_gateway.auth.principal import Permission, Principal
from open_mcp_gateway.auth.records import Source, Status
from open_mcp_gateway.inbound.answers import ANSWERS, NotReady
from open_mcp_gateway.inbound.explaining import Questions
from open_mcp_gateway.inbound.handlers import (
    Handler,
    McpPoint,
    McpStream,
    McpVisits,
    OnCaller,
    Probe,
    Request,
)
from open_mcp_gateway.inbound.routes import ANY_KEY, PLACEHOLDERS, Open, Route, RouteKind
from open_mcp_gateway.names import SERVER_ID
from open_mcp_gateway.operations.listing import DEFAULT_LIMIT, FILTERS, MAX_LIMIT
from open_mcp_gateway.operations.requests import (
    PERIOD,
    KeyCreate,
    KeyImport,
    KeyPatch,
    KeyVerify,
    TenantCreate,
    TenantPatch,
)
from open_mcp_gateway.operations.tags import TAG
from open_mcp_gateway.pipeline.reply import Reply

PATH: Final = "/openapi.json"

_BODIES: Final[dict[tuple[str, str], type]] = {
    ("POST", "/admin/keys"): KeyCreate,
    ("PATCH", "/admin/keys/{key}"): KeyPatch,
    ("POST", "/admin/keys/verify"): KeyVerify,
    ("POST", "/admin/keys/import"): KeyImport,
    ("POST", "/admin/tenants"): TenantCreate,
    ("PATCH", "/admin/tenants/{tenant}"): TenantPatch,
    ("POST", "/auth/explain"): Questions,
}
_QUERIES: Final[dict[tuple[str, str], tuple[str, ...]]] = {
    ("GET", "/servers"): ("tag",),
    ("GET", "/admin/keys"): (*FILTERS, "limit", "cursor"),
    ("DELETE", "/admin/keys/{key}"): ("cascade", "reason"),
}
_TEXT: Final[dict[str, Any]] = {"type": "string"}
_PERIOD_FORM: Final[dict[str, Any]] = {"type": "string", "pattern": f"^{PERIOD.pattern}$"}
_FORMS: Final[dict[str, dict[str, Any]]] = {
    "status": {"type": "string", "enum": [*Status]},
    "source": {"type": "string", "enum": [*Source]},
    "expiring_within": _PERIOD_FORM,
    "unused_for": _PERIOD_FORM,
    "limit": {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": DEFAULT_LIMIT},
    "cascade": {"type": "boolean", "default": False},
    "reason": {"type": "string", "maxLength": 500},
    "If-Match": {"type": "string", "pattern": rf'^("{TAG.pattern}"|\*)$'},
    "Idempotency-Key": {"type": "string", "pattern": "^[!-~]{1,255}$"},
    "X-Server-ID": {"type": "string", "pattern": f"^{SERVER_ID.pattern}$"},
}
"""Of parameters in queries and headers, by their names; of others any text."""

_PLACES: Final = {
    place[1:-1]: {"type": "string", "pattern": f"^{form.pattern}$"}
    for place, form in PLACEHOLDERS.items()
}

_MESSAGE: Final[dict[str, Any]] = {"type": "object", "description": "A JSON-RPC message"}
_ENVELOPE: Final[dict[str, Any]] = {
    "type": "object",
    "description": "A JSON-RPC message, and the server that it is for",
    "required": ["server_id", "method"],
    "properties": {"server_id": _FORMS["X-Server-ID"], "method": _TEXT},
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
    known = [one for forms in ANSWERS.values() for one in _each(forms)]
    wanted = [*_BODIES.values(), *known, NotReady]
    found, schemas = msgspec.json.schema_components(wanted, ref_template=_REFS)
    named = dict(zip(map(repr, wanted), found, strict=True))
    # Items are read one by one, so the type of the whole says nothing of them. What is none has an
    # answer of its own among the others, and stops no other.
    item = {"anyOf": [_ref("KeyCreate"), {"description": "Answered by an error of its own"}]}
    schemas["KeyImport"]["properties"]["keys"]["items"] = item
    paths: dict[str, Any] = {}
    for route in routes:
        # HEAD comes with GET and is not described by itself, as usual.
        for method in route.methods:
            paths.setdefault(route.path, {})[method.lower()] = _operation(method, route, named)
    return {
        "openapi": "3.1.0",
        "info": {"title": "Open MCP Gateway", "version": __version__},
        "paths": paths,
        "components": {
            "schemas": {**schemas, "Error": _ERROR},
            "securitySchemes": _SCHEMES,
        },
    }


def _operation(
    method: str, route: Route[Handler], named: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    where = (method, route.path)
    name = "_".join(part.strip("{}") for part in route.path.strip("/").split("/"))
    operation: dict[str, Any] = {
        "operationId": f"{method.lower()}_{name}",
        "summary": _summary(route.handler) or f"{method} {route.path}",
        "security": _security(route),
        "parameters": _parameters(where),
        "responses": _responses(where, route, named),
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
    _, path = where
    places = [part[1:-1] for part in path.split("/") if part.startswith("{")]
    found = [_parameter("path", one, _PLACES[one], required=True) for one in places]
    found += [_parameter("query", one) for one in _QUERIES.get(where, ())]
    found += [_parameter("header", one) for one in _headers(where)]
    if path == "/rpc":
        found.append(_parameter("header", "X-Server-ID", required=True))
    return found


def _parameter(
    place: str, name: str, schema: dict[str, Any] | None = None, *, required: bool = False
) -> dict[str, Any]:
    form = schema or _FORMS.get(name, _TEXT)
    return {"in": place, "name": name, "required": required, "schema": form}


def _headers(where: tuple[str, str]) -> list[str]:
    """Those that may be sent."""
    method, path = where
    headers = ["Idempotency-Key"] if where == ("POST", "/admin/keys") else []
    if method in ("PATCH", "DELETE") and path.startswith("/admin/"):
        headers.append("If-Match")
    return headers


def _responses(
    where: tuple[str, str], route: Route[Handler], named: Mapping[str, dict[str, Any]]
) -> dict[str, Any]:
    forms = [named[repr(one)] for one in _each(ANSWERS.get(where, ()))]
    schema = forms[0] if len(forms) == 1 else {"anyOf": forms}
    done = {"description": "Done", **({"content": _json(schema)} if forms else {})}
    error = {} if route.kind is RouteKind.MCP else {"content": _json(_ref("Error"))}
    found = {"201" if where in _CREATES else "200": done}
    if where == ("POST", "/admin/keys"):
        found["200"] = {**done, "description": "Done before, by the same request"}
    if where == ("GET", "/ready"):
        found["503"] = {"description": "Not ready", "content": _json(named[repr(NotReady)])}
    return {**found, "default": {"description": "Refused or failed", **error}}


def _each(forms: Any) -> tuple[Any, ...]:
    return forms if isinstance(forms, tuple) else (forms,)


def _body(where: tuple[str, str], route: Route[Handler]) -> dict[str, Any] | None:
    form = _BODIES.get(where)
    if form is not None:
        return _ref(form.__name__)
    if where == ("POST", "/mcp"):
        return _ENVELOPE
    takes_mcp = where[0] == "POST" and isinstance(route.handler, McpPoint | McpStream | McpVisits)
    return _MESSAGE if takes_mcp else None


def _summary(handler: Handler) -> str:
    """The first line of what the handler says of itself."""
    if isinstance(handler, Probe):
        function: Callable[..., object] = handler.answer
    elif isinstance(handler, McpPoint):
        return "Send a message to the server that the request names"
    elif isinstance(handler, McpStream):
        function = handler.serve
    elif isinstance(handler, McpVisits):
        function = handler.enter
    else:
        function = handler.run
    return (inspect.getdoc(function) or "").partition("\n")[0]


def _ref(name: str) -> dict[str, Any]:
    return {"$ref": _REFS.format(name=name)}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
