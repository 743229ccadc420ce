"""The routes of key management."""

from __future__ import annotations

import re
from functools import partial
from http import HTTPStatus
from typing import Final

import msgspec
from anyio import to_thread

from open_mcp_gateway.access.permit import Clearance
from open_mcp_gateway.auth.principal import Permission
from open_mcp_gateway.auth.records import KeyRecord
from open_mcp_gateway.errors import Escalation, InvalidRequest
from open_mcp_gateway.inbound.admin_parts import (
    answer,
    body_of,
    flag,
    idempotency_key,
    located,
    query_of,
    refuse_headers,
    wanted_rev,
)
from open_mcp_gateway.inbound.handlers import Handler, OnRequest, Request
from open_mcp_gateway.inbound.routes import Route
from open_mcp_gateway.operations.keys import Imported, KeyAdmin
from open_mcp_gateway.operations.listing import DEFAULT_LIMIT, FILTERS, MAX_LIMIT, Filters
from open_mcp_gateway.operations.requests import (
    MAX_IMPORT_BYTES,
    KeyCreate,
    KeyImport,
    KeyPatch,
    KeyVerify,
    check_shown,
)
from open_mcp_gateway.operations.tags import tag_of
from open_mcp_gateway.operations.views import KeyView, key_view, moment, tenant_of
from open_mcp_gateway.pipeline.reply import Reply
from open_mcp_gateway.protocol.faults import FAULTS

_MAX_REASON_CHARS = 500
_LIMIT: Final = re.compile("[1-9][0-9]{0,2}", re.ASCII)


class KeyRoutes:
    """Handlers over ``KeyAdmin``."""

    def __init__(self, admin: KeyAdmin) -> None:
        self.admin = admin

    def routes(self) -> list[Route[Handler]]:
        """The table."""
        read, write = Permission.KEYS_READ, Permission.KEYS_WRITE
        return [
            _route("POST", "/admin/keys", write, OnRequest(self.create)),
            _route("GET", "/admin/keys", read, OnRequest(self.list)),
            _route("POST", "/admin/keys/verify", read, OnRequest(self.verify)),
            _route(
                "POST", "/admin/keys/import", write, OnRequest(self.import_keys, MAX_IMPORT_BYTES)
            ),
            _route("GET", "/admin/keys/{key}", read, OnRequest(self.show)),
            _route("PATCH", "/admin/keys/{key}", write, OnRequest(self.patch)),
            _route("DELETE", "/admin/keys/{key}", write, OnRequest(self.revoke)),
        ]

    async def create(self, clearance: Clearance, request: Request) -> Reply:
        """Make a key; its secret is in this answer alone."""
        query_of(request, ())
        refuse_headers(request, "If-Match")
        wanted = body_of(request, KeyCreate)
        created = await self.admin.create(
            clearance,
            wanted,
            request_id=request.arrival.request_id,
            idempotency_key=idempotency_key(request),
        )
        record = created.record
        shown = msgspec.to_builtins(self._view(record)) | {"secret": created.secret}
        if created.replayed:
            shown["replayed"] = True
            if wanted.hash is None:
                shown["warning"] = (
                    "The secret was in the first answer alone. If that is lost, revoke this key, "
                    f"DELETE /admin/keys/{record.id}, and make one under a new Idempotency-Key."
                )
            return answer(shown, rev=tag_of(record))
        if created.secret is not None:
            shown["warning"] = "The secret is shown once."
        return located(answer(shown, status=201, rev=tag_of(record)), f"/admin/keys/{record.id}")

    async def list(self, clearance: Clearance, request: Request) -> Reply:
        """The keys that are the caller's business, newest first, a page at a time."""
        query = query_of(request, (*FILTERS, "limit", "cursor"))
        limit = _limit(query.pop("limit", str(DEFAULT_LIMIT)))
        cursor = query.pop("cursor", None)
        # In a thread: among very many keys this takes longer than others should wait.
        page = await to_thread.run_sync(
            partial(self.admin.list, clearance, Filters(**query), limit=limit, cursor=cursor)
        )
        shown = [self._view(record) for record in page.records]
        return answer({"data": shown, "next_cursor": page.next_cursor})

    async def show(self, clearance: Clearance, request: Request) -> Reply:
        """One key, without its secret."""
        query_of(request, ())
        record = self.admin.get(clearance, request.ref)
        return answer(self._view(record), rev=tag_of(record))

    async def patch(self, clearance: Clearance, request: Request) -> Reply:
        """Change a key by a merge-patch: absent members stay, null clears."""
        query_of(request, ())
        refuse_headers(request, "Idempotency-Key")
        record = await self.admin.patch(
            clearance,
            request.ref,
            body_of(request, KeyPatch),
            request_id=request.arrival.request_id,
            rev=wanted_rev(request),
        )
        return answer(self._view(record), rev=tag_of(record))

    async def revoke(self, clearance: Clearance, request: Request) -> Reply:
        """Revoke a key for good; with ``cascade=true`` those made with it too."""
        query = query_of(request, ("cascade", "reason"))
        refuse_headers(request, "Idempotency-Key")
        reason = query.get("reason")
        if reason is not None and len(check_shown(reason, "reason")) > _MAX_REASON_CHARS:
            raise InvalidRequest(f"`reason` is over {_MAX_REASON_CHARS} characters")
        revoked = await self.admin.revoke(
            clearance,
            request.ref,
            request_id=request.arrival.request_id,
            cascade=flag(query, "cascade"),
            reason=reason,
            rev=wanted_rev(request),
        )
        record = revoked.record
        shown = {
            "id": record.id,
            "revoked_at": moment(record.revoked_at),
            "reason": record.revoke_reason,
            "children": revoked.children,
        }
        return answer(shown, rev=tag_of(record))

    async def verify(self, clearance: Clearance, request: Request) -> Reply:
        """Whether a key would open, and whose it is."""
        query_of(request, ())
        text = body_of(request, KeyVerify).key
        verdict = self.admin.verify(clearance, text, request.arrival.client)
        shown: dict[str, object] = {"valid": verdict.code == "valid", "code": verdict.code}
        if verdict.record is not None:
            record = verdict.record
            shown |= {
                "key_id": record.id,
                "name": record.name,
                "tenant": tenant_of(record.holder),
                "role": record.role,
                "expires_at": moment(record.expires_at),
            }
        return answer(shown)

    async def import_keys(self, clearance: Clearance, request: Request) -> Reply:
        """Make up to 1000 keys from digests of secrets made elsewhere; each by itself."""
        query_of(request, ())
        refuse_headers(request, "If-Match", "Idempotency-Key")
        outcome = await self.admin.import_keys(
            clearance, body_of(request, KeyImport), request_id=request.arrival.request_id
        )
        return answer({"data": [self._item(n, item) for n, item in enumerate(outcome)]})

    def _item(self, index: int, item: Imported) -> dict[str, object]:
        if item.record is not None:
            return {"index": index, "status": 201, "key": self._view(item.record)}
        error = item.error
        if error is None:
            raise AssertionError("an item is a record or an error")
        status = FAULTS[type(error)].status
        shown: dict[str, object] = {
            "index": index,
            "status": status,
            "error": HTTPStatus(status).phrase,
            "message": error.public,
            "code": error.code,
        }
        if isinstance(error, Escalation):
            shown["excess"] = error.excess
        return shown

    def _view(self, record: KeyRecord) -> KeyView:
        admin = self.admin
        used_s = admin.last_used_s(record)
        return key_view(record, admin.keyring(), admin.clock.wall(), used_s)


def _route(method: str, path: str, permission: Permission, handler: Handler) -> Route[Handler]:
    return Route(methods=(method,), path=path, permission=permission, handler=handler)


def _limit(text: str) -> int:
    if not (_LIMIT.fullmatch(text) and int(text) <= MAX_LIMIT):
        raise InvalidRequest(f"`limit` must be 1 to {MAX_LIMIT}")
    return int(text)
