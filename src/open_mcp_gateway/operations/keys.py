"""What an administrator can do about keys.

Everything is decided inside the transaction, from the newest state, the caller's own key included:
who was revoked a moment ago makes no key any more.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from open_mcp_gateway.access.keyring import Keyring
from open_mcp_gateway.access.permit import Clearance
from open_mcp_gateway.auth.apikeys import is_well_formed
from open_mcp_gateway.auth.keyformat import MadeKey, make_key
from open_mcp_gateway.auth.records import KeyRecord
from open_mcp_gateway.clock import Clock
from open_mcp_gateway.errors import (
    Conflict,
    Escalation,
    GatewayError,
    InvalidRequest,
    MalformedMessage,
    NotFound,
)
from open_mcp_gateway.keystore.store import Remembered, Transaction
from open_mcp_gateway.names import KeyId, RequestId
from open_mcp_gateway.operations.changes import Changer
from open_mcp_gateway.operations.keywork import KeyWork, Secret, governed
from open_mcp_gateway.operations.listing import DEFAULT_LIMIT, Filters, Page, check_filters, page
from open_mcp_gateway.operations.requests import (
    KeyCreate,
    KeyImport,
    KeyPatch,
    read_body,
)
from open_mcp_gateway.secrecy import Secretive

log = logging.getLogger(__name__)

_REMEMBERED_S: Final = 24 * 3600.0


class Created(Secretive, frozen=True, kw_only=True):
    """A key that was made; ``secret`` is shown once and kept nowhere."""

    record: KeyRecord
    secret: str | None
    replayed: bool = False

    def __repr__(self) -> str:
        return f"<Created {self.record.id}>"


class Revoked(Struct, frozen=True, kw_only=True):
    """A key that is revoked, and those that were revoked with it."""

    record: KeyRecord
    children: tuple[KeyId, ...]


class Imported(Struct, frozen=True, kw_only=True):
    """The outcome of one item: a record, or why there is none."""

    record: KeyRecord | None = None
    error: GatewayError | None = None


class Verdict(Struct, frozen=True, kw_only=True):
    """What is to be said of a key. ``record`` is None for one that the caller may not know."""

    code: str
    record: KeyRecord | None = None


class KeyAdmin:
    """Key management; ``changer`` has what is in force, and carries changes out."""

    def __init__(self, changer: Changer, clock: Clock, random_bits: Callable[[int], int]) -> None:
        self.changer = changer
        self.clock = clock
        self.last_used_s = changer.keys.last_used_s
        self._random_bits = random_bits

    def keyring(self) -> Keyring:
        """What is in force."""
        return self.changer.keys.keyring

    def get(self, clearance: Clearance, key_id: str) -> KeyRecord:
        """A key. Raises NotFound also for one that is none of the caller's business."""
        record = self.keyring().keys.get(KeyId(key_id))
        return governed(clearance.principal, record, key_id)

    def list(
        self,
        clearance: Clearance,
        filters: Filters,
        *,
        limit: int = DEFAULT_LIMIT,
        cursor: str | None = None,
    ) -> Page:
        """The keys that are the caller's business, newest first. Raises InvalidRequest."""
        check_filters(filters)
        return page(
            self.keyring(),
            clearance.principal,
            filters,
            self.clock.wall(),
            self.last_used_s,
            limit=limit,
            cursor=cursor,
        )

    def verify(self, clearance: Clearance, text: str, client: str) -> Verdict:
        """What ``text`` would open to ``client``; a key of others is as unknown as none."""
        ring, credential = self.keyring(), text.encode("utf-8")
        holding = ring.identifier.find(credential) if is_well_formed(credential) else None
        if holding is None or not clearance.principal.governs(holding.principal.holder):
            return Verdict(code="not_found")
        reason = holding.refusal(self.clock.wall(), client)
        record = ring.keys[holding.principal.key_id]
        return Verdict(code="valid" if reason is None else reason.value, record=record)

    async def create(
        self,
        clearance: Clearance,
        request: KeyCreate,
        *,
        request_id: RequestId,
        idempotency_key: str | None = None,
    ) -> Created:
        """Make a key; with the same ``idempotency_key`` the same one again, without its secret."""
        secret = self._secret(request)
        actor = clearance.principal.key_id
        fingerprint = _fingerprint(request)

        def work(tx: Transaction) -> Created:
            doing = self._work(tx, clearance)
            if idempotency_key is not None:
                after_s = doing.now_s - _REMEMBERED_S
                before = tx.remembered(actor, idempotency_key, after_s)
                if before is not None:
                    return _replayed(doing, before, fingerprint)
            record = doing.make(request, secret, self._random_bits)
            if idempotency_key is not None:
                outcome = Remembered(request_sha256=fingerprint, key_id=record.id)
                tx.remember(actor, idempotency_key, outcome, doing.now_s)
            text = secret.text if isinstance(secret, MadeKey) else None
            return Created(record=record, secret=text)

        created = await self.changer.change(work)
        if not created.replayed:
            _note("key created", created.record.id, clearance, request_id)
        return created

    async def import_keys(
        self, clearance: Clearance, request: KeyImport, *, request_id: RequestId
    ) -> Sequence[Imported]:
        """Make keys from digests, each by itself: what is wrong with one stops no other."""

        def one(doing: KeyWork, raw: msgspec.Raw) -> Imported:
            try:
                item = read_body(raw, KeyCreate)
                if item.hash is None:
                    raise InvalidRequest("`hash` is required: secrets are not imported")
                record = doing.make(item, self._secret(item), self._random_bits)
                return Imported(record=record)
            except (MalformedMessage, InvalidRequest, Conflict, Escalation, NotFound) as error:
                return Imported(error=error)

        def work(tx: Transaction) -> Sequence[Imported]:
            doing = self._work(tx, clearance)
            return [one(doing, raw) for raw in request.keys]

        outcome = await self.changer.change(work)
        for item in outcome:
            if item.record is not None:
                _note("key imported", item.record.id, clearance, request_id)
        return outcome

    async def patch(
        self,
        clearance: Clearance,
        key_id: str,
        patch: KeyPatch,
        *,
        request_id: RequestId,
        rev: str | None = None,
    ) -> KeyRecord:
        """Change a key; ``rev`` is the tag of the state that the caller has seen."""

        def work(tx: Transaction) -> KeyRecord:
            return self._work(tx, clearance).patch(key_id, patch, rev)

        record = await self.changer.change(work)
        _note("key changed", record.id, clearance, request_id)
        return record

    async def revoke(
        self,
        clearance: Clearance,
        key_id: str,
        *,
        request_id: RequestId,
        cascade: bool = False,
        reason: str | None = None,
        rev: str | None = None,
    ) -> Revoked:
        """Revoke a key for good, with ``cascade`` all that were made with it too. Idempotent."""

        def work(tx: Transaction) -> tuple[Revoked, list[KeyRecord]]:
            doing = self._work(tx, clearance)
            record = doing.stored(key_id, rev)
            children = doing.live_descendants(record.id)
            if children and not cascade:
                raise Conflict("keys made with it are live; use ?cascade=true", code="has_children")
            ending = [one for one in (record, *children) if one.revoked_at is None]
            doing.check_below(ending)
            ended = [replace(one, revoked_at=doing.now_s, revoke_reason=reason) for one in ending]
            doing.check_admins(ending, ended)
            for one in ended:
                written = tx.put_key(one)
                record = written if written.id == record.id else record
            return Revoked(record=record, children=tuple(one.id for one in children)), ended

        revoked, ended = await self.changer.change(work)
        known = self.keyring().keys.get(revoked.record.id)
        if known is not None and known.revoked_at is None:
            # Another process was first, and nothing was written. It holds here from now on too.
            await self.changer.catch_up()
        for one in ended:
            _note("key revoked", one.id, clearance, request_id)
        return revoked

    def _work(self, tx: Transaction, clearance: Clearance) -> KeyWork:
        return KeyWork(tx, self.keyring(), clearance, self.clock.wall())

    def _secret(self, request: KeyCreate) -> Secret:
        if request.hash is None:
            return make_key(self._random_bits)
        return bytes.fromhex(request.hash.removeprefix("sha256:"))


def _replayed(work: KeyWork, before: Remembered, fingerprint: bytes) -> Created:
    if before.request_sha256 != fingerprint:
        raise Conflict("another request had this Idempotency-Key", code="idempotency_mismatch")
    record = governed(work.giver.principal, work.tx.key(before.key_id), before.key_id)
    return Created(record=record, secret=None, replayed=True)


def _fingerprint(request: KeyCreate) -> bytes:
    return hashlib.sha256(msgspec.json.encode(request, order="sorted")).digest()


def _note(what: str, key_id: KeyId, clearance: Clearance, request_id: RequestId) -> None:
    actor = clearance.principal.key_id
    log.info(what, extra={"key_id": key_id, "actor": actor, "request_id": request_id})
