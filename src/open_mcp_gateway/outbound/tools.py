"""What is known of a server's tools: which arguments their callers repeat in headers.

Spec: 2026-07-28 server/tools#x-mcp-header.
"""

from __future__ import annotations

import logging
from typing import Final

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from open_mcp_gateway.names import ServerId
from open_mcp_gateway.protocol.jsonrpc import encode
from open_mcp_gateway.protocol.mirrored import Fields, Invalid, mirrored_fields
from open_mcp_gateway.protocol.surrogates import Lenient

LIST: Final = "tools/list"
CALL: Final = "tools/call"
LIST_CHANGED: Final = "notifications/tools/list_changed"

MAX_TOOLS: Final = 10_000
"""Kept of one server; more are passed on, but their headers are not known."""

_log = logging.getLogger(__name__)


class _Tool(Struct):
    name: str
    input_schema: Raw = msgspec.field(name="inputSchema", default=Raw(b"{}"))


class _Page(Struct):
    tools: list[Raw]
    next_cursor: str | UnsetType | None = msgspec.field(name="nextCursor", default=UNSET)


class _Answer(Struct):
    result: Raw | UnsetType = UNSET


_tool = Lenient(_Tool)
_page = Lenient(_Page)
_answer = Lenient(_Answer)
_members = Lenient(dict[str, Raw])
_text = msgspec.json.Decoder(str)


class ToolSchemas:
    """The tools of one server, as far as ``tools/list`` answers told of them."""

    __slots__ = ("_fields", "_refused", "_server", "annotated")

    def __init__(self, server: ServerId) -> None:
        self._server = server
        self._fields: dict[str, Fields] = {}
        """Of each tool that is known, what calls of it repeat in headers."""

        self._refused: dict[str, str] = {}
        """Tools passed over, and why."""

        self.annotated = False
        """Some tool wants arguments repeated in headers."""

    @property
    def known(self) -> bool:
        """Some tools have been listed."""
        return bool(self._fields)

    def fields(self, name: str) -> Fields | None:
        """What calls of the tool repeat in headers; None: it is not known."""
        return self._fields.get(name)

    def learn(self, message: bytes) -> str | None:
        """Take in the answer to a ``tools/list``; the cursor of the next page, None at the end."""
        page = _page_in(message)
        if page is None:
            return None
        for raw in page.tools:
            self._usable(raw)
        return page.next_cursor if isinstance(page.next_cursor, str) else None

    def pass_on(self, message: bytes) -> bytes:
        """The same for an answer on its way to a caller: without the tools that no caller over
        HTTP may use, otherwise byte for byte as it came."""
        page = _page_in(message)
        if page is None:
            return message
        usable = [raw for raw in page.tools if self._usable(raw)]
        if len(usable) == len(page.tools):
            return message
        members = _members.decode(message)
        result = _members.decode(members["result"])
        result["tools"] = Raw(encode(usable))
        members["result"] = Raw(encode(result))
        return encode(members)

    def _usable(self, raw: Raw) -> bool:
        """Whether a listed tool may be used; keeps what of it is to be repeated if so."""
        try:
            tool = _tool.decode(raw)
        except msgspec.DecodeError:
            return True  # for the caller to see; without a name it cannot be called anyway
        fields = mirrored_fields(tool.input_schema)
        if isinstance(fields, Invalid):
            self._refuse(tool.name, fields.reason)
            return False
        self._refused.pop(tool.name, None)
        if tool.name in self._fields or len(self._fields) < MAX_TOOLS:
            self._fields[tool.name] = fields
            self.annotated = self.annotated or bool(fields)
        return True

    def _refuse(self, name: str, reason: str) -> None:
        self._fields.pop(name, None)
        if self._refused.get(name) == reason or len(self._refused) >= MAX_TOOLS:
            return
        self._refused[name] = reason
        _log.warning(
            "tool passed over: its header annotations break the rules",
            extra={"server": self._server, "tool": name[:200], "reason": reason},
        )


def tool_of(params: dict[str, Raw] | None) -> str | None:
    """Which tool the params of a ``tools/call`` name."""
    raw = None if params is None else params.get("name")
    try:
        return None if raw is None else _text.decode(raw)
    except msgspec.DecodeError:
        return None


def _page_in(message: bytes) -> _Page | None:
    try:
        answer = _answer.decode(message)
        return None if answer.result is UNSET else _page.decode(answer.result)
    except msgspec.DecodeError:
        return None
