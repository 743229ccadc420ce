"""Published servers that every client is pointed at, and what each is to say."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.environments import node_program, program_of
from tests.process.talk import entry

Json = dict[str, Any]

SESSIONS: Final = "2025-11-25"
STATELESS: Final = "2026-07-28"
PAGE: Final = b"Hello from loopback"


@dataclass(frozen=True)
class Offer:
    """One server: how to start it, and a call whose result is known."""

    id: str
    command: tuple[str, ...]
    tool: str
    arguments: Json
    text: str
    """Part of what the call says."""

    revisions: tuple[str, ...] = (SESSIONS,)
    """The newest of each era that it speaks."""

    env: Json | None = None

    @property
    def entry(self) -> Json:
        """As the catalog has it."""
        return entry(self.id, list(self.command), env=self.env or {})


BOTH: Final = (SESSIONS, STATELESS)


def offers_in(place: Path, page_url: str) -> list[Offer]:
    """All of them, with files, a repository and a memory in ``place``."""
    _furnish(place)
    tokyo = {"source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo"}
    thought = {"thought": "first", "thoughtNumber": 1, "totalThoughts": 1}
    fetching = [str(program_of("servers", "mcp-server-fetch"))]
    fetching += ["--ignore-robots-txt", "--allow-private-ips"]
    return [
        Offer(
            "everything",
            tuple(node_program("mcp-server-everything")),
            "get-sum",
            {"a": 2, "b": 3},
            "The sum of 2 and 3 is 5.",
        ),
        Offer(
            "filesystem",
            (*node_program("mcp-server-filesystem"), str(place / "files")),
            "read_text_file",
            {"path": str(place / "files/hello.txt")},
            "hello file",
        ),
        Offer(
            "memory",
            tuple(node_program("mcp-server-memory")),
            "search_nodes",
            {"query": "barks"},
            "Rex",
            env={"MEMORY_FILE_PATH": str(place / "memory.jsonl")},
        ),
        Offer(
            "thinking",
            tuple(node_program("mcp-server-sequential-thinking")),
            "sequentialthinking",
            {**thought, "nextThoughtNeeded": False},
            '"thoughtNumber": 1',
        ),
        Offer(
            "time",
            (str(program_of("servers", "mcp-server-time")),),
            "convert_time",
            tokyo,
            "T21:00:00+09:00",
            BOTH,
        ),
        Offer(
            "git",
            (str(program_of("servers", "mcp-server-git")),),
            "git_log",
            {"repo_path": str(place / "repository")},
            "The first commit",
            BOTH,
        ),
        Offer("fetch", tuple(fetching), "fetch", {"url": page_url}, PAGE.decode(), BOTH),
        Offer(
            "sqlite",
            (str(program_of("sqlite", "mcp-server-sqlite")), "--db-path", str(place / "test.db")),
            "read_query",
            {"query": "SELECT 6 * 7 AS answer"},
            "42",
        ),
    ]


def _furnish(place: Path) -> None:
    (place / "files").mkdir()
    (place / "files/hello.txt").write_text("hello file\n", "utf-8")
    dog = '{"type":"entity","name":"Rex","entityType":"dog","observations":["barks"]}\n'
    (place / "memory.jsonl").write_text(dog, "utf-8")
    repository = place / "repository"
    repository.mkdir()
    identity = ["-c", "user.name=Test", "-c", "user.email=test@example.org"]
    for command in (
        ["init", "-q", "-b", "main"],
        ["commit", "-q", "--allow-empty", "-m", "The first commit"],
    ):
        subprocess.run(
            ["git", *identity, *command], cwd=repository, check=True, capture_output=True
        )
