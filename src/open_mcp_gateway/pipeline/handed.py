"""The cursors and task ids in a server's response."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from open_mcp_gateway.protocol.surrogates import Lenient


class _Task(Struct):
    id: str | None = msgspec.field(name="taskId", default=None)


class _Handed(Struct):
    cursor: str | None = msgspec.field(name="nextCursor", default=None)
    task_id: str | None = msgspec.field(name="taskId", default=None)
    task: _Task | None = None


class _Response(Struct):
    result: _Handed | None = None


_response = Lenient(_Response)
_task = Lenient(_Task)


def handed_out(message: bytes) -> list[str]:
    """All that the response ``message`` hands out."""
    try:
        handed = _response.decode(message).result
    except msgspec.DecodeError:
        return []
    if handed is None:
        return []
    nested = None if handed.task is None else handed.task.id
    return [text for text in (handed.cursor, handed.task_id, nested) if text is not None]


def id_of_task(listed: bytes) -> str:
    """The id of one task in a list of them; empty where it has none.

    Raises:
        DecodeError: it cannot be read.
    """
    return _task.decode(listed).id or ""
