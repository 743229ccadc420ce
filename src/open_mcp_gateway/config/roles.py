"""The ``roles`` block: names for lists of permissions."""

from __future__ import annotations

from open_mcp_gateway.access.policy import ROLES, Roles
from open_mcp_gateway.auth.patterns import wrong_permission
from open_mcp_gateway.auth.principal import Permission
from open_mcp_gateway.config.words import read_words, wrong_name
from open_mcp_gateway.document.convert import Reader
from open_mcp_gateway.document.tree import Mapping
from open_mcp_gateway.errors import Problem


def read_roles(root: Mapping, reader: Reader) -> Roles:
    """The built-in roles and those of the file. One with a mistake is there and grants nothing, so
    that the keys that name it are not called wrong as well."""
    node = root.entries.get("roles")
    if node is None:
        return ROLES
    if not isinstance(node, Mapping):
        reader.wrong(node, "a mapping")
        return ROLES
    own: dict[str, frozenset[Permission]] = {}
    for name, granted in node.entries.items():
        mistake = _wrong_role(name)
        if mistake is not None:
            reader.problems.append(Problem(node.key_where(name), mistake))
            continue
        words = read_words(granted, reader, wrong_permission) or ()
        own[name] = frozenset(Permission(word) for word in words)
    return {**own, **ROLES}


def _wrong_role(name: str) -> str | None:
    if name.lower() in ROLES:
        return "is a built-in role, which cannot be redefined; choose another name"
    return wrong_name(name)
