"""What may be resolved to something that does not begin like it."""

from __future__ import annotations

import pytest

from open_mcp_gateway.auth.stepping import may_step_back, template_may_step_back

STEPS = (
    *("..", "../b", "..\\b", "..?x", "..#x", "..;/b", "..;x=1/b", ".. /b", "%2e./b", ".%2E/b"),
    *("%252e%252e/b", "%25252e%25252e/b", "%2525252e%2525252e/b", "..%2fb", "..%5cb", "x%2f..%2fb"),
    *(".\t./b", ".\n./b", ".\r./b", ".%0a./b", "%09../b", "..%0d/b", "%00", "\x00", "\x7f", "%7f"),
    *("a b", " ", "..%20/b", "%20..%20/b", "\u00a0", "\u2028", "\uff0e\uff0e/b", "\u2025/b"),
    *("%c0%ae%c0%ae/b", "%ff", "%" + "25" * 20 + "41", "%252525252541"),
)
STAYS = (
    *(
        "",
        "b",
        ".",
        "./b",
        "b..c",
        "...",
        "..b",
        "b..",
        "b;../x",
        "a%20b",
        "a%2fb",
        "caf%C3%A9",
        "café",
    ),
    *("b?x=1#y", "100%", "%zz", "%25", "%2541", "{x}"),
)


@pytest.mark.parametrize("rest", STEPS)
def test_what_may_step_back(rest: str) -> None:
    assert may_step_back(f"file:///a/{rest}")


@pytest.mark.parametrize("rest", [*STAYS, "x" * 8_000, "%41" * 2_700])
def test_what_does_not(rest: str) -> None:
    assert not may_step_back(f"file:///a/{rest}")


def test_how_often_a_uri_may_be_encoded() -> None:
    """Decoded five times over: what is still not done then is not trusted."""
    four, five = ("%" + "25" * (times - 1) + "41" for times in (4, 5))
    assert not may_step_back(f"file:///a/{four}")
    assert may_step_back(f"file:///a/{five}")


@pytest.mark.parametrize("one", ["x", "%41", "é", "{x}"])
def test_how_long_a_uri_may_be(one: str) -> None:
    """Those that are longer are not read, however little there is to them."""
    at_most, chars = one * (8 * 1024 // len(one)), 8 * 1024
    assert not may_step_back(at_most)
    assert not template_may_step_back(at_most)
    over = at_most + "x" * (chars + 1 - len(at_most))
    assert may_step_back(over)
    assert template_may_step_back(over)


@pytest.mark.parametrize("rest", ["{x}/../b", "../{x}", "%2e%2e/{x}", "..{x}", ".{x}./b", "a b{x}"])
def test_templates_that_may(rest: str) -> None:
    assert template_may_step_back(f"file:///a/{rest}")


@pytest.mark.parametrize("rest", ["{x}", "{+x}/{y}", "b{?x,y}", "{"])
def test_templates_that_do_not(rest: str) -> None:
    assert not template_may_step_back(f"file:///a/{rest}")
