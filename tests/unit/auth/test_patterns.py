"""Patterns that could fit nothing are refused, with how to mend them; all others are taken."""

from __future__ import annotations

import pytest

from open_mcp_gateway.auth.patterns import (
    SCOPE_RULES,
    wrong_ends,
    wrong_item,
    wrong_namespace,
    wrong_pattern,
    wrong_permission,
    wrong_permissions,
    wrong_server,
)
from open_mcp_gateway.auth.principal import Permission
from open_mcp_gateway.auth.scope import ScopeText

ENDS = "is empty, or has white space at an end or a control character; remove it"
STAR = "has a '*' that is not at its end; write a name, or a beginning and one '*'"
ITEM = "can fit nothing; write server/name, server/beginning* or server/*"
SERVER = "can fit no id of a server; mend the name"
NAMESPACE = "can fit no namespace; mend the name"


@pytest.mark.parametrize("text", ["a", "*", "a b", "ä/\u00df"])
def test_texts_that_rights_may_hang_on(text: str) -> None:
    assert wrong_ends(text) is None


@pytest.mark.parametrize("text", ["", " ", " a", "a ", "\ta", "a\n", "a\tb", "a\x00b", "a\u202eb"])
def test_texts_that_would_be_read_otherwise_than_they_look(text: str) -> None:
    assert wrong_ends(text) == ENDS


@pytest.mark.parametrize("text", ["a", "a*", "*"])
def test_one_star_at_the_end(text: str) -> None:
    assert wrong_pattern(text) is None


@pytest.mark.parametrize("text", ["", "**", "*a", "a*b", "a**", "a*b*"])
def test_a_star_elsewhere(text: str) -> None:
    assert wrong_pattern(text) == STAR


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("pg/query", None),
        ("pg/qu*", None),
        ("pg/*", None),
        ("pg*", None),
        ("*", None),
        ("pg/file:///a/b", None),
        ("pg/file:///a/b*", None),
        ("", ITEM),
        ("query", ITEM),
        ("pg/", ITEM),
        ("/", ITEM),
        ("p*/", ITEM),
        ("pg/q*y", STAR),
        ("pg/**", STAR),
        ("*/query", STAR),
        ("p*/query", STAR),
        ("p*/q*", STAR),
        ("**", STAR),
        ("/query", ITEM),
        ("/*", ITEM),
        ("p g/query", SERVER),
        ("p g/*", SERVER),
        ("p g*", SERVER),
        (f"{'x' * 64}/query", None),
        (f"{'x' * 65}/query", SERVER),
        (f"{'x' * 65}*", SERVER),
    ],
)
def test_what_a_server_has(text: str, mistake: str | None) -> None:
    assert wrong_item(text) == mistake


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("pg", None),
        ("p*", None),
        ("*", None),
        ("x" * 64, None),
        ("p*g", STAR),
        ("**", STAR),
        ("p g", SERVER),
        ("p g*", SERVER),
        ("pg/*", SERVER),
        ("x" * 65, SERVER),
    ],
)
def test_servers(text: str, mistake: str | None) -> None:
    assert wrong_server(text) == mistake


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("prod", None),
        ("p*", None),
        ("*", None),
        ("x" * 63, None),
        ("p*d", STAR),
        ("**", STAR),
        ("Prod", NAMESPACE),
        ("Prod*", NAMESPACE),
        ("x" * 64, NAMESPACE),
    ],
)
def test_namespaces(text: str, mistake: str | None) -> None:
    assert wrong_namespace(text) == mistake


KNOWN = "is no permission; known are " + ", ".join(Permission)


@pytest.mark.parametrize("permission", Permission)
def test_each_permission_can_be_granted(permission: Permission) -> None:
    assert wrong_permission(permission) is None
    assert wrong_permissions(permission) is None
    assert wrong_permissions(f"{permission}*") is None


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("mcp-call", "is no permission; did you mean 'mcp:call'?"),
        ("mcp:*", "is no permission; did you mean 'mcp:call'?"),
        ("*", KNOWN),
        ("xyz", KNOWN),
        ("", KNOWN),
    ],
)
def test_what_is_no_permission(text: str, mistake: str) -> None:
    """A role spells its permissions out: no pattern, so that a new one belongs to nobody."""
    assert wrong_permission(text) == mistake


@pytest.mark.parametrize("text", ["*", "s*", "servers:*", "servers:st*"])
def test_patterns_of_permissions(text: str) -> None:
    assert wrong_permissions(text) is None


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("mcp.call", "is no permission; did you mean 'mcp:call'?"),
        ("xyz*", KNOWN),
        ("mcp*call", STAR),
        ("", STAR),
    ],
)
def test_patterns_that_fit_no_permission(text: str, mistake: str) -> None:
    assert wrong_permissions(text) == mistake


def test_every_member_of_a_scope_has_its_rule() -> None:
    assert set(SCOPE_RULES) == set(ScopeText.__struct_fields__)
    lists = dict.fromkeys(("tools", "deny_tools", "resources", "prompts"), wrong_item)
    assert lists.items() <= SCOPE_RULES.items()
    assert SCOPE_RULES["permissions"] is wrong_permissions
    assert SCOPE_RULES["namespaces"] is wrong_namespace
    assert SCOPE_RULES["servers"] is wrong_server
