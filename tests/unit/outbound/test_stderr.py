"""What is kept of a child's stderr, and what never comes out of it."""

from __future__ import annotations

from open_mcp_gateway.outbound.stderr import (
    KEPT_LINE_BYTES,
    SHOWN_LINE_CHARS,
    SHOWN_LINES,
    StderrTail,
)

SECRETS = ("test-secret-line-1\ntest-secret-line-2", "test-secret-value")


def scrub(text: str) -> str:
    for secret in SECRETS:
        text = text.replace(secret, "***")
    return text


def tail(*pieces: bytes, limit_lines: int = 50) -> StderrTail:
    made = StderrTail(limit_lines, scrub, lambda _line: None)
    for piece in pieces:
        made.feed(piece)
    made.finish()
    return made


def test_the_last_lines_are_kept_and_fewer_quoted() -> None:
    made = tail(*[b"line %d\n" % number for number in range(100)])
    assert made.lines() == [f"line {number}" for number in range(50, 100)]
    assert made.quote().count("\n") == SHOWN_LINES - 1
    assert made.quote().startswith("stderr: line 90\n")


def test_nothing_is_quoted_of_nothing() -> None:
    assert tail().quote() == ""
    assert tail(b"\n\n").quote() == ""


def test_a_last_line_without_end_counts() -> None:
    assert tail(b"a\nfatal").lines() == ["a", "fatal"]


def test_secrets_are_scrubbed_wherever_the_pieces_are_cut() -> None:
    assert tail(b"key test-sec", b"ret-value!\n").lines() == ["key ***!"]


def test_a_secret_of_several_lines_is_scrubbed() -> None:
    assert tail(b"pem: test-secret-line-1\ntest-secret-line-2 end\n").lines() == ["pem: *** end"]


def test_a_secret_is_scrubbed_before_a_line_is_cut() -> None:
    padding = b"x" * (SHOWN_LINE_CHARS - 5)
    (line,) = tail(padding + b"test-secret-value\n").lines()
    assert "test" not in line
    assert len(line) <= SHOWN_LINE_CHARS


def test_of_a_line_too_long_to_keep_not_even_a_part_is_shown() -> None:
    (line,) = tail(b"test-secret" + b"x" * KEPT_LINE_BYTES + b"\n").lines()
    assert line == "[line too long to keep]"


def test_bytes_that_are_no_text_and_control_codes_do_no_harm() -> None:
    assert tail(b"\x1b[31mred\x1b[0m \xff\x00\x07\n").lines() == ["red �"]
