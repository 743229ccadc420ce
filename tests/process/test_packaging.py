"""The built wheel, installed where nothing else of this checkout is, with the locked packages."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from open_mcp_gateway import __version__

ROOT = Path(__file__).parents[2]
PROGRAMS = ("open-mcp-gateway", "gateway-http", "gateway-stdio")


def pip(*arguments: str | Path) -> None:
    """Run pip of the environment the tests run in."""
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input"]
    done = subprocess.run([*command, *arguments], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr + done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-index", "--no-deps", "--no-build-isolation", "--wheel-dir", folder, ROOT)
    [built] = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of an environment with the wheel in it."""
    folder = tmp_path_factory.mktemp("installed")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python, locked = folder / "bin/python", ROOT / "requirements/run.txt"
    pip("--python", python, "install", "--no-deps", "--require-hashes", "-r", locked)
    pip("--python", python, "install", "--no-deps", "--no-index", wheel)
    pip("--python", python, "check")
    return folder / "bin"


def test_the_wheel_holds_the_package_and_its_licence_alone(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    info = f"open_mcp_gateway-{__version__}.dist-info/"
    assert {name.partition("/")[0] for name in names} == {"open_mcp_gateway", info.rstrip("/")}
    assert info + "licenses/LICENSE" in names
    assert "open_mcp_gateway/py.typed" in names


@pytest.mark.parametrize("program", PROGRAMS)
def test_programs_say_their_version(installed: Path, tmp_path: Path, program: str) -> None:
    done = subprocess.run(
        [installed / program, "--version"], check=True, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.stdout.split()[-1] == __version__
    assert done.stderr == ""


def test_the_example_server_runs_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [installed / "python", "-P", "-m", "open_mcp_gateway.examples.demo_server"],
        input='{"jsonrpc":"2.0","id":1,"method":"ping"}\n',
        check=True,
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.stdout == '{"jsonrpc":"2.0","id":1,"result":{}}\n'
