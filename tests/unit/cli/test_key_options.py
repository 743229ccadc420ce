"""What the options about keys become in requests."""

from __future__ import annotations

import argparse
from typing import Any

import pytest

from open_mcp_gateway.cli import key_options
from open_mcp_gateway.cli.main import _run
from open_mcp_gateway.cli.shown import cell
from open_mcp_gateway.cli.ways import Failed, plain
from open_mcp_gateway.cli.wording import narrowed, pairs, when, words
from open_mcp_gateway.errors import StoreUnavailable


def create(*options: str) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    key_options.add_create_options(parser)
    return key_options.create_body(parser.parse_args(["--name", "n", *options]))


def patch(*options: str) -> dict[str, Any]:
    parser = argparse.ArgumentParser()
    key_options.add_patch_options(parser)
    return key_options.patch_body(parser.parse_args(options))


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (None, None),
        (["a"], ["a"]),
        (["a,b", "c"], ["a", "b", "c"]),
        (["a, b"], ["a", "b"]),
        (["*"], ["*"]),
        (["none"], []),
        (["[]"], []),
        (['["a,b","none"]', "c"], ["a,b", "none", "c"]),
    ],
)
def test_lists(given: list[str] | None, meant: list[str] | None) -> None:
    assert words("--x", given) == meant


@pytest.mark.parametrize(
    "given",
    [
        [""],
        [" "],
        ["a,"],
        [","],
        ["a", ""],
        ["none", "a"],
        ["a,none"],
        ["none", "none"],
        ["[]", "a"],
        ["["],
        ["[1]"],
        ["[a]"],
    ],
)
def test_lists_that_could_be_meant_otherwise(given: list[str]) -> None:
    with pytest.raises(Failed, match="--x: "):
        words("--x", given)


def test_changes_of_a_list() -> None:
    assert narrowed("--x", None) == (False, None)
    assert narrowed("--x", ["unset"]) == (True, None)
    assert narrowed("--x", ["none"]) == (True, [])
    assert narrowed("--x", ["a"]) == (True, ["a"])


def test_what_is_absent_is_not_sent() -> None:
    assert create() == {"name": "n"}
    with pytest.raises(Failed, match="nothing to change"):
        patch()


def test_a_new_key() -> None:
    digest = "sha256:" + "0" * 64
    body = create(
        *("--role", "viewer", "--tenant", "t", "--expires-in", "90d", "--hash", digest),
        *("--ip-allow", "10.0.0.0/8,::1/128", "--metadata", "a=b=c", "--metadata", "d="),
        *("--deny-tools", "a/b", "--permissions", "none", "--not-before", "2030-01-01"),
    )
    assert body == {
        "name": "n",
        "role": "viewer",
        "tenant": "t",
        "expires_in": "90d",
        "hash": digest,
        "ip_allow": ["10.0.0.0/8", "::1/128"],
        "metadata": {"a": "b=c", "d": ""},
        "not_before": "2030-01-01T00:00:00.000Z",
        "scope": {"permissions": [], "deny_tools": ["a/b"]},
    }


def test_a_changed_key() -> None:
    assert patch("--disable") == {"disabled": True}
    assert patch("--enable") == {"disabled": False}
    assert patch("--expires-at", "never", "--not-before", "never") == {
        "expires_at": None,
        "not_before": None,
    }
    assert patch("--tools", "unset", "--servers", "a") == {
        "scope": {"tools": None, "servers": ["a"]}
    }
    assert patch("--ip-allow", "unset") == {"ip_allow": None}
    changed = patch("--metadata", "a=1", "--unset-metadata", "b", "--unset-metadata", "a")
    assert changed == {"metadata": {"a": "1", "b": None}}
    assert patch("--name", "") == {"name": ""}


def test_moments_and_pairs() -> None:
    assert when("--x", "2030-12-31T18:00:00+02:00") == "2030-12-31T16:00:00.000Z"
    for text in ("", "soon", "2030", "2030-13-01", "1924992000"):
        with pytest.raises(Failed, match="--x: "):
            when("--x", text)
    for text in ("a", "=b", ""):
        with pytest.raises(Failed, match="--x: "):
            pairs("--x", [text])


@pytest.mark.parametrize("text", ["", "x", "1", "٣" * 16, "A" * 16, "0" * 15, "0" * 17])
def test_revisions(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    key_options.add_rev_option(parser)
    with pytest.raises(SystemExit):
        parser.parse_args([f"--rev={text}"])
    assert "shown as rev" in capsys.readouterr().err


def test_what_is_shown() -> None:
    assert plain("größe") == "größe"
    assert plain("a\x1b[2J\r\nb\u202e") == r"a\x1b[2J\r\nb\u202e"
    shown: tuple[object, ...] = (None, "", [], {}, True, False, ["a", "b"], {"a": 1, "b": None}, 7)
    assert [cell(one) for one in shown] == [
        "-",
        "-",
        "none",
        "-",
        "yes",
        "no",
        "a, b",
        "a 1, b -",
        "7",
    ]


def test_a_store_that_does_not_answer(capsys: pytest.CaptureFixture[str]) -> None:
    def run(_: argparse.Namespace) -> int:
        problem = StoreUnavailable("The key store does not answer.")
        problem.add_note("SQLite says: database is locked")
        raise problem

    parser = argparse.ArgumentParser()
    parser.set_defaults(run=run)
    assert _run(parser, []) == 1
    assert capsys.readouterr().err == (
        "error: The key store does not answer. SQLite says: database is locked; "
        "check auth.store and try again\n"
    )
