"""The official conformance suite, run and read: npm ``@modelcontextprotocol/conformance``."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import yaml

from tests.environments import node, node_modules

RUN_S: Final = 240.0
"""All scenarios of one run; each has a limit of 30 s of its own."""

_PACKAGE: Final = "@modelcontextprotocol/conformance"
_FOLDER: Final = re.compile(r"(?:server-)?(.+)-\d{4}-\d\d-\d\dT\d\d-\d\d-\d\d-\d{3}Z")


@dataclass(frozen=True)
class Check:
    """One statement of the suite about what it saw."""

    id: str
    status: str
    """SUCCESS, FAILURE, WARNING, SKIPPED or INFO."""

    message: str = ""


@dataclass(frozen=True)
class Scenario:
    name: str
    checks: tuple[Check, ...]

    @property
    def passed(self) -> bool:
        """As the suite itself counts: a warning does not fail a scenario."""
        return all(check.status != "FAILURE" for check in self.checks)

    @property
    def successes(self) -> int:
        return sum(check.status == "SUCCESS" for check in self.checks)

    def complaints(self) -> list[str]:
        """What is wrong, check by check, as the suite words it."""
        return [
            f"{self.name}: {check.status} {check.id}: {check.message}"
            for check in self.checks
            if check.status in {"FAILURE", "WARNING"}
        ]


class Outcome(dict[str, Scenario]):
    """What one run found, by scenario."""

    log: str = ""
    """What the suite printed."""

    def __missing__(self, name: str) -> Scenario:
        """A scenario in whose middle the suite itself gave up."""
        said = "no result; at the end it said: " + self.log[-400:]
        return Scenario(name, (Check("suite", "FAILURE", said),))


def run_suite(mode: str, arguments: Sequence[str], out: Path) -> Outcome:
    """Run ``conformance MODE ARGUMENTS``; ``out`` is a folder of its own for what it writes."""
    out.mkdir(parents=True)
    log = out / "log"
    with log.open("wb") as file, suppress(subprocess.TimeoutExpired):
        # Cut off in the middle, what is there counts, and what is not has failed.
        subprocess.run(
            [str(node()), str(_package() / "dist/index.js"), mode, *arguments, "-o", str(out)],
            cwd=out,
            env=dict(os.environ) | {"NO_COLOR": "1"},
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            timeout=RUN_S,
            check=False,
        )
    outcome = Outcome(sorted(_scenarios(out)))
    outcome.log = log.read_text("utf-8", "replace")
    return outcome


def _scenarios(out: Path) -> list[tuple[str, Scenario]]:
    found = []
    for path in out.glob("**/checks.json"):
        folder = _FOLDER.fullmatch(path.parent.name)
        if folder is None:
            raise AssertionError(f"what scenario is {path.parent.name}?")
        checks = tuple(
            Check(raw["id"], raw["status"], str(raw.get("errorMessage") or ""))
            for raw in json.loads(path.read_text("utf-8"))
        )
        found.append((folder[1], Scenario(folder[1], checks)))
    return found


@dataclass(frozen=True)
class Requirements:
    """What a revision of the protocol asks of servers, as frozen by the suite."""

    scored: frozenset[str]
    unscored: frozenset[str]


def requirements_of(revision: str) -> Requirements:
    """The requirement set of servers for a revision."""
    path = _package() / "requirements" / f"{revision}.yaml"
    read = yaml.safe_load(path.read_text("utf-8"))
    unscored = {one["scenario"] for one in read["not_scored"] if one["leg"] == "server"}
    return Requirements(frozenset(read["server"]), frozenset(unscored))


def _package() -> Path:
    return node_modules() / _PACKAGE
