"""Rules for the patterns of a scope, wherever it is written: what is wrong, and how to mend
it; None when nothing is. Pure.

A pattern that can fit nothing is refused: in ``deny_tools`` it would deny nothing.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final, TypeAlias

from open_mcp_gateway.auth.principal import Permission
from open_mcp_gateway.auth.scope import selection
from open_mcp_gateway.document.convert import suggestion
from open_mcp_gateway.names import NAMESPACE, SERVER_ID

Rule: TypeAlias = Callable[[str], "str | None"]
"""What is wrong with a text; None when nothing is."""

_ANY: Final = "*"


def wrong_ends(text: str) -> str | None:
    """For every text that rights hang on."""
    if text and text == text.strip() and text.isprintable():
        return None
    return "is empty, or has white space at an end or a control character; remove it"


def wrong_pattern(text: str) -> str | None:
    try:
        selection([text])
    except ValueError:
        return "has a '*' that is not at its end; write a name, or a beginning and one '*'"
    return None


def wrong_item(text: str) -> str | None:
    """A pattern for what a server has."""
    server, _, name = text.partition("/")
    if not server or not (name or text.endswith(_ANY)):
        return "can fit nothing; write server/name, server/beginning* or server/*"
    return wrong_pattern(text) or wrong_server(server)


def wrong_server(text: str) -> str | None:
    """A pattern for ids of servers."""
    return wrong_pattern(text) or _unfit(text, SERVER_ID, "id of a server")


def wrong_namespace(text: str) -> str | None:
    """A pattern for namespaces."""
    return wrong_pattern(text) or _unfit(text, NAMESPACE, "namespace")


def _unfit(text: str, names: re.Pattern[str], what: str) -> str | None:
    beginning = text.removesuffix(_ANY)
    if text == _ANY or names.fullmatch(beginning):
        return None
    return f"can fit no {what}; mend the name"


def wrong_permission(text: str) -> str | None:
    known = [str(one) for one in Permission]
    if text in known:
        return None
    return f"is no permission{suggestion(text, known) or '; known are ' + ', '.join(known)}"


def wrong_permissions(text: str) -> str | None:
    """A pattern that fits at least one permission."""
    mistake = wrong_pattern(text)
    if mistake is None and not any(one in selection([text]) for one in Permission):
        return wrong_permission(text)
    return mistake


SCOPE_RULES: Final[Mapping[str, Rule]] = MappingProxyType(
    {
        "permissions": wrong_permissions,
        "namespaces": wrong_namespace,
        "servers": wrong_server,
        "tools": wrong_item,
        "deny_tools": wrong_item,
        "resources": wrong_item,
        "prompts": wrong_item,
    }
)
"""By the members of a scope."""
