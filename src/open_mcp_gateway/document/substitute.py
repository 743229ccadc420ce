"""``${VAR}``, ``${VAR:-default}`` and ``${VAR:?message}`` in a text; ``$$`` is a literal ``$``."""

from __future__ import annotations

import re
from collections.abc import Mapping

from msgspec import Struct

from open_mcp_gateway.document.tree import printable

MASK = "***"

_TOKEN = re.compile(
    r"\$\$"
    r"|\$\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::(?P<how>[-?])(?P<rest>[^}]*))?\}"
    r"|(?P<odd>\$\{[^}]*\}?)"
    r"|(?P<bare>\$[A-Za-z_])"
)


class Text(Struct, frozen=True):
    """A text after substitution."""

    real: str
    shown: str
    """The same with ``***`` for every substituted part."""

    parts: tuple[str, ...] = ()
    """What was substituted; never shown."""

    variables: tuple[str, ...] = ()
    """Whose values or defaults were put in."""

    empty: tuple[str, ...] = ()
    """Those of them that gave nothing."""

    defaulted: tuple[str, ...] = ()
    """Those whose default was taken."""

    bare: bool = False
    """A ``$NAME`` without braces stands in it; that is not substituted."""

    def __repr__(self) -> str:
        """No part of the value: it may be a secret."""
        return f"<Text of {len(self.real)} characters>"

    @property
    def substituted(self) -> bool:
        return bool(self.variables)


class _Substitution:
    """One pass over one text."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self.parts: list[str] = []
        self.variables: list[str] = []
        self.empty: list[str] = []
        self.defaulted: list[str] = []
        self.mistakes: list[str] = []
        self.bare = False

    def replace(self, match: re.Match[str]) -> str:
        if match["name"]:
            return self._variable(match["name"], match["how"], match["rest"] or "")
        if match["odd"]:
            self.mistakes.append(_odd(match["odd"]))
        if match["bare"]:
            self.bare = True
            return match[0]
        return "$"

    def _variable(self, name: str, how: str | None, rest: str) -> str:
        if "${" in rest:
            self.mistakes.append(
                f"'${{{name}:…}}' has another '${{' inside, which is not supported; use one level"
            )
            return ""
        value = self._environ.get(name)
        if how == "-" and not value:
            self.defaulted.append(name)
            value = rest.replace("$$", "$")
        elif how == "?" and not value:
            state = "not set" if value is None else "empty"
            rest = rest or "a value is needed; set it"
            self.mistakes.append(f"{rest} (environment variable {name} is {state})")
            return ""
        elif value is None:
            self.mistakes.append(f"environment variable {name} is not set; set it")
            return ""
        self.variables.append(name)
        if value:
            self.parts.append(value)
        else:
            self.empty.append(name)
        return value


def substitute(text: str, environ: Mapping[str, str]) -> Text | list[str]:
    """``text`` with its variables put in, or what is wrong, one message per mistake."""
    if "$" not in text:
        return Text(text, text)
    run = _Substitution(environ)
    real = _TOKEN.sub(run.replace, text)
    if run.mistakes:
        return run.mistakes
    shown = _TOKEN.sub(_mask, text)
    return Text(
        real,
        shown,
        tuple(run.parts),
        tuple(run.variables),
        tuple(run.empty),
        tuple(run.defaulted),
        run.bare,
    )


def _mask(match: re.Match[str]) -> str:
    if match["name"]:
        return MASK
    return match[0] if match["bare"] else "$"


def _odd(token: str) -> str:
    if not token.endswith("}"):
        return "'${' has no closing '}'; close it, or write '$$' for a literal '$'"
    return (
        f"'{printable(token)}' is not understood; write ${{VAR}}, ${{VAR:-default}} or "
        "${VAR:?message}, and '$$' for a literal '$'"
    )
