"""A test that a page of the documentation names is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
NAMED = re.compile(
    r"`(?:tests/)?((?:unit|wire|process|contract|architecture)/[\w/]+\.py)(?:::(\w+))?`"
)
PAGES = sorted((ROOT / "docs").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tests_that_are_named_are_there(page: Path) -> None:
    missing = [
        match[0]
        for match in NAMED.finditer(page.read_text("utf-8"))
        if not (ROOT / "tests" / match[1]).is_file()
        or (match[2] and f"def {match[2]}(" not in (ROOT / "tests" / match[1]).read_text("utf-8"))
    ]
    assert missing == []
