"""Programs that differ from ours by one small mistake. Pure.

Left alone are texts for people, annotations, decorators, docstrings and how a class is declared.
"""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

_SWAPPED: Final[dict[type[ast.AST], type[ast.AST]]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.And: ast.Or,
    ast.Or: ast.And,
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
_UNTOUCHED: Final = frozenset({"annotation", "returns", "decorator_list", "type_params"})


@dataclass(frozen=True)
class Mutant:
    """One mistake: where it is and what it is."""

    number: int
    line: int
    what: str
    _made: Callable[[], ast.Module]

    @property
    def tree(self) -> ast.Module:
        """The whole module with it; a copy each time, which is what takes long."""
        return self._made()


Edit = Callable[[ast.AST], ast.AST]


def mutants(source: str) -> Iterator[Mutant]:
    """Every mistake of a module, in the order of its lines."""
    tree = ast.parse(source)
    places = list(_places(tree))
    number = 0
    line = 1
    for path, node in places:
        line = getattr(node, "lineno", line)  # an operator has that of what stands before it
        for what, edit in _edits(node):
            yield Mutant(number, line, what, partial(_changed, tree, path, edit))
            number += 1


Path = tuple[tuple[str, int | None], ...]


def _places(node: ast.AST, path: Path = ()) -> Iterator[tuple[Path, ast.AST]]:
    yield path, node
    for name, value in ast.iter_fields(node):
        if name in _UNTOUCHED or isinstance(node, ast.JoinedStr):
            continue
        if isinstance(node, ast.ClassDef) and name != "body":
            continue
        if isinstance(value, ast.AST):
            yield from _places(value, (*path, (name, None)))
        elif isinstance(value, list):
            for index, one in enumerate(value):
                if isinstance(one, ast.AST) and not _is_docstring(one):
                    yield from _places(one, (*path, (name, index)))


def _is_docstring(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )


def _changed(tree: ast.Module, path: Path, edit: Edit) -> ast.Module:
    changed = copy.deepcopy(tree)
    node: ast.AST = changed
    for name, index in path[:-1]:
        value = getattr(node, name)
        node = value if index is None else value[index]
    name, index = path[-1]
    if index is None:
        setattr(node, name, edit(getattr(node, name)))
    else:
        getattr(node, name)[index] = edit(getattr(node, name)[index])
    return ast.fix_missing_locations(changed)


def _edits(node: ast.AST) -> Iterator[tuple[str, Edit]]:
    swapped = _SWAPPED.get(type(node))
    if swapped is not None:
        yield f"{type(node).__name__} becomes {swapped.__name__}", lambda _: swapped()
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        yield "not left out", lambda _: node.operand
    if isinstance(node, ast.If | ast.IfExp | ast.While):
        yield f"{type(node).__name__} the other way round", _turned
    if isinstance(node, ast.comprehension) and node.ifs:
        yield "takes all", lambda one: _with(one, ifs=[])
    if isinstance(node, ast.Constant):
        yield from _constants(node.value)
    if isinstance(node, ast.Return) and not isinstance(node.value, ast.Constant | None):
        yield "returns None", lambda one: _with(one, value=ast.Constant(None))
    if isinstance(node, ast.Raise | ast.AugAssign) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    ):
        yield f"{type(node).__name__} left out", lambda _: ast.Pass()
    if isinstance(node, ast.Continue):
        yield "ends the loop", lambda _: ast.Break()


def _constants(value: object) -> Iterator[tuple[str, Edit]]:
    if isinstance(value, bool):
        yield f"{value} becomes {not value}", lambda _: ast.Constant(not value)
    elif isinstance(value, int):
        yield f"{value} becomes {value + 1}", lambda _: ast.Constant(value + 1)
    elif isinstance(value, str) and " " not in value:
        yield f"{value!r} is another text", lambda _: ast.Constant(f"X{value}")
    elif isinstance(value, bytes):
        yield f"{value!r} are other bytes", lambda _: ast.Constant(b"X" + value)


def _turned(one: ast.AST) -> ast.AST:
    assert isinstance(one, ast.If | ast.IfExp | ast.While)
    return _with(one, test=ast.UnaryOp(ast.Not(), one.test))


def _with(one: ast.AST, **fields: object) -> ast.AST:
    for name, value in fields.items():
        setattr(one, name, value)
    return one
