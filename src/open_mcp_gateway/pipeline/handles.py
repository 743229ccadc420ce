"""Cursors and task ids: what servers hand out to one caller and nobody else may present.

The server behind us sees one client, the gateway, and cannot tell whose handle comes back. A
handle that a caller was not given is, to that caller, one that does not exist. Kept in memory:
after a restart callers list anew.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Final, TypeAlias

import msgspec
from msgspec import Raw, Struct

from open_mcp_gateway.errors import InvalidParams
from open_mcp_gateway.names import KeyId, ServerId
from open_mcp_gateway.protocol.jsonrpc import Call, Params, encode
from open_mcp_gateway.protocol.members import repeated
from open_mcp_gateway.protocol.surrogates import Lenient

MAX_HANDLES: Final = 10_000
"""Of one caller; those not used for longest are forgotten first."""

LISTS: Final = frozenset(
    {"tools/list", "prompts/list", "resources/list", "resources/templates/list", "tasks/list"}
)
TASKS: Final = frozenset(
    {"tasks/get", "tasks/update", "tasks/cancel", "tasks/result", "subscriptions/listen"}
)
_ALWAYS_OF_TASKS: Final = frozenset({"tasks/get", "tasks/update", "tasks/cancel"})
_LISTEN: Final = "subscriptions/listen"
_TASK_LIST: Final = "tasks/list"
_MAKES_TASKS: Final = frozenset({"tools/call"})
_TASK_IDS: Final = frozenset({"taskIds"})
_DIGEST_BYTES: Final = 16

_Handle: TypeAlias = tuple[ServerId, bytes]


class _Task(Struct):
    id: str | None = msgspec.field(name="taskId", default=None)


class _Handed(Struct):
    cursor: str | None = msgspec.field(name="nextCursor", default=None)
    task_id: str | None = msgspec.field(name="taskId", default=None)
    task: _Task | None = None


class _Response(Struct):
    result: _Handed | None = None


class _Listened(Struct):
    ids: list[str] = msgspec.field(name="taskIds", default_factory=list)


_response = Lenient(_Response)
_task = Lenient(_Task)
_text = msgspec.json.Decoder(str)
_listened = Lenient(_Listened)
_members = Lenient(dict[str, Raw])
_elements = Lenient(list[Raw])


class Handles:
    """Which handle belongs to whom."""

    __slots__ = ("_owned",)

    def __init__(self) -> None:
        self._owned: dict[KeyId, OrderedDict[_Handle, None]] = {}

    def check(self, caller: KeyId, server_id: ServerId, call: Call) -> None:
        """Refuse handles in ``call`` that ``caller`` was not given.

        Raises:
            InvalidParams: as if they did not exist.
        """
        params = call.params
        if params is None:
            return
        if call.method in LISTS:
            self._check(caller, server_id, _given(params, "cursor"), "Invalid cursor")
        elif call.method in TASKS:
            self._check(caller, server_id, _given(params, "taskId"), "Task not found")
            for task_id in _listened_to(params):
                self._check(caller, server_id, task_id, "Task not found")

    def _check(self, caller: KeyId, server_id: ServerId, text: str | None, refusal: str) -> None:
        if text is None:
            return
        owned = self._owned.get(caller)
        handle = _handle(server_id, text)
        if owned is None or handle not in owned:
            raise InvalidParams(refusal)
        owned.move_to_end(handle)

    def passed_on(self, caller: KeyId, server_id: ServerId, method: str, message: bytes) -> bytes:
        """The response ``message`` as ``caller`` may see it: what it hands out is remembered, and
        tasks of others are taken out of a list. Otherwise byte for byte as it came."""
        self.learn(caller, server_id, method, message)
        return self._own_tasks(caller, server_id, message) if method == _TASK_LIST else message

    def learn(self, caller: KeyId, server_id: ServerId, method: str, message: bytes) -> None:
        """Remember what the response ``message`` hands to ``caller``."""
        if method in LISTS:
            if b'"nextCursor"' not in message:
                return
        elif method not in _MAKES_TASKS or b'"taskId"' not in message:
            return
        try:
            handed = _response.decode(message).result
        except msgspec.DecodeError:
            return
        if handed is None:
            return
        nested = None if handed.task is None else handed.task.id
        owned = self._owned.setdefault(caller, OrderedDict())
        for text in (handed.cursor, handed.task_id, nested):
            if text is not None:
                owned[_handle(server_id, text)] = None
        while len(owned) > MAX_HANDLES:
            owned.popitem(last=False)

    def _own_tasks(self, caller: KeyId, server_id: ServerId, message: bytes) -> bytes:
        members = _members.decode(message)
        try:
            result = _members.decode(members.get("result", Raw(b"{}")))
            listed = _elements.decode(result.get("tasks", Raw(b"[]")))
            ids = [_task.decode(one).id or "" for one in listed]
        except msgspec.DecodeError:
            members["result"] = Raw(b'{"tasks":[]}')  # what cannot be read may be anybody's
            return encode(members)
        owned = self._owned.get(caller, OrderedDict())
        kept = [
            one for one, id_ in zip(listed, ids, strict=True) if _handle(server_id, id_) in owned
        ]
        if len(kept) == len(listed):
            return message
        result["tasks"] = Raw(encode(kept))
        members["result"] = Raw(encode(result))
        return encode(members)


def needs_tasks(call: Call) -> bool:
    """Whether a stateless request is for callers of the tasks extension alone (SEP-2663)."""
    if call.method in _ALWAYS_OF_TASKS:
        return True
    if call.method != _LISTEN or call.params is None:
        return False
    try:
        return "taskIds" in _members.decode(call.params.get("notifications", Raw(b"{}")))
    except msgspec.DecodeError:
        return False


def _handle(server_id: ServerId, text: str) -> _Handle:
    """What stands for a handle, which may be as long as its server likes."""
    encoded = text.encode("utf-8", "surrogatepass")
    if len(encoded) > _DIGEST_BYTES:
        encoded = hashlib.blake2b(encoded, digest_size=_DIGEST_BYTES).digest() + b"#"
    return server_id, encoded


def _given(params: Params, name: str) -> str | None:
    raw = params.get(name)
    if raw is None or bytes(raw) == b"null":
        return None
    try:
        return _text.decode(raw)
    except msgspec.DecodeError as error:
        raise InvalidParams(f"'params.{name}' must be a string") from error


def _listened_to(params: Params) -> list[str]:
    wanted = params.get("notifications")
    if wanted is None:
        return []
    try:
        ids = _listened.decode(wanted).ids
        if repeated(wanted, _TASK_IDS) is not None:  # the server may go by the other
            raise InvalidParams("'params.notifications.taskIds' appears twice; send it once")
        return ids
    except msgspec.DecodeError as error:
        raise InvalidParams("'params.notifications.taskIds' must be a list of strings") from error
