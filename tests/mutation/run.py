"""Do the tests notice mistakes? Each module with one mistake at a time, under its unit tests.

``python -m tests.mutation.run [MODULE...]`` prints what no test noticed, and how many were. What
was found is kept in ``.run/mutation`` for as long as neither module nor tests change, so a run that
was interrupted goes on where it was.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.abc
import importlib.machinery
import importlib.util
import io
import json
import os
import resource
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, Final

import hypothesis
import pytest

from tests.mutation.equivalent import EQUIVALENT
from tests.mutation.mutants import Mutant, mutants

ROOT: Final = Path(__file__).parents[2]
SOURCE: Final = ROOT / "src"
KEPT: Final = ROOT / ".run" / "mutation"
ENOUGH: Final = 0.95
"""Of the mistakes of a package have to be noticed."""

MOST_CPU_S: Final = 60
"""For the tests of one mistake; whoever takes longer is taken for noticed."""

TESTS: Final = {
    "auth": ("tests/unit/auth", "tests/unit/access/test_keyring.py"),
    "access": ("tests/unit/access",),
    "config": ("tests/unit/config",),
}
ELSEWHERE: Final = {"config/watch.py": ("tests/process/test_watch.py",)}
"""Tests of single modules that stand apart because of what they do; they come last."""

LEFT_OUT: Final = ("tests/unit/access/test_timing.py", "tests/unit/auth/test_scanner_rule.py")
"""What measures, and what looks at other things than the program."""

EXAMPLES: Final = 60
"""Of a property, at most: a mistake that only one in a hundred shows wants a test of its own."""

NOTICED_IS_ENOUGH: Final = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
"""Without the search for the smallest example, which takes longer than all else."""

hypothesis.settings.register_profile(
    "mutation",
    max_examples=EXAMPLES,
    database=None,
    derandomize=True,
    deadline=None,
    phases=NOTICED_IS_ENOUGH,
)


def _try_few_examples() -> None:
    """Also where a test asks for more."""
    begin = hypothesis.settings.__init__

    def fewer(self: hypothesis.settings, parent: Any = None, **given: Any) -> None:
        if "max_examples" in given:
            given["max_examples"] = min(given["max_examples"], EXAMPLES)
        begin(self, parent, **given)

    hypothesis.settings.__init__ = fewer  # type: ignore[method-assign]


def _forget_the_program() -> None:
    """Where it is there already, as in a test, the mistake would not be looked for."""
    for name in list(sys.modules):
        if name.partition(".")[0] in {"open_mcp_gateway", "tests"}:
            del sys.modules[name]


ARGUMENTS: Final = (
    *("-x", "-p", "no:cacheprovider", "--hypothesis-profile=mutation", "--timeout=30"),
    *("-m", "not long and not peers", "-W", "ignore::pytest.PytestAssertRewriteWarning"),
)


def make_ready(tests: list[Path]) -> None:
    """Imports what is neither the program nor a test, so that no fork has to; and has compiled
    what every fork imports, also where Python was told to keep nothing."""
    sys.dont_write_bytecode, sys.pycache_prefix = False, str(KEPT / "compiled")
    with contextlib.redirect_stdout(io.StringIO()):
        pytest.main([*ARGUMENTS, "--collect-only", *map(str, tests)])


class Loader(importlib.machinery.SourceFileLoader):
    """Gives the program with the mistake in place of that in the file."""

    def __init__(self, name: str, path: Path, code: CodeType) -> None:
        super().__init__(name, str(path))
        self._code = code

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002 - as in the base
        return self._code


class Finder(importlib.abc.MetaPathFinder):
    """Finds that one module, before anybody else does."""

    def __init__(self, name: str, path: Path, code: CodeType) -> None:
        self.name, self.path, self.code = name, path, code

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 - as in the base
        target: ModuleType | None = None,  # noqa: ARG002 - as in the base
    ) -> importlib.machinery.ModuleSpec | None:
        if fullname != self.name:
            return None
        loader = Loader(fullname, self.path, self.code)
        return importlib.util.spec_from_file_location(fullname, self.path, loader=loader)


class Module:
    """One module, ``auth/scope.py``, with its tests: its own first."""

    def __init__(self, place: str) -> None:
        self.place = place
        self.path = SOURCE / "open_mcp_gateway" / place
        self.package, _, rest = place.partition("/")
        self.name = f"open_mcp_gateway.{place.removesuffix('.py').replace('/', '.')}"
        folders = [ROOT / one for one in TESTS[self.package]]
        own = folders[0] / f"test_{rest}"
        apart = [ROOT / one for one in ELSEWHERE.get(place, ())]
        left_out = {ROOT / one for one in LEFT_OUT}
        files = [
            one
            for folder in folders
            for one in (sorted(folder.rglob("test_*.py")) if folder.is_dir() else [folder])
            if one not in left_out
        ]
        self.tests = [*sorted(files, key=lambda one: one != own), *apart]
        text = self.path.read_bytes() + Path(__file__).with_name("mutants.py").read_bytes()
        for folder in (*folders, *apart):
            files = sorted(folder.glob("*.py")) if folder.is_dir() else [folder]
            text += b"".join(one.read_bytes() for one in files)
        self.kept = KEPT / f"{self.name}-{hashlib.sha256(text).hexdigest()[:16]}.jsonl"

    def survivors(self) -> tuple[int, list[Mutant]]:
        """How many mistakes there are, and those that no test noticed."""
        known = self._known()
        KEPT.mkdir(parents=True, exist_ok=True)
        source = self.path.read_text()
        lines = source.splitlines()
        total, left = 0, []
        make_ready(self.tests)
        if not known and self.notices(compile(source, self.path, "exec")):
            raise SystemExit(f"{self.place}: its tests fail without any mistake")
        with self.kept.open("a") as kept:
            for mutant in mutants(source):
                if (self.place, lines[mutant.line - 1].strip(), mutant.what) in EQUIVALENT:
                    continue
                total += 1
                if mutant.number not in known:
                    code = compile(mutant.tree, self.path, "exec")
                    known[mutant.number] = self.notices(code)
                    kept.write(json.dumps([mutant.number, known[mutant.number]]) + "\n")
                    kept.flush()
                if not known[mutant.number]:
                    left.append(mutant)
                    print(f"{self.place}:{mutant.line}: {mutant.what}", flush=True)
        return total, left

    def _known(self) -> dict[int, bool]:
        if not self.kept.exists():
            return {}
        return dict(json.loads(line) for line in self.kept.read_text().splitlines())

    def notices(self, code: CodeType) -> bool:
        """Whether the tests of the module fail with this code in its place.

        File by file, so that most mistakes need one alone: the module's own first, then whichever
        noticed the mistake before.
        """
        for place, file in enumerate(self.tests):
            if self._noticed_by(file, code):
                self.tests.insert(0, self.tests.pop(place))
                return True
        return False

    def _noticed_by(self, file: Path, code: CodeType) -> bool:
        # A fork, so that what the tests themselves need is imported once for all mistakes.
        child = os.fork()
        if child == 0:
            os._exit(self._tested(file, code))
        _, status = os.waitpid(child, 0)
        return status != 0

    def _tested(self, file: Path, code: CodeType) -> int:
        with contextlib.suppress(BaseException):
            resource.setrlimit(resource.RLIMIT_CPU, (MOST_CPU_S, MOST_CPU_S))
            signal.signal(signal.SIGXCPU, signal.SIG_DFL)
            silent = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(silent, stream)
            _try_few_examples()
            _forget_the_program()
            sys.meta_path.insert(0, Finder(self.name, self.path, code))
            ended = pytest.main([*ARGUMENTS, str(file)])
            return 0 if ended == pytest.ExitCode.NO_TESTS_COLLECTED else int(ended)
        return 1


def modules(wanted: Sequence[str]) -> list[str]:
    """All of the packages, or those that are named."""
    folder = SOURCE / "open_mcp_gateway"
    found = [
        str(path.relative_to(folder))
        for package in TESTS
        for path in sorted((folder / package).glob("*.py"))
        if path.name != "__init__.py"
    ]
    return [one for one in found if not wanted or one in wanted]


def main(wanted: Sequence[str]) -> int:
    """0 if enough is noticed in every package that was looked at."""
    counts: dict[str, tuple[int, int]] = {}
    for place in modules(wanted):
        total, left = Module(place).survivors()
        print(f"{place}: {total - len(left)} of {total} noticed", flush=True)
        package = place.partition("/")[0]
        all_before, left_before = counts.get(package, (0, 0))
        counts[package] = (all_before + total, left_before + len(left))
    enough = True
    for package, (total, lost) in counts.items():
        share = (total - lost) / total
        enough = enough and share >= ENOUGH
        print(f"{package}/: {total - lost} of {total} noticed, {share:.1%}", flush=True)
    return 0 if enough else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
