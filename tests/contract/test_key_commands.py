"""The commands about keys do the same on every kind of store."""

from __future__ import annotations

import json

import pytest

from open_mcp_gateway.cli.main import main
from tests.contract.places import Place
from tests.databases import PASSWORD


def test_commands_on_a_store(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*words: str) -> tuple[int, str]:
        code = main([*words, "--store", place.where])
        out, err = capsys.readouterr()
        assert PASSWORD not in out + err
        assert err.count("\n") == (1 if code else err.count("\n"))
        return code, out or err

    code, said = run("keys", "list")
    assert (code, "keys init" in said) == (2, True)
    assert run("keys", "init")[0] == 0
    assert run("tenants", "create", "acme", "--namespaces", "one")[0] == 0
    code, made = run("keys", "create", "--name", "x", "--tenant", "acme", "--json")
    key = json.loads(made)
    assert (code, key["tenant"]) == (0, "acme")
    assert run("keys", "create", "--name", "x", "--tenant", "acme")[0] == 1
    assert run("keys", "revoke", key["id"]) == (0, f"revoked {key['id']}\n")
    shown = json.loads(run("keys", "list", "--json")[1])["data"]
    assert [(one["id"], one["status"]) for one in shown] == [(key["id"], "revoked")]
    assert "secret" not in shown[0]


def test_a_store_that_fails(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    main(["keys", "init", "--store", place.where])
    capsys.readouterr()
    place.alter("DROP TABLE tenants")
    assert main(["keys", "list", "--store", place.where]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: The key store does not answer. ")
    assert err.endswith("; check auth.store and try again\n")
    assert "tenants" in err
    assert PASSWORD not in err
