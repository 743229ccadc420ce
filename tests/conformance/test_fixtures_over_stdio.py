"""The fixtures start and answer over stdio, where the suite itself cannot look."""

import json
import os
import subprocess
from pathlib import Path

import pytest

from tests.conformance.fixture_servers import command
from tests.environments import ROOT, python_of

DRIVER = Path(__file__).parent / "drivers/over_stdio.py"
SIMPLE = ("test_simple_text", "This is a simple text response for testing.")
GREETING = ("greet", "Hello, Ada!")


@pytest.mark.parametrize(
    ("fixture", "mode", "tool", "said"),
    [
        ("dual_everything", "legacy", *SIMPLE),
        ("dual_everything", "2026-07-28", *SIMPLE),
        ("legacy_everything", "legacy", *SIMPLE),
        ("modern_everything", "2026-07-28", *SIMPLE),
        ("tasks_server", "2026-07-28", *GREETING),
    ],
)
def test_fixture_answers(fixture: str, mode: str, tool: str, said: str) -> None:
    answer = ask(mode, tool, fixture)
    assert answer.returncode == 0, answer.stderr
    offered = json.loads(answer.stdout)
    assert tool in offered["tools"]
    assert offered["said"] == said


@pytest.mark.parametrize(
    ("fixture", "mode"), [("modern_everything", "legacy"), ("tasks_server", "legacy")]
)
def test_fixture_of_one_era_refuses_the_other(fixture: str, mode: str) -> None:
    answer = ask(mode, "any", fixture)
    assert answer.returncode != 0
    assert "MCPError" in answer.stderr


def ask(mode: str, tool: str, fixture: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(python_of("mcp2")), str(DRIVER), mode, tool, *command(fixture, "stdio")],
        cwd=ROOT,
        env=dict(os.environ) | {"PYTHONWARNINGS": "ignore", "PYTHONPATH": str(ROOT)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
