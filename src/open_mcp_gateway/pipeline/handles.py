"""Cursors and task ids: what servers hand out to one caller and nobody else may present.

The server behind us sees one client, the gateway, and cannot tell whose handle comes back. A
handle that a caller was not given is, to that caller, one that does not exist. Kept in memory:
after a restart callers list anew.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Mapping
from typing import Final, TypeAlias

import msgspec
from msgspec import Raw

from open_mcp_gateway.auth.records import KeyRecord, Source
from open_mcp_gateway.errors import InvalidParams, UnknownMethod
from open_mcp_gateway.names import KeyId, ServerId
from open_mcp_gateway.pipeline.handed import handed_out, id_of_task
from open_mcp_gateway.pipeline.members import (
    USUAL,
    obj,
    refuse_other_spellings,
    refuse_spellings,
    string,
    strings,
)
from open_mcp_gateway.pipeline.remembered import REMEMBERED
from open_mcp_gateway.protocol.jsonrpc import Call, Params, encode
from open_mcp_gateway.protocol.spelling import folded, spellings
from open_mcp_gateway.protocol.surrogates import Lenient

MAX_HANDLES: Final = 10_000
"""Of one caller; those not used for longest are forgotten first."""

MAX_IN_ALL: Final = 200_000
"""Of all callers together. Those who hold more than their share then lose what is above it."""

MAX_TOKEN_BYTES: Final = 256
"""Of a progress token that is kept with its task; there is no progress of a task with a longer one.
"""

LISTS: Final = frozenset(
    {"tools/list", "prompts/list", "resources/list", "resources/templates/list", "tasks/list"}
)
_ALWAYS_OF_TASKS: Final = frozenset({"tasks/get", "tasks/update", "tasks/cancel"})
_LISTEN: Final = "subscriptions/listen"
MAY_NEED_TASKS: Final = _ALWAYS_OF_TASKS | {_LISTEN}
"""Methods of which ``needs_tasks`` may be true."""

_TASK_LIST: Final = "tasks/list"
_OF_TASKS: Final = "tasks/"
_MAKES_TASKS: Final = frozenset({"tools/call"})
_NAMES_NONE: Final = frozenset(
    {
        *("initialize", "ping", "server/discover", "logging/setLevel", "completion/complete"),
        *("tools/call", "prompts/get"),
        *("resources/read", "resources/subscribe", "resources/unsubscribe"),
    }
)
_OTHERWISE_SPELT: Final = frozenset(method.casefold() for method in (*LISTS, _LISTEN, *REMEMBERED))
"""What a server may take for one of these: the answers of the first would not be looked at, and the
last would change for all who share a connection what the server remembers for one."""

_NO_TASK: Final = "Task not found"
_IN_ANY: Final = spellings({"_meta"})
"""The progress token in there is the gateway's own upstream, and nobody else may choose one."""

_IN_LISTS: Final = spellings({"_meta", "cursor"})
_IN_TASKS: Final = spellings({"_meta", "cursor", "taskId", "taskIds", "notifications"})
_IN_NOTIFICATIONS: Final = spellings({"taskIds"})
_DIGEST_BYTES: Final = 16

_RELATED: Final = "io.modelcontextprotocol/related-task"
_IN_META: Final = spellings({_RELATED})
_OF_CLIENT_TASKS: Final = spellings({"notifications/progress", "notifications/tasks/status"})
"""About tasks that the client itself has made for the server. They pass on connections that belong
to nobody else alone; see ``notices``."""

_Handle: TypeAlias = tuple[ServerId, bytes]


_text = msgspec.json.Decoder(str)
_members = Lenient(dict[str, Raw])
_elements = Lenient(list[Raw])


class Handles:
    """Which handle belongs to whom."""

    __slots__ = ("_count", "_keys", "_owned")

    def __init__(self) -> None:
        self._owned: dict[KeyId, OrderedDict[_Handle, Raw | None]] = {}
        """By handle the progress token of the call that it came from, which a task goes on to use
        (2025-11-25 basic/utilities/tasks)."""

        self._count = 0
        """Of all that is owned."""

        self._keys: Mapping[KeyId, KeyRecord] = {}

    def turn(self, keys: Mapping[KeyId, KeyRecord]) -> None:
        """From now on ``keys`` are in force. Forget what was given to those that ended, or whose id
        means somebody else now, as one of the configuration can."""
        before, self._keys = self._keys, keys
        over = [one for one in self._owned if one in before and _ended(before[one], keys.get(one))]
        for caller in over:
            self._count -= len(self._owned.pop(caller))

    def check(self, caller: KeyId, server_id: ServerId, call: Call) -> None:
        """Refuse handles in ``call`` that ``caller`` was not given.

        Raises:
            InvalidParams: as if they did not exist, or it is not clear which are meant.
            UnknownMethod: a method that is looked at here or elsewhere, in another case.
        """
        params, method = call.params, call.method
        if params is not None and "_meta" in params and _may_relate(bytes(params["_meta"])):
            self._check_related(caller, server_id, call.method, params)
        if method in _NAMES_NONE:
            # Looked at here already: this is on the path of every request.
            if params is not None and not USUAL.issuperset(params):
                refuse_spellings(params, _IN_ANY)
            return
        params = params or {}
        if method in LISTS:
            if not params:
                return
            refuse_other_spellings(params, _IN_LISTS)
            self._check(caller, server_id, _given(params, "cursor"), "Invalid cursor")
        elif method == _LISTEN:
            refuse_other_spellings(params, _IN_TASKS)
            self._check(caller, server_id, _given(params, "taskId"), _NO_TASK)
            self._check_all(caller, server_id, _listened_to(params))
        elif (plain := method.casefold()) in _OTHERWISE_SPELT:
            raise UnknownMethod(f"Method not found: {method}")
        elif plain.startswith(_OF_TASKS):
            # Also what no revision knows: whatever it does, it is done to a task.
            refuse_other_spellings(params, _IN_TASKS)
            named = [string(params, "taskId")]
            if "taskIds" in params:
                named += strings(params, "taskIds")
            self._check_all(caller, server_id, named)
        else:
            refuse_other_spellings(params, _IN_ANY)

    def _check_related(
        self, caller: KeyId, server_id: ServerId, method: str, params: Params
    ) -> None:
        """Which task a message says that it belongs to (2025-11-25 basic/utilities/tasks)."""
        meta = obj(params, "_meta")
        refuse_spellings(meta, _IN_META)
        if _RELATED in meta and folded(method) not in _OF_CLIENT_TASKS:
            task_id = string(obj(meta, _RELATED), "taskId")
            self._check(caller, server_id, task_id, _NO_TASK)

    def _check_all(self, caller: KeyId, server_id: ServerId, task_ids: list[str]) -> None:
        for task_id in task_ids:
            self._check(caller, server_id, task_id, _NO_TASK)

    def _check(self, caller: KeyId, server_id: ServerId, text: str | None, refusal: str) -> None:
        if text is None:
            return
        owned = self._owned.get(caller)
        handle = _handle(server_id, text)
        if owned is None or handle not in owned:
            raise InvalidParams(refusal)
        owned.move_to_end(handle)

    def owns(self, caller: KeyId, server_id: ServerId, text: str) -> bool:
        """Whether ``caller`` was given this handle."""
        return _handle(server_id, text) in self._owned.get(caller, ())

    def token_of(self, caller: KeyId, server_id: ServerId, text: str) -> Raw | None:
        """The progress token that ``caller`` chose for this task; None where none is known."""
        owned = self._owned.get(caller)
        return None if owned is None else owned.get(_handle(server_id, text))

    def passed_on(self, caller: KeyId, server_id: ServerId, call: Call, message: bytes) -> bytes:
        """The response ``message`` to ``call`` as ``caller`` may see it: what it hands out is
        remembered, and tasks of others are taken out of a list. Otherwise byte for byte as it came.
        """
        self.learn(caller, server_id, call, message)
        return self._own_tasks(caller, server_id, message) if call.method == _TASK_LIST else message

    def learn(self, caller: KeyId, server_id: ServerId, call: Call, message: bytes) -> None:
        """Remember what the response ``message`` to ``call`` hands to ``caller``."""
        method = call.method
        if method in LISTS:
            if b'"nextCursor"' not in message:
                return
        # Not ``in``, which tries for a number first and so takes twice as long.
        elif method not in _MAKES_TASKS or message.find(b'"taskId"') < 0:
            return
        token = call.progress_token
        if token is not None:
            token = Raw(bytes(token)) if len(token) <= MAX_TOKEN_BYTES else None
        owned = self._owned.setdefault(caller, OrderedDict())
        before = len(owned)
        for text in handed_out(message):
            owned[_handle(server_id, text)] = token
        self._count += len(owned) - before
        self._cut(owned, MAX_HANDLES)
        if self._count > MAX_IN_ALL:
            # Half, so that it takes as many new ones again before the next time.
            share = max(1, MAX_IN_ALL // (2 * len(self._owned)))
            for each in self._owned.values():
                self._cut(each, share)

    def _cut(self, owned: OrderedDict[_Handle, Raw | None], most: int) -> None:
        """Forget the oldest of one caller."""
        while len(owned) > most:
            owned.popitem(last=False)
            self._count -= 1

    def _own_tasks(self, caller: KeyId, server_id: ServerId, message: bytes) -> bytes:
        members = _members.decode(message)
        try:
            result = _members.decode(members.get("result", Raw(b"{}")))
            listed = _elements.decode(result.get("tasks", Raw(b"[]")))
            ids = [id_of_task(one) for one in listed]
        except msgspec.DecodeError:
            members["result"] = Raw(b'{"tasks":[]}')  # what cannot be read may be anybody's
            return encode(members)
        pairs = zip(listed, ids, strict=True)
        kept = [one for one, id_ in pairs if self.owns(caller, server_id, id_)]
        if len(kept) == len(listed):
            return message
        result["tasks"] = Raw(encode(kept))
        members["result"] = Raw(encode(result))
        return encode(members)


def _ended(before: KeyRecord, now: KeyRecord | None) -> bool:
    if now is None or now.revoked_at is not None or now.holder != before.holder:
        return True
    # The store never gives an id again; there a secret can be replaced without an overlap.
    return now.source is Source.CONFIG and set(now.digests).isdisjoint(before.digests)


def same_for_all(call: Call) -> bool:
    """Whether what ``Handles.check`` says of ``call`` holds for every call of its method that has
    members of the same names and the same ``_meta``, whoever makes it and whenever."""
    params = call.params or {}
    related = "_meta" in params and _may_relate(bytes(params["_meta"]))
    return call.method in _NAMES_NONE and not related


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


def _may_relate(meta: bytes) -> bool:
    """Whether ``_meta`` can name a task, at a glance: this is on the path of every request."""
    plain = meta.translate(None, b"_-").lower()
    return b"relatedtask" in plain or b"\\" in meta or not meta.isascii()


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
    if "notifications" not in params:
        return []
    wanted = obj(params, "notifications")
    refuse_spellings(wanted, _IN_NOTIFICATIONS)
    return strings(wanted, "taskIds") if "taskIds" in wanted else []
