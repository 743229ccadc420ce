"""How answers are shown to people: tables, and one thing member by member."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from open_mcp_gateway.cli.ways import plain

NOTHING: Final = "-"


def print_json(value: object) -> None:
    """As the API gives it, indented; only ASCII, so that no terminal obeys a part of it."""
    print(json.dumps(value, indent=2))


def print_table(columns: Mapping[str, str], rows: Sequence[Mapping[str, Any]]) -> None:
    """``columns`` are the members to show, each with its heading. Nothing for no rows but that."""
    lines = [list(columns.values())]
    lines += [[cell(row.get(member)) for member in columns] for row in rows]
    widths = [max(len(line[n]) for line in lines) for n in range(len(columns))]
    for line in lines:
        padded = (text.ljust(width) for text, width in zip(line, widths, strict=True))
        print("  ".join(padded).rstrip())


def print_members(thing: Mapping[str, Any]) -> None:
    """One thing; members of a member are indented."""
    width = max(len(name) for name in thing)
    for name, value in thing.items():
        if isinstance(value, dict) and value:
            print(f"{plain(name)}:")
            for inner, one in value.items():
                print(f"  {plain(inner)}: {cell(one)}")
        else:
            print(f"{plain(name) + ':':<{width + 1}} {cell(value)}")


def cell(value: object) -> str:
    """A value on one line."""
    if value is None or value == "":
        return NOTHING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(cell(one) for one in value) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{plain(name)} {cell(one)}" for name, one in value.items()) or NOTHING
    return plain(str(value))
