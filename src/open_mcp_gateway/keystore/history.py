"""Whether a store still is what somebody has followed so far.

A revision is a number, so that a backup put in place of a store reaches the same one again by other
changes. Each change therefore leaves a random tag: a store whose history leads through a known
revision has its tag, and no other one does.
"""

from __future__ import annotations

from typing import Final

from open_mcp_gateway.keystore.migrate import Run, new_tag

KEPT: Final = 10_000
"""Changes whose tags are kept. Who is further behind reads everything anew, and tells from that."""


def tag_of(run: Run, rev: int) -> str:
    """The tag of a revision; empty where nothing is known of it."""
    rows = run("SELECT tag FROM auth_changes WHERE rev = ?", [rev])
    return str(rows[0][0]) if rows else ""


def is_rewritten(run: Run, rev: int, known_rev: int, known_tag: str | None) -> bool | None:
    """Whether the history that led to ``rev`` is not the one that is known; None: the tag that
    would say so is so old that it is no longer kept."""
    if known_tag is None:
        return False
    tag = tag_of(run, known_rev)
    if not tag and known_rev <= rev - KEPT:
        return None
    return rev < known_rev or tag != known_tag


def add(run: Run, rev: int) -> str:
    """Leave the tag of the change to ``rev``, and give it."""
    tag = new_tag()
    run(
        "INSERT INTO auth_changes (rev, tag) VALUES (?, ?)"
        " ON CONFLICT (rev) DO UPDATE SET tag = excluded.tag",
        [rev, tag],
    )
    run("DELETE FROM auth_changes WHERE rev <= ?", [rev - KEPT])
    return tag
