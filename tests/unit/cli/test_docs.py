"""The commands in the documentation are commands that there are."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from open_mcp_gateway.cli.main import all_commands

PAGE = Path(__file__).parents[3] / "docs/keys.md"
COMMANDS = re.findall(r"^open-mcp-gateway (.+)$", PAGE.read_text("utf-8"), re.MULTILINE)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_are_understood(command: str) -> None:
    words = shlex.split(command.partition(" <")[0].partition(" >")[0])
    assert callable(all_commands().parse_args(words).run)


def test_every_command_about_keys_is_described() -> None:
    page = PAGE.read_text("utf-8")
    for name in (
        "init",
        "create",
        "list",
        "show",
        "patch",
        "revoke",
        "verify",
        "inspect",
        "import",
    ):
        assert f"| `keys {name}" in page
