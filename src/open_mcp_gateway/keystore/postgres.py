"""The key store in PostgreSQL: for any number of machines. Needs psycopg, an optional package."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, TypeAlias, final

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from open_mcp_gateway.errors import InvalidConfig, Problem, StoreUnavailable
from open_mcp_gateway.keystore import sql
from open_mcp_gateway.keystore.migrate import WHERE, Run, migrate, unusable
from open_mcp_gateway.keystore.rows import Row, Value
from open_mcp_gateway.keystore.sql_store import SqlStore

_Link: TypeAlias = "psycopg.Connection[tuple[object, ...]]"

CHANNEL: Final = "open_mcp_gateway_keys"
POLL_S: Final = 1.0
"""How often to look at the revision where notifications may have been lost."""

_CONNECT_S: Final = 5
_LIMITS: Final = (
    "SET LOCAL statement_timeout = '20s'; SET LOCAL lock_timeout = '10s'; "
    # Frees the lock of a process that was stopped in the middle of a change.
    "SET LOCAL idle_in_transaction_session_timeout = '20s'"
)
_MIGRATION_LOCK: Final = 0x6F6D6367
"""A number of our own for ``pg_advisory_xact_lock``: there may be no table to lock yet."""


class Address:
    """Where the database is; shows no password."""

    __slots__ = ("_parts", "place")

    def __init__(self, url: str) -> None:
        try:
            self._parts = conninfo_to_dict(url)
        except psycopg.Error:
            # Its own words may repeat the password.
            raise InvalidConfig(
                [
                    Problem(
                        f"{WHERE}.url",
                        "is not the address of a PostgreSQL database; write it like "
                        "postgresql://user@host:5432/database",
                    )
                ]
            ) from None
        host, name = self._parts.get("host", "localhost"), self._parts.get("dbname", "")
        place = f"postgresql://{host}:{self._parts.get('port', 5432)}/{name}"
        self.place = self.without_password(place)

    def connect(self) -> _Link:
        limits = {"connect_timeout": _CONNECT_S, "tcp_user_timeout": 10_000}
        text = make_conninfo("", **{**limits, **self._parts})
        # Poolers do not keep prepared statements apart.
        link: _Link = psycopg.connect(text, autocommit=True, prepare_threshold=None)
        return link

    def without_password(self, text: object) -> str:
        password = self._parts.get("password")
        line = " ".join(str(text).split())
        return line.replace(str(password), "***") if password else line


class _Session:
    """A connection that threads take turns on and that is made anew when it broke."""

    def __init__(self, address: Address) -> None:
        self.lock = threading.Lock()
        self._address = address
        self._link: _Link | None = None
        self._closed = False

    def link(self, prepare: str) -> _Link:
        """The connection after ``prepare`` ran on it. One that broke while it lay idle is made anew
        once: nothing has been done on it yet."""
        if self._closed:
            raise psycopg.OperationalError("the store is closed")
        if self._link is not None and not self._link.closed:
            try:
                _run(self._link, prepare)
            except psycopg.OperationalError:
                self.drop()
            else:
                return self._link
        self._link = self._address.connect()
        _run(self._link, prepare)
        return self._link

    def drop(self) -> None:
        if self._link is not None:
            self._link.close()
        self._link = None

    @contextmanager
    def failures_named(self) -> Iterator[None]:
        try:
            yield
        except psycopg.Error as error:
            self.drop()
            problem = StoreUnavailable("The key store does not answer.", retry_after_s=1)
            problem.add_note(f"PostgreSQL says: {self._address.without_password(error)}")
            raise problem from None

    @contextmanager
    def transaction(self, begin: str) -> Iterator[Run]:
        with self.lock, self.failures_named():
            link = self.link(f"{begin}; {_LIMITS}")
            try:
                yield lambda statement, values=(): _run(link, statement, values)
                _run(link, "COMMIT")
            except BaseException:
                if not link.closed:
                    _run(link, "ROLLBACK")
                raise

    def close(self) -> None:
        with self.lock:
            self._closed = True
            self.drop()


def _run(link: _Link, statement: str, values: Sequence[Value] = ()) -> list[Row]:
    # All statements are ours; values travel apart from them.
    cursor = link.execute(statement.replace("?", "%s").encode(), values or None)
    return list(cursor.fetchall()) if cursor.description else []


@final
class PostgresStore(SqlStore):
    """``KeyStore`` over a database that has the newest schema."""

    warnings: tuple[str, ...] = ()

    def __init__(self, address: Address) -> None:
        self._writer = _Session(address)
        self._reader = _Session(address)
        """One of its own: a change may take long, and what others wrote is not to wait for it."""

        self._watcher = _Session(address)
        self._closed = threading.Event()
        with self.reading() as run:
            self._seen = sql.position(run)

    @contextmanager
    def changing(self) -> Iterator[Run]:
        with self._writer.transaction("BEGIN ISOLATION LEVEL READ COMMITTED") as run:
            # Whoever has this row changes keys; every later statement sees what was done before.
            run("SELECT rev FROM auth_meta WHERE id = 1 FOR UPDATE")
            yield run

    @contextmanager
    def reading(self) -> Iterator[Run]:
        with self._reader.transaction("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY") as run:
            yield run

    def announce(self, run: Run, rev: int) -> None:
        run("SELECT pg_notify(?, ?)", [CHANNEL, str(rev)])

    def wait_for_change(self, timeout_s: float) -> bool:
        for _ in range(max(1, math.ceil(timeout_s / POLL_S))):
            if self._closed.is_set():
                return False
            with self._watcher.lock, self._watcher.failures_named():
                # LISTEN anew each time costs nothing, and holds after a reconnection too.
                link = self._watcher.link(f"LISTEN {CHANNEL}")
                if self._moved(link):
                    return True
                for _note in link.notifies(timeout=min(POLL_S, timeout_s), stop_after=1):
                    pass
                if self._moved(link):
                    return True
        return False

    def _moved(self, link: _Link) -> bool:
        found = sql.position(lambda statement, values=(): _run(link, statement, values))
        moved = found != self._seen
        self._seen = found
        return moved

    def close(self) -> None:
        self._closed.set()
        for session in (self._watcher, self._reader, self._writer):
            session.close()


def open_postgres(url: str, *, create: bool) -> PostgresStore:
    """Open a store, and bring it to the newest schema.

    Args:
        url: what libpq takes as the address of a database that is there.
        create: make the tables if there are none.

    Raises:
        InvalidConfig: it is not there and may not be made, or cannot be used; says what to do.
    """
    address = Address(url)
    session = _Session(address)
    try:
        with session.transaction("BEGIN") as run:
            run("SELECT pg_advisory_xact_lock(?)", [_MIGRATION_LOCK])
            migrate(
                lambda statement, values=(): run(statement.replace("BLOB", "BYTEA"), values),
                lambda: _schema(run, address),
                create=create,
                place=address.place,
            )
        return PostgresStore(address)
    except StoreUnavailable as error:
        reason = "; ".join(getattr(error, "__notes__", [error.public]))
        raise unusable(address.place, reason) from None
    finally:
        session.close()


def _schema(run: Run, address: Address) -> int | None:
    if run("SELECT to_regclass('auth_meta')")[0][0] is None:
        return None
    rows = run("SELECT schema FROM auth_meta")
    if not rows:
        raise unusable(address.place, "it has lost its revision")
    return int(rows[0][0])
