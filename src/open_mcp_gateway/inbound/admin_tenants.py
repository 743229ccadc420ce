"""The routes of tenant management."""

from __future__ import annotations

from open_mcp_gateway.access.permit import Clearance
from open_mcp_gateway.auth.principal import Permission
from open_mcp_gateway.inbound.admin_keys import KeyRoutes
from open_mcp_gateway.inbound.admin_parts import answer, body_of, located, query_of, wanted_rev
from open_mcp_gateway.inbound.handlers import Handler, OnRequest, Request
from open_mcp_gateway.inbound.routes import Route
from open_mcp_gateway.operations.keys import KeyAdmin
from open_mcp_gateway.operations.requests import TenantCreate, TenantPatch
from open_mcp_gateway.operations.tags import tag_of
from open_mcp_gateway.operations.tenants import TenantAdmin
from open_mcp_gateway.operations.views import tenant_view
from open_mcp_gateway.pipeline.reply import Reply


class TenantRoutes:
    """Handlers over ``TenantAdmin``."""

    def __init__(self, admin: TenantAdmin) -> None:
        self.admin = admin

    def routes(self) -> list[Route[Handler]]:
        """The table."""
        read, write = Permission.TENANTS_READ, Permission.TENANTS_WRITE
        return [
            _route("POST", "/admin/tenants", write, OnRequest(self.create)),
            _route("GET", "/admin/tenants", read, OnRequest(self.list)),
            _route("GET", "/admin/tenants/{tenant}", read, OnRequest(self.show)),
            _route("PATCH", "/admin/tenants/{tenant}", write, OnRequest(self.patch)),
            _route("DELETE", "/admin/tenants/{tenant}", write, OnRequest(self.delete)),
        ]

    async def create(self, clearance: Clearance, request: Request) -> Reply:
        """Make a tenant."""
        query_of(request, ())
        record = await self.admin.create(
            clearance, body_of(request, TenantCreate), request_id=request.arrival.request_id
        )
        made = answer(tenant_view(record), status=201, rev=tag_of(record))
        return located(made, f"/admin/tenants/{record.id}")

    async def list(self, clearance: Clearance, request: Request) -> Reply:
        """Every tenant, by id."""
        query_of(request, ())
        shown = [tenant_view(one) for one in self.admin.list(clearance)]
        return answer({"data": shown, "next_cursor": None})

    async def show(self, clearance: Clearance, request: Request) -> Reply:
        """One tenant."""
        query_of(request, ())
        record = self.admin.get(clearance, request.ref)
        return answer(tenant_view(record), rev=tag_of(record))

    async def patch(self, clearance: Clearance, request: Request) -> Reply:
        """Change a tenant by a merge-patch: absent members stay, null clears."""
        query_of(request, ())
        record = await self.admin.patch(
            clearance,
            request.ref,
            body_of(request, TenantPatch),
            request_id=request.arrival.request_id,
            rev=wanted_rev(request),
        )
        return answer(tenant_view(record), rev=tag_of(record))

    async def delete(self, clearance: Clearance, request: Request) -> Reply:
        """Delete a tenant that has no live keys."""
        query_of(request, ())
        record = await self.admin.delete(
            clearance,
            request.ref,
            request_id=request.arrival.request_id,
            rev=wanted_rev(request),
        )
        return answer({"id": record.id, "deleted": True}, rev=tag_of(record))


def admin_routes(keys: KeyAdmin) -> list[Route[Handler]]:
    """The routes of keys and tenants: both change the same store, one change at a time."""
    tenants = TenantAdmin(keys.changer, keys.clock)
    return [*KeyRoutes(keys).routes(), *TenantRoutes(tenants).routes()]


def _route(method: str, path: str, permission: Permission, handler: Handler) -> Route[Handler]:
    return Route(methods=(method,), path=path, permission=permission, handler=handler)
