"""What is installed is pinned by version and hash, and no lock says where it comes from."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LOCKS = sorted((ROOT / "requirements").rglob("*.txt"))
NPM_LOCK = ROOT / "requirements/node/package-lock.json"

# uvicorn==0.54.0 ; sys_platform != 'emscripten' --hash=sha256:...
PIN = re.compile(
    r"(?P<name>[A-Za-z0-9._-]+)(\[[a-z0-9, -]+\])?==(?P<version>[A-Za-z0-9.!+-]+)"
    r"( ; [^\\@]+?)?(\s+--hash=sha256:[0-9a-f]{64})+"
)


def pins(lock: Path) -> list[str]:
    """Each requirement of a lock with its hashes, on one line."""
    joined = lock.read_text().replace("\\\n", " ")
    return [line for line in joined.splitlines() if line and not line.startswith("#")]


def versions(lock: Path) -> set[tuple[str, str]]:
    found = [PIN.fullmatch(line) for line in pins(lock)]
    return {(match["name"], match["version"]) for match in found if match}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: str(lock.relative_to(ROOT)))
def test_requirements_are_pinned_by_hash_alone(lock: Path) -> None:
    assert pins(lock)
    assert [line for line in pins(lock) if not PIN.fullmatch(line)] == []
    assert "://" not in lock.read_text()


def test_npm_packages_are_pinned_by_hash_alone() -> None:
    text = NPM_LOCK.read_text()
    packages = json.loads(text)["packages"]
    loose = [
        name
        for name, package in packages.items()
        if name and not package.get("integrity", "").startswith("sha512-")
    ]
    assert loose == []
    assert "resolved" not in text
    assert "://" not in text


def test_locks_of_one_environment_agree() -> None:
    locks = [versions(ROOT / f"requirements/{name}.txt") for name in ("run", "build", "dev")]
    for one, other in combinations(locks, 2):
        shared = {name for name, _ in one} & {name for name, _ in other}
        assert {pin for pin in one if pin[0] in shared} == {
            pin for pin in other if pin[0] in shared
        }


def test_locks_hold_what_is_asked_for() -> None:
    command = [sys.executable, "scripts/locks.py", "--check"]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
