"""What the key stores share that are kept in an SQL database."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Final, Protocol, TypeVar, final

from msgspec.structs import replace

from open_mcp_gateway.auth.principal import Holder
from open_mcp_gateway.auth.records import KeyRecord, TenantRecord
from open_mcp_gateway.errors import Conflict, StoreUnavailable
from open_mcp_gateway.keystore import history
from open_mcp_gateway.keystore.migrate import MIGRATIONS, Run
from open_mcp_gateway.keystore.rows import (
    KEY_COLUMNS,
    TENANT_COLUMNS,
    UnreadableRow,
    Value,
    holder_values,
    key_of,
    key_values,
    milliseconds,
    tenant_of,
    tenant_values,
)
from open_mcp_gateway.keystore.store import Remembered, StoreChanges, Transaction
from open_mcp_gateway.names import KeyId, TenantId, alike

Result = TypeVar("Result")

_META: Final = "SELECT rev, schema FROM auth_meta WHERE id = 1"
_TENANTS: Final = f"SELECT {', '.join(TENANT_COLUMNS)} FROM tenants"  # noqa: S608 (names of ours)
_KEYS: Final = f"SELECT {', '.join(KEY_COLUMNS)} FROM api_keys"  # noqa: S608 (names of ours)
_SECRETS: Final = "SELECT key_secrets.key_id, key_secrets.digest FROM key_secrets"
_HELD_BY: Final = "holder = ? AND COALESCE(tenant_id, '') = ?"


def _upsert(table: str, columns: Sequence[str], *, special: Mapping[str, str]) -> str:
    marks = ", ".join("?" for _ in columns)
    updates = ", ".join(f"{one} = {special.get(one, f'excluded.{one}')}" for one in columns[1:])
    return (
        f"INSERT INTO {table} ({', '.join(columns)}) VALUES ({marks}) "  # noqa: S608 (names of ours)
        f"ON CONFLICT ({columns[0]}) DO UPDATE SET {updates}"
    )


_PUT_TENANT: Final = _upsert("tenants", TENANT_COLUMNS, special={})
# Another process may have noted a later use than the writer of the record has seen.
_PUT_KEY: Final = _upsert(
    "api_keys",
    KEY_COLUMNS,
    special={
        "last_used_at": "CASE WHEN api_keys.last_used_at IS NULL"
        " OR excluded.last_used_at > api_keys.last_used_at"
        " THEN excluded.last_used_at ELSE api_keys.last_used_at END"
    },
)


def _keys(run: Run, where: str, values: Sequence[Value]) -> list[KeyRecord]:
    rows = run(f"{_KEYS} WHERE {where} ORDER BY created_at, id", values)
    if not rows:
        return []
    secrets: dict[str, list[bytes]] = defaultdict(list)
    for key_id, digest in run(
        f"{_SECRETS} WHERE key_id IN (SELECT id FROM api_keys WHERE {where})"  # noqa: S608 (names of ours)
        " ORDER BY key_id, version",
        values,
    ):
        secrets[key_id].append(digest)
    found = []
    rows.reverse()
    while rows:
        # Each row goes as soon as it is read: of a hundred thousand both would be too much at once.
        row = rows.pop()
        found.append(key_of(row, secrets.pop(row[0], ())))
    return found


def _first_key(run: Run, where: str, values: Sequence[Value]) -> KeyRecord | None:
    return next(iter(_keys(run, where, values)), None)


def _tenants(run: Run, where: str, values: Sequence[Value]) -> list[TenantRecord]:
    return [tenant_of(row) for row in run(f"{_TENANTS} WHERE {where} ORDER BY id", values)]


def _held_by(holder: Holder) -> list[Value]:
    kind, tenant_id = holder_values(holder)
    return [kind, tenant_id or ""]


@final
class SqlTransaction(Transaction):
    """One change, between the BEGIN and the COMMIT of a store.

    Uniqueness is asked for before each write: changes are serialised, so nobody comes in between.
    The constraints of the tables say the same once more.
    """

    __slots__ = ("_keys", "_rev", "_run", "_tenants")

    def __init__(self, run: Run, rev: int) -> None:
        self._run = run
        self._rev = rev
        self._keys: dict[KeyId, KeyRecord] = {}
        self._tenants: dict[TenantId, TenantRecord] = {}

    def key(self, key_id: KeyId) -> KeyRecord | None:
        return _first_key(self._run, "id = ?", [key_id])

    def key_with_digest(self, digest: bytes) -> KeyRecord | None:
        owner = "id = (SELECT key_id FROM key_secrets WHERE digest = ?)"
        return _first_key(self._run, owner, [digest])

    def live_key_named(self, holder: Holder, name: str) -> KeyRecord | None:
        where = f"{_HELD_BY} AND alike = ? AND revoked_at IS NULL"
        return _first_key(self._run, where, [*_held_by(holder), alike(name)])

    def keys_of(self, holder: Holder) -> list[KeyRecord]:
        return _keys(self._run, _HELD_BY, _held_by(holder))

    def children_of(self, key_id: KeyId) -> list[KeyRecord]:
        return _keys(self._run, "parent_id = ?", [key_id])

    def tenant(self, tenant_id: TenantId) -> TenantRecord | None:
        return next(iter(_tenants(self._run, "id = ?", [tenant_id])), None)

    def put_key(self, record: KeyRecord) -> KeyRecord:
        values = key_values(record, self._rev)
        self._refuse_taken(record)
        self._run(_PUT_KEY, values)
        self._run("UPDATE api_keys SET alike = ? WHERE id = ?", [alike(record.name), record.id])
        self._run("DELETE FROM key_secrets WHERE key_id = ?", [record.id])
        for version, digest in enumerate(record.digests, 1):
            self._run(
                "INSERT INTO key_secrets (digest, key_id, version) VALUES (?, ?, ?)",
                [digest, record.id, version],
            )
        written = self.key(record.id)
        if written is None:
            raise StoreUnavailable("The key store does not keep what it is given.")
        self._keys[record.id] = written
        return written

    def _refuse_taken(self, record: KeyRecord) -> None:
        if record.revoked_at is None and self._is_name_taken(record):
            raise Conflict("There is a key of that name already.", code="name_taken")
        if len(set(record.digests)) != len(record.digests):
            raise Conflict("One secret is given twice.", code="key_taken")
        for digest in record.digests:
            owner = self.key_with_digest(digest)
            if owner is not None and owner.id != record.id:
                raise Conflict("Another key has this secret.", code="key_taken")

    def _is_name_taken(self, record: KeyRecord) -> bool:
        before = self.key(record.id)
        kept = before is not None and before.revoked_at is None and before.name == record.name
        if kept and before is not None and before.holder == record.holder:
            return False  # Others may be alike since before that was looked at.
        where = f"{_HELD_BY} AND alike = ? AND revoked_at IS NULL AND id <> ?"
        values = [*_held_by(record.holder), alike(record.name), record.id]
        return _first_key(self._run, where, values) is not None

    def put_tenant(self, record: TenantRecord) -> TenantRecord:
        self._run(_PUT_TENANT, tenant_values(record, self._rev))
        written = self.tenant(record.id)
        if written is None:
            raise StoreUnavailable("The key store does not keep what it is given.")
        self._tenants[record.id] = written
        return written

    def remembered(self, actor: str, idempotency_key: str, after_s: float) -> Remembered | None:
        self._run("DELETE FROM idempotency WHERE created_at <= ?", [milliseconds(after_s)])
        rows = self._run(
            "SELECT request_sha256, result FROM idempotency WHERE actor = ? AND key = ?",
            [actor, idempotency_key],
        )
        for request_sha256, result in rows:
            return Remembered(request_sha256=request_sha256, key_id=KeyId(result))
        return None

    def remember(self, actor: str, idempotency_key: str, outcome: Remembered, now_s: float) -> None:
        self._run("DELETE FROM idempotency WHERE actor = ? AND key = ?", [actor, idempotency_key])
        self._run(
            "INSERT INTO idempotency (actor, key, request_sha256, result, created_at)"
            " VALUES (?, ?, ?, ?, ?)",
            [
                *(actor, idempotency_key, outcome.request_sha256, outcome.key_id),
                milliseconds(now_s),
            ],
        )

    def written(self) -> StoreChanges | None:
        """What became of it; None if no record was written."""
        if not self._keys and not self._tenants:
            return None
        return StoreChanges(
            rev=self._rev,
            tenants=tuple(self._tenants.values()),
            keys=tuple(self._keys.values()),
        )


class Database(Protocol):
    """What differs between databases."""

    def changing(self) -> AbstractContextManager[Run]:
        """A transaction that nobody else's change runs beside; undone by whatever is raised."""

    def reading(self) -> AbstractContextManager[Run]:
        """A transaction that sees one moment."""

    def announce(self, run: Run, rev: int) -> None:
        """Tell other processes of the change, if it comes to be."""


def current_rev(run: Run) -> int:
    """The revision that is in force.

    Raises:
        StoreUnavailable: the tables are no longer those that this version knows.
    """
    rows = run(_META)
    if not rows:
        raise StoreUnavailable("The key store has lost its revision.")
    rev, schema = rows[0]
    if schema != len(MIGRATIONS):
        raise StoreUnavailable(
            f"The key store has schema {schema} now and this process knows {len(MIGRATIONS)}; "
            "restart it with the newer version."
        )
    return int(rev)


def transact(
    database: Database,
    work: Callable[[Transaction], Result],
    known_rev: int,
    known_tag: str | None,
) -> tuple[Result, StoreChanges]:
    """``KeyStore.transact``."""
    with database.changing() as run:
        before = current_rev(run)
        # Where nobody knows, what is written here must not be passed over either.
        rewritten = history.is_rewritten(run, before, known_rev, known_tag) is not False
        change = SqlTransaction(run, before + 1)
        try:
            result = work(change)
        except UnreadableRow as unreadable:
            raise _unreadable(unreadable) from None
        changes = change.written()
        if changes is None:
            return result, StoreChanges(rev=before)
        run("UPDATE auth_meta SET rev = ? WHERE id = 1", [changes.rev])
        tag = history.add(run, changes.rev)
        database.announce(run, changes.rev)
    return result, replace(changes, tag=tag, rewritten=rewritten)


def position(run: Run) -> tuple[int, str]:
    """The revision that is in force, and its tag. Raises as ``current_rev``."""
    rev = current_rev(run)
    return rev, history.tag_of(run, rev)


def read(
    database: Database, after_rev: int, known_tag: str | None, *, everything: bool = False
) -> StoreChanges:
    """``KeyStore.read``; ``everything`` whatever is known."""
    with database.reading() as run:
        rev, tag = position(run)
        rewritten = history.is_rewritten(run, rev, after_rev, known_tag)
        whole = everything or rewritten is not False or after_rev < 0
        since = [-1 if whole else after_rev]
        try:
            tenants = _tenants(run, "rev > ?", since)
            keys = _keys(run, "rev > ?", since)
        except UnreadableRow as unreadable:
            raise _unreadable(unreadable) from None
    return StoreChanges(
        rev=rev,
        tag=tag,
        tenants=tuple(tenants),
        keys=tuple(keys),
        whole=whole,
        rewritten=rewritten is True,
    )


def _unreadable(row: UnreadableRow) -> StoreUnavailable:
    problem = StoreUnavailable("A record of the key store cannot be read.")
    problem.add_note(f"the row of {row}")
    return problem
