"""The mistakes are what they say they are; and the long run of all of them."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutation.equivalent import EQUIVALENT
from tests.mutation.mutants import mutants
from tests.mutation.run import SOURCE, Module, modules

SMALL = '''
"""What it does."""
LIMIT: "int" = 3


def fits(values: "list[int]") -> bool:
    """Whether they do."""
    if not values:
        raise ValueError("there are none")
    return all(one < LIMIT for one in values if one)
'''
MISTAKES = [
    ("3 becomes 4", "LIMIT: 'int' = 4"),
    ("If the other way round", "if not not values:"),
    ("not left out", "if values:"),
    ("Raise left out", "pass"),
    ("returns None", "return None"),
    ("Lt becomes LtE", "return all((one <= LIMIT for one in values if one))"),
    ("takes all", "return all((one < LIMIT for one in values))"),
]


def test_what_mistakes_there_are() -> None:
    before = ast.unparse(ast.parse(SMALL)).splitlines()
    made = list(mutants(SMALL))
    assert [one.number for one in made] == list(range(len(made)))
    assert sorted(one.what for one in made) == sorted(what for what, _ in MISTAKES)
    for one in made:
        after = ast.unparse(one.tree).splitlines()
        changed = [new for new, old in zip(after, before, strict=True) if new != old]
        assert [line.strip() for line in changed] == [dict(MISTAKES)[one.what]]


def test_a_mistake_is_noticed_and_none_is_not() -> None:
    module = Module("auth/apikeys.py")
    source = module.path.read_text()
    assert not module.notices(compile(source, module.path, "exec"))
    wrong = next(one for one in mutants(source) if one.what == "Lt becomes LtE")
    assert module.notices(compile(wrong.tree, module.path, "exec"))


def test_what_is_called_equivalent_is_still_there() -> None:
    for place in {place for place, _, _ in EQUIVALENT}:
        source = (SOURCE / "open_mcp_gateway" / place).read_text()
        lines = source.splitlines()
        found = {(place, lines[one.line - 1].strip(), one.what) for one in mutants(source)}
        assert {one for one in EQUIVALENT if one[0] == place} <= found


def test_all_modules_are_looked_at() -> None:
    assert {"access/authorize.py", "auth/identify.py", "config/load.py"} <= set(modules(()))
    assert modules(["auth/scope.py"]) == ["auth/scope.py"]


@pytest.mark.long
@pytest.mark.timeout(6 * 3600)
def test_mistakes_are_noticed() -> None:
    command = [sys.executable, "-m", "tests.mutation.run"]
    subprocess.run(command, check=True, cwd=Path(__file__).parents[2])
