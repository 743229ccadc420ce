"""Rules over the source tree that the import contracts cannot see."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from open_mcp_gateway import errors
from open_mcp_gateway.errors import GatewayError
from open_mcp_gateway.protocol.faults import FAULTS

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src/open_mcp_gateway"

TYPICAL_LINES = 300
MOST_LINES = 500
# Files over TYPICAL_LINES and how long each may be. Numbers here only ever go down.
LONG_FILES: dict[str, int] = {
    "errors.py": 345,
    "outbound/duplex.py": 390,
    "outbound/http.py": 330,
}


def line_counts() -> dict[str, int]:
    return {
        str(path.relative_to(SOURCE)): len(path.read_text().splitlines())
        for path in sorted(SOURCE.rglob("*.py"))
    }


def leaves(kind: type[GatewayError]) -> set[type[GatewayError]]:
    below = kind.__subclasses__()
    return {kind} if not below else set().union(*(leaves(each) for each in below))


def checkout_files() -> list[Path]:
    """Every file that git tracks or would, were it added."""
    command = ["git", "-C", str(ROOT), "ls-files", "-z", "-co", "--exclude-standard"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def test_files_are_short() -> None:
    too_long = {
        name: count
        for name, count in line_counts().items()
        if count > LONG_FILES.get(name, TYPICAL_LINES)
    }
    assert not too_long, "split these along what they are about"


def test_long_files_are_still_long_and_within_the_bound() -> None:
    counts = line_counts()
    assert {
        name: allowed
        for name, allowed in LONG_FILES.items()
        if counts.get(name, 0) <= TYPICAL_LINES or allowed > MOST_LINES
    } == {}


def test_only_authorize_makes_permits() -> None:
    makers = {
        str(path.relative_to(SOURCE))
        for path in SOURCE.rglob("*.py")
        if re.search(r"(?<!class )\bPermit\(", path.read_text())
    }
    assert makers == {"access/authorize.py"}


def test_only_the_command_line_acts_without_a_key() -> None:
    users = {
        str(path.relative_to(SOURCE))
        for path in SOURCE.rglob("*.py")
        if "operations.local" in path.read_text()
    }
    assert users == {"cli/local.py", "operations/keywork.py"}


def test_every_failure_on_the_wire_has_its_row() -> None:
    # Start-up only: the program ends before there is a wire.
    on_the_wire = leaves(GatewayError) - {errors.InvalidConfig}
    assert on_the_wire - FAULTS.keys() == set()
    # A kind that has kinds of its own below it may be raised as itself too.
    assert FAULTS.keys() - on_the_wire == {errors.UpstreamUnavailable}


def test_packages_say_what_they_are_and_hold_nothing() -> None:
    for path in SOURCE.rglob("*/__init__.py"):
        assert re.fullmatch(r'""".+?"""\s*', path.read_text(), re.DOTALL), path


def test_nothing_names_a_machine_or_a_registry() -> None:
    # Put together here, so that this file does not name them itself.
    names = ["/" + "work/", "/" + "root/", "pypi" + ".org", "python" + "hosted", "npmjs" + "."]
    pattern = re.compile("|".join(map(re.escape, names)).encode())
    named = {
        str(path.relative_to(ROOT)): match[0]
        for path in checkout_files()
        if (match := pattern.search(path.read_bytes()))
    }
    assert named == {}


def test_rooms_only_look_down() -> None:
    lint = Path(sys.executable).with_name("lint-imports")
    command = [str(lint), "--no-cache"]
    done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
