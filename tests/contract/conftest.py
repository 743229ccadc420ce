"""Places for stores: a folder, and a PostgreSQL that runs as long as these tests do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.contract.places import Place
from tests.databases import PostgresServer


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    server = PostgresServer()
    server.initialise()
    server.start()
    yield server
    server.close()


@pytest.fixture(params=["sqlite", "postgres"])
def new_place(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], Place]:
    """Makes places where no store is yet."""
    made = 0

    def place() -> Place:
        nonlocal made
        made += 1
        if request.param == "sqlite":
            return Place("sqlite", str(tmp_path / f"{made}/auth.db"))
        server: PostgresServer = request.getfixturevalue("postgres")
        return Place("postgres", server.new_place())

    return place


@pytest.fixture
def place(new_place: Callable[[], Place]) -> Place:
    return new_place()
