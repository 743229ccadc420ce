"""What a key may be called."""

from __future__ import annotations

import pytest

from open_mcp_gateway.errors import InvalidRequest
from open_mcp_gateway.operations.requests import check_name


@pytest.mark.parametrize("name", ["ci", "CI", "deploy bot 2", "Größe", "日本", "c\u0456"])
def test_what_can_be_seen_can_be_a_name(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        *(
            "",
            " ",
            "ci ",
            " ci",
            "a  b",
            "ci\u00a0",
            "\u3000ci",
            "ci\t",
            "c\ni",
            "c\x7fi",
            "\x1b[2J",
        ),
        *("c\u200bi", "c\u200di", "\ufeffci", "c\u00adi", "ci\u2060", "ci\u202e", "c\u2028i"),
        *("ci\ufe0f", "c\u034fi", "ci\u3164", "ci\u115f", "ci\u2800", "ci\U000e0100", "c\ud800"),
    ],
)
def test_what_cannot_be_seen_cannot(name: str) -> None:
    with pytest.raises(InvalidRequest):
        check_name(name)
