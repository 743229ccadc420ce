"""What a table of keys costs a process that takes it into memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.environments import ROOT


def loaded(folder: Path, keys: int) -> dict[str, Any]:
    """What the second process on a store of so many keys says; the first makes it."""
    command = [sys.executable, "-m", "tests.process.key_table", str(folder / "keys.db"), str(keys)]
    subprocess.run(command, check=True, cwd=ROOT)
    done = subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True)
    told: dict[str, Any] = json.loads(done.stdout)
    return told


def test_it_is_measured(tmp_path: Path) -> None:
    """The same with few keys: no figure is held to here."""
    told = loaded(tmp_path, 200)
    assert told["keys"] == 200
    assert min(told.values()) >= 0


@pytest.mark.long("100,000 keys")
@pytest.mark.timeout(600)
def test_a_hundred_thousand_keys(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    told = loaded(tmp_path, 100_000)
    with capsys.disabled():
        print("\n" + ", ".join(f"{name} {value:.1f}" for name, value in told.items()))
    assert told["load_s"] <= 2.5
    assert told["memory_mb"] <= 150
    # On the event loop, where nothing else moves meanwhile.
    assert told["change_p50_ms"] <= 20
    assert told["look_ms"] <= 20
