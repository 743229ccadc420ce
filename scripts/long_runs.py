"""The long tests, one process each, and what became of them: what passed at a commit is not run
again.

Results are kept in ``.run/long``, so that a run may be broken off at any time and goes on where it
was.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import hashlib
import io
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
KEPT = ROOT / ".run/long"
PAGE = ROOT / "docs/long-runs.md"
COLUMNS = ("result", "seconds", "date", "commit", "count", "test")
NOT_RUN = dict.fromkeys(COLUMNS, "")


class Collector:
    """Gathers what is long, with what each says of how much it does."""

    def __init__(self) -> None:
        self.found: dict[str, str] = {}

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Called by pytest."""
        for item in session.items:
            mark = item.get_closest_marker("long")
            self.found[item.nodeid] = str(mark.args[0]) if mark and mark.args else ""


def collected(arguments: list[str]) -> dict[str, str]:
    """The long tests that pytest finds with these arguments, with their counts."""
    collector = Collector()
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        options = ["--collect-only", "-m", "long", *arguments]
        code = pytest.main(options, plugins=[collector])
    if code not in {pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED}:
        raise SystemExit(said.getvalue())
    return collector.found


def commit() -> str:
    """The commit that is checked out; with a ``+`` where files differ from it."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    # The page of results is no part of what is tested.
    changed = git("status", "--porcelain", "--", ".", f":!{PAGE.relative_to(ROOT)}")
    return git("rev-parse", "--short=12", "HEAD") + ("+" if changed else "")


def place_of(test: str) -> Path:
    return KEPT / hashlib.sha256(test.encode()).hexdigest()[:16]


def known(test: str, at: str) -> dict[str, Any] | None:
    """The result of a test at a commit. One of files that no commit holds says nothing later."""
    try:
        result: dict[str, Any] = json.loads(place_of(test).with_suffix(".json").read_text("utf-8"))
    except FileNotFoundError:
        return None
    return result if result["commit"] == at and not at.endswith("+") else None


def run(test: str, count: str, at: str) -> dict[str, Any]:
    """Run one test, and keep its result and its output."""
    log = place_of(test).with_suffix(".log")
    began_s = time.monotonic()
    with log.open("w", encoding="utf-8") as stream:
        command = [sys.executable, "-m", "pytest", "-m", "long", test]
        code = subprocess.run(
            command, cwd=ROOT, stdout=stream, stderr=stream, check=False
        ).returncode
    result = {
        "result": "passed" if code == 0 else "FAILED",
        "seconds": round(time.monotonic() - began_s),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": at,
        "count": count,
        "test": test,
    }
    log.with_suffix(".json").write_text(json.dumps(result), "utf-8")
    if code != 0:
        print(log.read_text("utf-8"), file=sys.stderr)
    return result


def table(results: list[dict[str, Any]]) -> str:
    """In Markdown, which can be read as it is."""
    rows = [COLUMNS, tuple("---" for _ in COLUMNS)]
    rows += [tuple(str(one[name]) for name in COLUMNS) for one in results]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, prog="scripts/test-long")
    parser.add_argument("--again", action="store_true", help="run also what passed already")
    parser.add_argument("--show", action="store_true", help="run nothing, print what is known")
    parser.add_argument("--page", action="store_true", help=f"write {PAGE.relative_to(ROOT)} too")
    options, rest = parser.parse_known_args()
    KEPT.mkdir(parents=True, exist_ok=True)
    at, results = commit(), []
    tests = collected(rest)
    for number, (test, count) in enumerate(tests.items(), 1):
        result = None if options.again else known(test, at)
        if not options.show and (result is None or result["result"] != "passed"):
            print(f"[{number}/{len(tests)}] {test}", flush=True)
            result = run(test, count, at)
        results.append(result or {**NOT_RUN, "result": "not run", "count": count, "test": test})
    shown = table(results)
    print(shown)
    if options.page:
        text = "Written by `make test-long ARGS=--page`; `make test` runs smaller ones."
        PAGE.write_text(f"# Long runs\n\n{text}\n\n{shown}\n", "utf-8")
    return 0 if all(one["result"] == "passed" for one in results) else 1


if __name__ == "__main__":
    sys.exit(main())
