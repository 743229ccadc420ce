"""Scalars of a tree as texts, after what stands for variables in them was put in.

Every value comes twice: as it is, and as it may be shown.
"""

from __future__ import annotations

from collections.abc import Callable
from collections.abc import Mapping as Environ
from pathlib import Path
from typing import Any

from msgspec import Struct

from open_mcp_gateway.document.paths import absolute
from open_mcp_gateway.document.substitute import Text, substitute
from open_mcp_gateway.document.tree import Kind, Node, Scalar, Tree
from open_mcp_gateway.errors import Problem


class Pair(Struct, frozen=True):
    """A value and what may be shown of it."""

    real: Any
    shown: Any

    def __repr__(self) -> str:
        """What may be shown alone."""
        return f"<Pair {self.shown!r}>"


class Texts:
    """Reads texts; gathers problems, and the texts that were substituted."""

    def __init__(self, environ: Environ[str, str], problems: list[Problem]) -> None:
        self.environ = environ
        self.problems = problems
        self.parts: list[str] = []

    def problem(self, node: Node, message: str) -> None:
        self.problems.append(Problem(node.where, message))

    def text(self, node: Tree) -> Text | None:
        """A text after substitution; None, and problems, when it is not one."""
        if not isinstance(node, Scalar):
            self.wrong(node, "text")
            return None
        if node.kind is Kind.NULL:
            self.problem(node, "is empty; write a value or remove the line")
            return None
        if node.kind is not Kind.TEXT:
            self.problem(node, f"is {node.called}, not text; quote it")
            return None
        return self.substituted(node)

    def ruled(self, node: Tree, rule: Callable[[str], str | None]) -> Pair | None:
        """A text that ``rule`` finds nothing wrong with."""
        found = self.text(node)
        if found is None:
            return None
        mistake = rule(found.real)
        if mistake is not None:
            self.refuse(node, found, mistake)
            return None
        return Pair(found.real, found.shown)

    def path(self, node: Tree, base: Path) -> Pair | None:
        """A path as absolute text, seen from ``base``; masked as written if substituted."""
        found = self.text(node)
        if found is None:
            return None
        path = absolute(found.real, base, self.environ) if found.real.strip() else None
        if path is None:
            message = "'~' leads to no home folder" if found.real.strip() else "is an empty path"
            self.refuse(node, found, f"{message}; write the whole path")
            return None
        return Pair(str(path), found.shown if found.substituted else str(path))

    def substituted(self, node: Scalar) -> Text | None:
        """Any scalar as a text after substitution."""
        found = substitute(node.text, self.environ)
        if isinstance(found, list):
            for message in found:
                self.problem(node, message)
            return None
        if "\0" in found.real:
            self.problem(node, "holds a NUL character; remove it")
            return None
        self.parts.extend(found.parts)
        return found

    def wrong(self, node: Tree, wanted: str) -> None:
        """Reports a value of another kind than ``wanted``."""
        mend = "write a value or remove the line" if node.called == "empty" else f"write {wanted}"
        self.problem(node, f"must be {wanted}, but is {node.called}; {mend}")

    def refuse(self, node: Tree, found: Text, message: str) -> None:
        """Reports what is wrong with a text, and where that comes from if it was substituted."""
        if found.substituted:
            message += f" (the value comes from {', '.join(found.variables)})"
        self.problem(node, message)
