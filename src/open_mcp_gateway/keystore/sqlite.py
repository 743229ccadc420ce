"""The key store in one SQLite file: for one machine, with any number of processes."""

from __future__ import annotations

import math
import os
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, final

from open_mcp_gateway.errors import InvalidConfig, StoreUnavailable
from open_mcp_gateway.keystore import sql
from open_mcp_gateway.keystore.migrate import Run, migrate, no_store, unusable
from open_mcp_gateway.keystore.rows import Row, Value
from open_mcp_gateway.keystore.sql_store import SqlStore
from open_mcp_gateway.keystore.store import StoreChanges

BUSY_S: Final = 5.0
"""How long to wait for another process that writes."""

POLL_S: Final = 0.05
"""How often to look whether another process has written."""


class _Connection:
    """A connection that threads take turns on."""

    def __init__(self, path: Path) -> None:
        self.lock = threading.Lock()
        # mode=rw: a file that is not there is an error, never an empty store.
        self._inner = sqlite3.connect(
            f"{path.absolute().as_uri()}?mode=rw",
            uri=True,
            timeout=BUSY_S,
            isolation_level=None,
            check_same_thread=False,
        )

    def run(self, statement: str, values: Sequence[Value] = ()) -> list[Row]:
        return self._inner.execute(statement, values).fetchall()

    @contextmanager
    def transaction(self, begin: str) -> Iterator[Run]:
        """One transaction; what is raised within undoes it. For whoever has the ``lock``, or is
        the only one who knows the connection.

        Raises:
            StoreUnavailable: SQLite does not do what it is asked for.
        """
        with _failures_named():
            self.run(begin)
            try:
                yield self.run
                self.run("COMMIT")
            except BaseException:
                if self._inner.in_transaction:
                    self.run("ROLLBACK")
                raise

    def close(self) -> None:
        with self.lock:
            self._inner.close()


@contextmanager
def _failures_named() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        problem = StoreUnavailable("The key store does not answer.", retry_after_s=1)
        problem.add_note(f"SQLite says: {error}")
        raise problem from None


@final
class SqliteStore(SqlStore):
    """``KeyStore`` over a file that is there and has the newest schema."""

    def __init__(self, path: Path, warnings: tuple[str, ...]) -> None:
        self._path = path
        self._warnings = warnings
        self._closed = threading.Event()
        self._opening = threading.Lock()
        self._file_number = 0
        self._connect()
        self._read_file_number = self._file_number
        """What another file holds may be anything, so it is read from its beginning."""

    def _connect(self) -> None:
        """Nothing is changed by a failure."""
        file = _identity(self._path)
        with ExitStack() as undo:
            opened = [_Connection(self._path) for _ in range(3)]
            for one in opened:
                undo.callback(one.close)
            writer, _reader, watcher = opened
            writer.run("PRAGMA synchronous = FULL")
            writer.run("PRAGMA foreign_keys = ON")
            _write_ahead(writer)
            self._seen = watcher, _data_version(watcher)
            undo.pop_all()
        self._file = file
        self._writer, self._reader, self._watcher = opened
        self._file_number += 1

    @contextmanager
    def _held(self, current: Callable[[], _Connection]) -> Iterator[_Connection]:
        """The ``current`` connection for this thread alone. While it waited for its turn another
        file may have become the store, and the connection may be closed."""
        while True:
            connection = current()
            with connection.lock:
                if connection is current():
                    yield connection
                    return

    @property
    def warnings(self) -> tuple[str, ...]:
        return self._warnings

    @contextmanager
    def changing(self) -> Iterator[Run]:
        self._was_replaced()  # or nobody would ever see the change
        with (
            self._held(lambda: self._writer) as writer,
            writer.transaction("BEGIN IMMEDIATE") as run,
        ):
            yield run

    @contextmanager
    def reading(self) -> Iterator[Run]:
        with self._held(lambda: self._reader) as reader, reader.transaction("BEGIN") as run:
            yield run

    def announce(self, run: Run, rev: int) -> None:
        """SQLite itself counts the commits of others."""

    def read(self, after_rev: int = -1, tag: str | None = None) -> StoreChanges:
        file_number = self._file_number
        another = tag is not None and file_number != self._read_file_number
        changes = sql.read(self, after_rev, tag, everything=another)
        if changes.whole:
            self._read_file_number = file_number
        return changes

    def wait_for_change(self, timeout_s: float) -> bool:
        if self._was_replaced() or self._file_number != self._read_file_number:
            return True
        for _ in range(max(1, math.ceil(timeout_s / POLL_S))):
            with self._held(lambda: self._watcher) as watcher, _failures_named():
                seen = watcher, _data_version(watcher)
            if seen != self._seen:
                # Kept from call to call, so that no commit falls between two of them; with its
                # connection, as each counts by itself.
                self._seen = seen
                return True
            if self._closed.wait(min(POLL_S, timeout_s)):
                return False
        return False

    def _was_replaced(self) -> bool:
        """Whether another file was put in the place of ours, which is the store from now on.

        SQLite goes on with a file that has no name any more, and would never hear of a change.

        Raises:
            StoreUnavailable: there is none.
        """
        with self._opening, _failures_named():
            try:
                if self._closed.is_set() or _identity(self._path) == self._file:
                    return False
            except OSError as error:
                problem = StoreUnavailable("The key store does not answer.", retry_after_s=1)
                problem.add_note(f"its file {self._path}: {error.strerror}")
                raise problem from None
            before = self._connections()
            self._connect()
            # Only now, when nobody takes them up any more; it waits for whoever has.
            _close(before)
        return True

    def close(self) -> None:
        self._closed.set()
        with self._opening:
            _close(self._connections())

    def _connections(self) -> tuple[_Connection, ...]:
        return self._watcher, self._reader, self._writer


def _close(connections: Iterable[_Connection]) -> None:
    for one in connections:
        one.close()


def _data_version(connection: _Connection) -> int:
    return int(connection.run("PRAGMA data_version")[0][0])


def _identity(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def open_sqlite(path: Path, *, create: bool) -> SqliteStore:
    """Open a store, and bring it to the newest schema.

    Args:
        path: where the file is.
        create: make what is missing: the folder, the file, the tables.

    Raises:
        InvalidConfig: it is not there and may not be made, or cannot be used; says what to do.
    """
    try:
        if create:
            _make_file(path)
        elif not path.exists():
            raise InvalidConfig([no_store(str(path))])
        _prepare(path, create=create)
        return SqliteStore(path, _too_open(path))
    except sqlite3.Error as error:
        raise unusable(str(path), error) from None
    except StoreUnavailable as error:
        reason = "; ".join(getattr(error, "__notes__", [error.public]))
        raise unusable(str(path), reason) from None
    except OSError as error:
        raise unusable(str(path), error.strerror or error) from None


def _make_file(path: Path) -> None:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Narrow from its first moment on; SQLite gives its other files the same mode.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))


def _prepare(path: Path, *, create: bool) -> None:
    connection = _Connection(path)
    try:
        with connection.transaction("BEGIN IMMEDIATE") as run:
            migrate(
                lambda statement, values=(): run(statement, values),
                lambda: _schema(run, path),
                create=create,
                place=str(path),
            )
    finally:
        connection.close()


def _schema(run: Run, path: Path) -> int | None:
    tables = {row[0] for row in run("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if "auth_meta" in tables:
        rows = run("SELECT schema FROM auth_meta")
        if not rows:
            raise unusable(str(path), "it has lost its revision")
        return int(rows[0][0])
    if tables:
        raise unusable(str(path), "it is a database of something else")
    return None


def _write_ahead(connection: _Connection) -> None:
    """Readers and the writer do not wait for each other. Kept in the file, so that another one in
    its place needs it anew; one that is no store stays as it is, and fails when it is read."""
    if not connection.run("SELECT 1 FROM sqlite_master WHERE name = 'auth_meta'"):
        return
    pause = threading.Event()
    for _ in range(round(BUSY_S / POLL_S)):
        try:
            mode = connection.run("PRAGMA journal_mode = WAL")[0][0]
        except sqlite3.OperationalError as error:
            # SQLite does not wait by itself while another process does the same.
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY:
                raise
            pause.wait(POLL_S)
            continue
        if mode != "wal":
            raise sqlite3.OperationalError("its file system does not allow write-ahead logging")
        return
    raise sqlite3.OperationalError("another process keeps it locked")


def _too_open(path: Path) -> tuple[str, ...]:
    found = []
    if path.stat().st_mode & 0o077:
        found.append(f"The key store {path} is open to others: run `chmod 600 {path}`.")
    if path.absolute().parent.stat().st_mode & 0o022:
        found.append(f"Others can replace the key store {path}: its folder is open to writing.")
    return tuple(found)
