"""The rule for secret scanners in ``docs/security.md`` finds our keys and nothing else."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from open_mcp_gateway.auth.keyformat import make_key

PAGE = (Path(__file__).parents[3] / "docs/security.md").read_text()


@pytest.fixture(scope="module")
def keys_in() -> Callable[[str], Iterable[str]]:
    (block,) = re.findall(r"^```python\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    names: dict[str, Any] = {}
    exec(block, names)
    found: Callable[[str], Iterable[str]] = names["keys_in"]
    return found


def test_it_finds_every_key(keys_in: Callable[[str], Iterable[str]]) -> None:
    keys = [make_key(secrets.randbits).text for _ in range(200)]
    assert list(keys_in(" ".join(f'key="{key}",' for key in keys))) == keys


def test_it_passes_over_look_alikes(keys_in: Callable[[str], Iterable[str]]) -> None:
    key = make_key(secrets.randbits).text
    other = [key[:20] + ("a" if key[20] != "a" else "b") + key[21:], key[:-1], key + "0"]
    assert list(keys_in(" ".join(other))) == []
    assert len(key) == 66
