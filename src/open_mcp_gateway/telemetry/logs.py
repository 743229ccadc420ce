"""Log lines: one format for people, one for machines, through the standard library's logging.

Every line is a constant message with fields; the gateway's own code never formats values into it.
"""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime
from typing import TextIO

TRACE = 5
"""Below debug: the only level at which message content may appear."""

logging.addLevelName(TRACE, "TRACE")

LEVELS = {
    "trace": TRACE,
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "error": logging.ERROR,
}

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "color_message"}
"""Attributes that every record has; what else there is are the fields of the line."""


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    """The fields given as ``extra``; unknown ones (None) are left out."""
    return {
        name: value
        for name, value in vars(record).items()
        if name not in _STANDARD and value is not None
    }


def _stamp(record: logging.LogRecord) -> datetime:
    return datetime.fromtimestamp(record.created, UTC)


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, logger, message, then the fields."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": _stamp(record).isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= fields_of(record)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=False)


class HumanFormatter(logging.Formatter):
    """``12:00:00.000 INFO  message  name=value``, in UTC."""

    def format(self, record: logging.LogRecord) -> str:
        time = _stamp(record).strftime("%H:%M:%S.%f")[:-3]
        fields = " ".join(f"{name}={_quoted(value)}" for name, value in fields_of(record).items())
        line = f"{time} {record.levelname:<5} {_plain(record.getMessage())}"
        if fields:
            line += f"  {fields}"
        if record.exc_info:
            line += "\n" + self.formatException(record.exc_info)
        return line


def _quoted(value: object) -> str:
    text = str(value)
    plain = text.isprintable() and " " not in text and '"' not in text and text != ""
    return text if plain else json.dumps(text, ensure_ascii=False)


def _plain(text: str) -> str:
    """No line breaks or control characters: one event stays one line."""
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


def configure(level: str, *, human: bool, stream: TextIO | None = None) -> None:
    """Send every log line of the process to ``stream`` (stderr by default) at ``level`` and above.

    Calling it again replaces the earlier setting.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(HumanFormatter() if human else JsonFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    set_level(level)


def set_level(level: str) -> None:
    """From now on show lines at ``level`` and above; libraries speak only from debug on."""
    number = LEVELS[level]
    logging.getLogger().setLevel(number)
    quiet = number if number <= logging.DEBUG else logging.WARNING
    for library in ("uvicorn", "watchfiles", "asyncio"):
        logging.getLogger(library).setLevel(max(quiet, number))
