"""The only switch on the kind of key store."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from open_mcp_gateway.errors import InvalidConfig, Problem
from open_mcp_gateway.keystore.migrate import WHERE
from open_mcp_gateway.keystore.sqlite import open_sqlite
from open_mcp_gateway.keystore.store import KeyStore


def open_store(
    kind: Literal["sqlite", "postgres"],
    *,
    path: Path | None = None,
    url: str | None = None,
) -> KeyStore:
    """Open a store that is there, at ``path`` for SQLite or ``url`` for PostgreSQL.

    Raises:
        InvalidConfig: it is not there, or cannot be used; says what to do.
    """
    return _opened(kind, path, url, create=False)


def create_store(
    kind: Literal["sqlite", "postgres"],
    *,
    path: Path | None = None,
    url: str | None = None,
) -> KeyStore:
    """The same, but what is missing is made. One that is there stays as it is.

    Raises:
        InvalidConfig: it cannot be made or used; says what to do.
    """
    return _opened(kind, path, url, create=True)


def _opened(kind: str, path: Path | None, url: str | None, *, create: bool) -> KeyStore:
    if kind == "sqlite" and path is not None:
        return open_sqlite(path, create=create)
    if kind == "postgres" and url:
        return _postgres(url, create=create)
    raise InvalidConfig(
        [Problem(WHERE, f"{kind!r} needs a place: a path for sqlite, an address for postgres")]
    )


def _postgres(url: str, *, create: bool) -> KeyStore:
    try:
        # Here, because the package is there only where it was asked for.
        from open_mcp_gateway.keystore.postgres import open_postgres  # noqa: PLC0415
    except ImportError as error:
        if (error.name or "psycopg").partition(".")[0] not in {"psycopg", "psycopg_binary"}:
            raise
        raise InvalidConfig(
            [
                Problem(
                    WHERE,
                    "PostgreSQL needs a package that is not installed: "
                    "`pip install 'open-mcp-gateway[postgres]'`",
                )
            ]
        ) from None
    return open_postgres(url, create=create)
