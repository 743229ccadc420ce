"""The description is of every route there is, and of nothing else."""

from __future__ import annotations

from typing import Any, cast

from open_mcp_gateway.auth.principal import Permission
from open_mcp_gateway.catalog.model import Snapshot
from open_mcp_gateway.clock import SystemClock
from open_mcp_gateway.inbound.admin_tenants import admin_routes
from open_mcp_gateway.inbound.handlers import Handler
from open_mcp_gateway.inbound.management import Management, ReloadReport, ServerControl
from open_mcp_gateway.inbound.openapi import OpenApi, describe
from open_mcp_gateway.inbound.routes import Open, Router
from open_mcp_gateway.operations.changes import Changer
from open_mcp_gateway.operations.inforce import Configured, KeysInForce
from open_mcp_gateway.operations.keys import KeyAdmin


async def _no_reload() -> ReloadReport:
    raise AssertionError("the table is only read here")


def _table() -> Router[Handler]:
    nobody = cast("ServerControl", None)  # routes() hands handlers out, it does not run them
    clock = SystemClock()
    management = Management(nobody, clock, catalog=Snapshot, reload=_no_reload)
    changer = Changer(None, KeysInForce(Configured(), clock.wall), lambda _: None)
    keys = KeyAdmin(changer, clock, lambda _: 0)
    return Router([*management.routes(), *admin_routes(keys), *OpenApi(tuple).routes()])


TABLE = _table()
DOCUMENT = describe(TABLE.routes)


def _operations() -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (method.upper(), path): operation
        for path, methods in DOCUMENT["paths"].items()
        for method, operation in methods.items()
    }


def test_every_route_is_described_and_nothing_else() -> None:
    declared = {(method, route.path) for route in TABLE.routes for method in route.methods}
    assert set(_operations()) == declared


def test_every_permission_is_a_requirement() -> None:
    operations = _operations()
    for route in TABLE.routes:
        for method in route.methods:
            security = operations[method, route.path]["security"]
            if isinstance(route.permission, Open):
                assert security == []
                continue
            needed = [route.permission] if isinstance(route.permission, Permission) else []
            assert security == [{"bearer": needed}, {"apiKey": needed}]


def test_the_document_holds_together() -> None:
    operations = _operations()
    ids = [one["operationId"] for one in operations.values()]
    assert len(ids) == len(set(ids))
    for (_, path), operation in operations.items():
        places = {part[1:-1] for part in path.split("/") if part.startswith("{")}
        given = {one["name"] for one in operation["parameters"] if one["in"] == "path"}
        assert given == places
        assert operation["summary"]
        assert operation["responses"]
    schemas = DOCUMENT["components"]["schemas"]
    references = list(_references(DOCUMENT))
    assert references
    assert {one.rpartition("/")[2] for one in references} <= set(schemas)
    assert schemas["KeyCreate"]["additionalProperties"] is False


def _references(node: object) -> list[str]:
    if isinstance(node, dict):
        found = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
        return found + [one for value in node.values() for one in _references(value)]
    if isinstance(node, list):
        return [one for value in node for one in _references(value)]
    return []
