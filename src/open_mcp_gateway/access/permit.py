"""Proof that an access decision was made and allowed."""

from __future__ import annotations

from msgspec import Struct

from open_mcp_gateway.auth.principal import Permission, Principal
from open_mcp_gateway.catalog.model import CatalogEntry


class Permit(Struct, frozen=True):
    """``principal`` may exercise ``permission`` on the server ``entry``.

    Whatever acts on a server takes one as an argument. Only ``access.authorize`` makes them; a test
    over the source tree holds everybody to that.
    """

    principal: Principal
    permission: Permission
    entry: CatalogEntry


class Clearance(Struct, frozen=True):
    """``principal`` may exercise ``permission`` on the gateway itself, e.g. reload the catalog.

    The sibling of ``Permit`` where no server is meant; made by ``access.authorize`` alone as well.
    """

    principal: Principal
    permission: Permission
