"""Where the clients and servers of other projects lie that tests talk to.

``make test`` builds them, each with its own locked dependencies, since they exclude each other's.
A test that needs one fails without it; it never passes by being skipped.
"""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[1]
ENVIRONMENTS = ROOT / ".test-envs"


class NotBuilt(Exception):
    """A part that a test needs is not there."""


def _existing(path: Path) -> Path:
    if not path.exists():
        raise NotBuilt(f"{path.relative_to(ROOT)} is missing: `make test` builds it")
    return path


def python_of(name: str) -> Path:
    """The interpreter of an environment: one for each lock in requirements/test."""
    return program_of(name, "python")


def program_of(name: str, program: str) -> Path:
    """A program in the environment ``name``, e.g. ``mcp-server-time`` in ``servers``."""
    return _existing(ENVIRONMENTS / name / "bin" / program)


def node() -> Path:
    """Node.js 22, from a wheel: what the machine itself has does not matter."""
    return program_of("node", "node")


def node_program(program: str) -> list[str]:
    """The command of an npm package's program, e.g. mcp-server-everything."""
    script = _existing(ENVIRONMENTS / "npm/node_modules/.bin" / program)
    return [str(node()), str(script.resolve())]


def node_modules() -> Path:
    """Where a script of ours finds the npm packages that it imports."""
    return _existing(ENVIRONMENTS / "npm/node_modules")
