"""The tables of the key store, and how a store of an earlier version becomes one of this version.

All steps that are missing are done in the transaction of the caller, so there is never half a step.
There is no way back: a program that does not know a table cannot keep it right.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeAlias

from open_mcp_gateway.errors import InvalidConfig, Problem
from open_mcp_gateway.keystore.rows import Row, Value
from open_mcp_gateway.names import alike

WHERE: Final = "auth.store"
INIT: Final = "open-mcp-gateway keys init"


class Run(Protocol):
    """Runs one statement, with ``?`` for each value, in a transaction that is open."""

    def __call__(self, sql: str, values: Sequence[Value] = (), /) -> list[Row]: ...


Statement: TypeAlias = str | Callable[[Run], None]

_FIRST: Final = (
    """CREATE TABLE auth_meta (
        id INTEGER PRIMARY KEY CHECK (id = 1),
        rev BIGINT NOT NULL,
        schema INTEGER NOT NULL)""",
    """CREATE TABLE tenants (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        namespaces TEXT NOT NULL,
        disabled_at BIGINT,
        deleted_at BIGINT,
        created_at BIGINT NOT NULL,
        rev BIGINT NOT NULL)""",
    "CREATE INDEX tenants_rev ON tenants (rev)",
    # tenant_id and parent_id reference nothing: what the configuration holds has no row.
    """CREATE TABLE api_keys (
        id TEXT PRIMARY KEY,
        holder TEXT NOT NULL,
        tenant_id TEXT,
        name TEXT NOT NULL,
        role TEXT NOT NULL,
        scope TEXT NOT NULL,
        hint TEXT NOT NULL,
        ip_allow TEXT,
        metadata TEXT NOT NULL,
        not_before BIGINT,
        expires_at BIGINT,
        disabled_at BIGINT,
        revoked_at BIGINT,
        revoke_reason TEXT,
        created_at BIGINT NOT NULL,
        created_by TEXT,
        parent_id TEXT,
        last_used_at BIGINT,
        rev BIGINT NOT NULL,
        CHECK ((holder = 'platform' AND tenant_id IS NULL)
            OR (holder = 'tenant' AND tenant_id IS NOT NULL AND tenant_id <> '')))""",
    """CREATE UNIQUE INDEX api_keys_live_name ON api_keys (COALESCE(tenant_id, ''), name)
        WHERE revoked_at IS NULL""",
    "CREATE INDEX api_keys_rev ON api_keys (rev)",
    "CREATE INDEX api_keys_holder ON api_keys (COALESCE(tenant_id, ''))",
    "CREATE INDEX api_keys_parent ON api_keys (parent_id)",
    """CREATE TABLE key_secrets (
        digest BLOB PRIMARY KEY CHECK (length(digest) = 32),
        key_id TEXT NOT NULL REFERENCES api_keys (id),
        version INTEGER NOT NULL,
        UNIQUE (key_id, version))""",
    """CREATE TABLE idempotency (
        actor TEXT NOT NULL,
        key TEXT NOT NULL,
        request_sha256 BLOB NOT NULL,
        result TEXT NOT NULL,
        created_at BIGINT NOT NULL,
        PRIMARY KEY (actor, key))""",
    "CREATE INDEX idempotency_created ON idempotency (created_at)",
    "INSERT INTO auth_meta (id, rev, schema) VALUES (1, 0, 0)",
)

_SECOND: Final = (
    "CREATE TABLE auth_changes (rev BIGINT PRIMARY KEY, tag TEXT NOT NULL)",
    "INSERT INTO auth_changes (rev, tag) SELECT rev, ? FROM auth_meta",
)


def _add_likeness(run: Run) -> None:
    for key_id, name in run("SELECT id, name FROM api_keys"):
        run("UPDATE api_keys SET alike = ? WHERE id = ?", [alike(str(name)), key_id])


# Not unique: stores of before may have names that are alike, and those keys have to go on.
_THIRD: Final = (
    "ALTER TABLE api_keys ADD COLUMN alike TEXT",
    _add_likeness,
    """CREATE INDEX api_keys_live_alike ON api_keys (COALESCE(tenant_id, ''), alike)
        WHERE revoked_at IS NULL""",
)

MIGRATIONS: Final[tuple[Sequence[Statement], ...]] = (_FIRST, _SECOND, _THIRD)
"""In order; the n-th makes schema n. What was released is never changed, only added to.
A ``?`` stands for a new tag; what no statement can say is a function."""


def new_tag() -> str:
    """Random, and no secret: tells two histories of a store apart."""
    return secrets.token_hex(8)


def migrate(
    run: Run,
    present: Callable[[], int | None],
    *,
    create: bool,
    place: str,
    migrations: Sequence[Sequence[Statement]] = MIGRATIONS,
) -> None:
    """Bring the store to the newest schema. The caller holds a lock against doing it twice at once.

    Args:
        run: runs a statement in the transaction.
        present: gives the schema that is there, None if there is no store.
        create: whether a store may be made where there is none.
        place: names the store in errors; without secrets.
        migrations: what there is to be done, from the first on.

    Raises:
        InvalidConfig: no store and none may be made, or it is of a later version.
    """
    found = present()
    newest = len(migrations)
    if found is None and not create:
        raise InvalidConfig([no_store(place)])
    if found is not None and found > newest:
        raise InvalidConfig(
            [
                Problem(
                    WHERE,
                    f"{place} has schema {found}, but this version of the gateway knows schemas up "
                    f"to {newest}; there is no way back. Use the version that wrote it, or a later "
                    "one.",
                )
            ]
        )
    if found == newest:
        return
    for step in migrations[found or 0 :]:
        for statement in step:
            if isinstance(statement, str):
                run(statement, [new_tag()] if "?" in statement else ())
            else:
                statement(run)
    run("UPDATE auth_meta SET schema = ?", [newest])


def no_store(place: str) -> Problem:
    return Problem(WHERE, f"there is no key store at {place}. Make one with `{INIT}`.")


def unusable(place: str, reason: object) -> InvalidConfig:
    """For a store that is there but cannot be used; ``reason`` without secrets."""
    cause = str(reason).rstrip(".?")
    return InvalidConfig(
        [
            Problem(
                WHERE,
                f"the key store at {place} cannot be used: {cause}. Mend it, restore a backup, "
                f"or name another place and make a store there with `{INIT}`.",
            )
        ]
    )
