"""The tables of ``docs/clients.md``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from tests.environments import ROOT

PAGE: Final = ROOT / "docs/clients.md"

Row = Sequence[str]


def with_table(page: str, name: str, head: Row, rows: Sequence[Row]) -> str:
    """The page with this table in place of the one of that name."""
    begin, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, begun, rest = page.partition(begin)
    _, ended, after = rest.partition(end)
    if not (begun and ended):
        raise AssertionError(f"{PAGE.name} has no place for the table of {name}")
    lines = [head, ["---"] * len(head), *rows]
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"{before}{begin}\n\n{table}\n\n{end}{after}"
