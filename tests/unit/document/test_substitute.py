from __future__ import annotations

import pytest

from open_mcp_gateway.document.substitute import Text, substitute

ENVIRON = {"A": "alpha", "B_2": "beta", "EMPTY": "", "MONEY": "$A ${A} $$"}


@pytest.mark.parametrize(
    ("text", "real", "shown"),
    [
        ("plain", "plain", "plain"),
        ("", "", ""),
        ("${A}", "alpha", "***"),
        ("x-${A}-${B_2}", "x-alpha-beta", "x-***-***"),
        ("${A}${A}", "alphaalpha", "******"),
        ("${EMPTY}", "", "***"),
        ("${NONE:-fallback}", "fallback", "***"),
        ("${EMPTY:-fallback}", "fallback", "***"),
        ("${A:-fallback}", "alpha", "***"),
        ("${NONE:-}", "", "***"),
        ("${NONE:-a:b-c?d $x}", "a:b-c?d $x", "***"),
        ("${NONE:-5$$}", "5$", "***"),
        ("${A:?needed}", "alpha", "***"),
        ("$$", "$", "$"),
        ("$${A}", "${A}", "${A}"),
        ("$$$${A}", "$${A}", "$${A}"),
        ("$$${A}", "$alpha", "$***"),
        ("$A", "$A", "$A"),
        ("100$", "100$", "100$"),
        ("$1 $-", "$1 $-", "$1 $-"),
        ("${MONEY}", "$A ${A} $$", "***"),
    ],
)
def test_what_comes_out(text: str, real: str, shown: str) -> None:
    found = substitute(text, ENVIRON)
    assert isinstance(found, Text)
    assert (found.real, found.shown) == (real, shown)


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        ("${NONE}", ["environment variable NONE is not set; set it"]),
        ("${NONE}${OTHER}", ["environment variable NONE is not set; set it",
                             "environment variable OTHER is not set; set it"]),
        ("${NONE:?get one from ops}", ["get one from ops (environment variable NONE is not set)"]),
        ("${EMPTY:?get one}", ["get one (environment variable EMPTY is empty)"]),
        ("${NONE:?}", ["a value is needed; set it (environment variable NONE is not set)"]),
        ("${A", ["'${' has no closing '}'; close it, or write '$$' for a literal '$'"]),
        ("${", ["'${' has no closing '}'; close it, or write '$$' for a literal '$'"]),
    ],
)  # fmt: skip
def test_mistakes(text: str, messages: list[str]) -> None:
    assert substitute(text, ENVIRON) == messages


@pytest.mark.parametrize("text", ["${}", "${1A}", "${A-x}", "${A:+x}", "${A B}", "${input:key}"])
def test_forms_that_do_not_exist(text: str) -> None:
    found = substitute(text, ENVIRON)
    assert isinstance(found, list)
    assert f"'{text}' is not understood; write ${{VAR}}, ${{VAR:-default}} or" in found[0]


def test_no_nesting() -> None:
    found = substitute("${NONE:-${A}}", ENVIRON)
    assert found == ["'${NONE:…}' has another '${' inside, which is not supported; use one level"]


def test_what_is_remembered() -> None:
    found = substitute("${A} ${EMPTY} ${NONE:-fall} ${EMPTY:-} $HOME", ENVIRON)
    assert isinstance(found, Text)
    assert found.substituted
    assert found.parts == ("alpha", "fall")
    assert found.variables == ("A", "EMPTY", "NONE", "EMPTY")
    assert found.empty == ("EMPTY", "EMPTY")
    assert found.defaulted == ("NONE", "EMPTY")
    assert found.bare
    assert "alpha" not in repr(found)


def test_an_escaped_dollar_is_not_bare() -> None:
    found = substitute("$$HOME", ENVIRON)
    assert isinstance(found, Text)
    assert not found.bare
    assert not found.substituted
