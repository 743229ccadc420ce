"""What is so of the PostgreSQL store alone: a server that goes away, an address with a password."""

from __future__ import annotations

import subprocess
import sys
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest

from open_mcp_gateway.errors import InvalidConfig, StoreUnavailable
from open_mcp_gateway.keystore.open import create_store, open_store
from open_mcp_gateway.keystore.store import KeyStore, Transaction
from tests.contract.places import a_key, put
from tests.databases import PASSWORD, PostgresServer
from tests.environments import ROOT


@pytest.fixture
def address(postgres: PostgresServer) -> str:
    return postgres.new_place()


@pytest.fixture
def store(address: str) -> Iterator[KeyStore]:
    opened = create_store("postgres", url=address)
    yield opened
    opened.close()


def cut_all(postgres: PostgresServer) -> None:
    """End every connection but the one that says so."""
    with psycopg.connect(postgres.url, autocommit=True) as link:
        link.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
            " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
        )


def test_connections_that_broke_are_made_anew(postgres: PostgresServer, store: KeyStore) -> None:
    store.transact(put(a_key("a")))
    assert store.wait_for_change(5)
    cut_all(postgres)
    store.transact(put(a_key("b")))
    assert store.wait_for_change(5)
    assert store.read().rev == 2


def test_a_connection_that_breaks_within_a_change_undoes_it(
    postgres: PostgresServer, store: KeyStore
) -> None:
    def broken(change: Transaction) -> None:
        change.put_key(a_key("k"))
        cut_all(postgres)
        change.put_key(a_key("l"))

    with pytest.raises(StoreUnavailable) as caught:
        store.transact(broken)
    assert caught.value.public == "The key store does not answer."
    assert store.read().keys == ()


def test_a_server_that_is_away_is_said_and_found_again(
    postgres: PostgresServer, address: str, store: KeyStore
) -> None:
    store.transact(put(a_key("a")))
    postgres.stop()
    try:
        for ask in (
            store.read,
            lambda: store.transact(put(a_key("b"))),
            lambda: store.wait_for_change(1),
            lambda: store.note_use({a_key("a").id: 1.0}),
        ):
            with pytest.raises(StoreUnavailable) as caught:
                ask()
            assert PASSWORD not in "".join(traceback.format_exception(caught.value))
        with pytest.raises(InvalidConfig, match="cannot be used") as refused:
            open_store("postgres", url=address)
        assert PASSWORD not in "".join(traceback.format_exception(refused.value))
    finally:
        postgres.start()
    assert store.read().rev == 1
    store.transact(put(a_key("b")))
    assert store.wait_for_change(5)


@pytest.mark.parametrize(
    "url",
    [
        "postgres:SECRET@host",
        "postgresql://postgres:SECRET@host:port/x",
        "postgresql://postgres:SECRET@/x?nonsense=SECRET",
        "postgresql://postgres:SECRET@127.0.0.1:1/x",
        "postgresql://postgres:SECRET@/x?host=/nowhere/SECRET",
        "password=SECRET host",
    ],
)
def test_no_error_shows_a_password(url: str) -> None:
    for opener in (open_store, create_store):
        with pytest.raises(InvalidConfig) as caught:
            opener("postgres", url=url.replace("SECRET", PASSWORD))
        assert PASSWORD not in "".join(traceback.format_exception(caught.value))


def test_a_wrong_password_is_said(address: str) -> None:
    wrong = address.replace(PASSWORD, "another-one")
    with pytest.raises(InvalidConfig, match="password authentication failed") as caught:
        open_store("postgres", url=wrong)
    assert "another-one" not in str(caught.value)


def test_it_shows_no_password(store: KeyStore) -> None:
    assert PASSWORD not in repr(store) + str(store)


def test_many_threads_wait_and_change(store: KeyStore) -> None:
    with ThreadPoolExecutor(4) as threads:
        waiting = threads.submit(lambda: store.wait_for_change(30))
        list(threads.map(lambda n: store.transact(put(a_key(f"k{n}"))), range(12)))
        assert waiting.result(30)
    assert store.read().rev == 12


def test_without_its_package_it_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "psycopg.py").write_text("raise ModuleNotFoundError(name='psycopg')")
    code = "from open_mcp_gateway.keystore.open import open_store; open_store('postgres', url='x')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        cwd=ROOT,
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert "pip install 'open-mcp-gateway[postgres]'" in done.stderr
    assert "InvalidConfig" in done.stderr
