"""One event, one line, in two formats."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from open_mcp_gateway.telemetry import logs

log = logging.getLogger("open_mcp_gateway.test")


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    ours = logging.getLogger("open_mcp_gateway").level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("open_mcp_gateway").setLevel(ours)


def written(human: bool, level: str = "info") -> io.StringIO:
    stream = io.StringIO()
    logs.configure(level, human=human, stream=stream)
    return stream


def test_json_lines_hold_the_fields() -> None:
    stream = written(human=False)
    log.info("server started", extra={"server": "a", "pid": 7, "unknown": None})
    line = json.loads(stream.getvalue())
    assert line["message"] == "server started"
    assert (line["level"], line["server"], line["pid"]) == ("info", "a", 7)
    assert "unknown" not in line
    assert line["time"].endswith("Z")


def test_human_lines_stay_one_line_whatever_the_values() -> None:
    stream = written(human=True)
    log.info("stopped\nFAKE", extra={"reason": 'said "no"\nand left', "empty": ""})
    assert stream.getvalue().count("\n") == 1
    assert 'reason="said \\"no\\"\\nand left"' in stream.getvalue()


@pytest.mark.parametrize("human", [True, False])
def test_exceptions_are_kept(human: bool) -> None:
    stream = written(human)
    try:
        raise ValueError("boom")
    except ValueError:
        log.exception("failed")
    assert "ValueError: boom" in stream.getvalue()


def test_a_level_hides_what_is_below_it() -> None:
    stream = written(human=True, level="warn")
    log.info("hidden")
    assert stream.getvalue() == ""
    logs.set_level("trace")
    log.log(logs.TRACE, "content")
    assert "TRACE content" in stream.getvalue()


def test_libraries_speak_up_from_debug_on() -> None:
    stream = written(human=True)
    logging.getLogger("uvicorn.error").info("chatter")
    assert stream.getvalue() == ""
    logs.set_level("debug")
    logging.getLogger("uvicorn.error").info("chatter")
    assert "chatter" in stream.getvalue()
