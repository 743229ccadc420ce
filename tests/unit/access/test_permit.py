"""Only the room that decides makes the proof of a decision."""

from __future__ import annotations

import ast
from pathlib import Path

import open_mcp_gateway
from open_mcp_gateway.access import authorize

PACKAGE = Path(open_mcp_gateway.__file__).parent
PROOFS = {"Permit", "Clearance"}


def makers() -> set[str]:
    """Modules that call, alias or subclass a proof's type, or could copy one with changes."""
    found = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            called = [node.func] if isinstance(node, ast.Call) else []
            called += node.bases if isinstance(node, ast.ClassDef) else []
            called += [node.value] if isinstance(node, ast.Assign) else []
            names = {getattr(item, "id", getattr(item, "attr", "")) for item in called}
            imported = (
                {alias.name for alias in node.names if alias.asname is not None}
                if isinstance(node, ast.ImportFrom)
                else set()
            )
            if (names | imported) & PROOFS:
                found.add(path.relative_to(PACKAGE).as_posix())
    return found


def test_one_maker() -> None:
    assert makers() == {Path(authorize.__file__).relative_to(PACKAGE).as_posix()}
