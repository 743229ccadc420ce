"""Which call a server's notification belongs to, and making it the caller's own again.

Spec: 2025-11-25 basic/utilities/progress and basic/utilities/cancellation; 2026-07-28
basic/utilities/subscriptions. Both sides of the gateway choose ids and tokens of their own: a
caller's could be another's too, so upstream the gateway's id for the call stands in their place.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from open_mcp_gateway.protocol.jsonrpc import Incoming, encode
from open_mcp_gateway.protocol.surrogates import Lenient

PROGRESS: Final = "notifications/progress"
CANCELLED: Final = "notifications/cancelled"
LOGGED: Final = "notifications/message"
LISTEN: Final = "subscriptions/listen"
UPDATED: Final = "notifications/resources/updated"
ELICITED: Final = "notifications/elicitation/complete"
TASK_STATUS: Final = "notifications/tasks/status"
LIST_CHANGES: Final = frozenset(
    {
        "notifications/tools/list_changed",
        "notifications/prompts/list_changed",
        "notifications/resources/list_changed",
    }
)
RELATED_TASK: Final = "io.modelcontextprotocol/related-task"
SUBSCRIPTION_ID: Final = "io.modelcontextprotocol/subscriptionId"


class _Meta(Struct):
    subscription_id: int | str | UnsetType | None = msgspec.field(
        name=SUBSCRIPTION_ID, default=UNSET
    )


class _Marks(Struct):
    progress_token: int | str | UnsetType | None = msgspec.field(
        name="progressToken", default=UNSET
    )
    request_id: int | str | UnsetType | None = msgspec.field(name="requestId", default=UNSET)
    meta: _Meta | UnsetType | None = msgspec.field(name="_meta", default=UNSET)


_UNMARKED: Final = _Marks()
_marks = Lenient(_Marks)
_members = Lenient(dict[str, Raw])
_text = Lenient(str)

_OF_NO_CALL: Final = LIST_CHANGES | {UPDATED, ELICITED}


def progress_of(incoming: Incoming) -> int | None:
    """The call that a ``notifications/progress`` is about; None where the token is not ours."""
    return _ours(_read(incoming.params).progress_token)


def subscription_of(incoming: Incoming) -> int | None:
    """The listen request that a stateless notification belongs to; None where none is named."""
    meta = _read(incoming.params).meta
    return _ours(meta.subscription_id) if isinstance(meta, _Meta) else None


def cancelled_of(incoming: Incoming) -> int | str | None:
    """The request that a ``notifications/cancelled`` calls off, by whoever's id it is."""
    request_id = _read(incoming.params).request_id
    return None if request_id is UNSET else request_id


def task_of(incoming: Incoming) -> str | None:
    """The task that a session's notification is about; None where it names none, and empty where it
    cannot be read which.

    Spec: 2025-11-25 basic/utilities/tasks.
    """
    params = _members_of(incoming.params)
    if incoming.method == TASK_STATUS:
        return _text_of(params.get("taskId"))
    meta = _members_of(params.get("_meta", UNSET))
    return _text_of(_members_of(meta[RELATED_TASK]).get("taskId")) if RELATED_TASK in meta else None


def of_no_call(incoming: Incoming) -> bool:
    """Whether a session's notification says by itself what it is about, and that is no call."""
    return incoming.method in _OF_NO_CALL or task_of(incoming) is not None


def with_progress_token(message: bytes, raw_token: Raw) -> bytes:
    """A notification of progress with the caller's own token."""
    return _with_member(message, ("params", "progressToken"), raw_token)


def with_subscription(message: bytes, raw_id: bytes) -> bytes:
    """A notification of a subscription with the caller's own id of it."""
    return _with_member(message, ("params", "_meta", SUBSCRIPTION_ID), raw_id)


def subscribed(message: bytes, raw_id: bytes) -> bytes:
    """A notification with the caller's subscription id, whether the server named one or not."""
    members = _members.decode(message)
    try:
        params = _members.decode(members.get("params", Raw(b"{}")))
        meta = _members.decode(params.get("_meta", Raw(b"{}")))
    except msgspec.DecodeError:
        return message
    meta[SUBSCRIPTION_ID] = Raw(raw_id)
    params["_meta"] = Raw(encode(meta))
    members["params"] = Raw(encode(params))
    return encode(members)


def with_listen_result(message: bytes, incoming: Incoming, raw_id: bytes) -> bytes:
    """The response to ``subscriptions/listen`` with the caller's own id of it, where it has one."""
    meta = _read(incoming.result).meta
    if not isinstance(meta, _Meta) or meta.subscription_id is UNSET:
        return message
    return _with_member(message, ("result", "_meta", SUBSCRIPTION_ID), raw_id)


def listen_ended(upstream_id: int, raw_id: bytes) -> bytes:
    """The response of a server that ended a listen by ``notifications/cancelled`` alone."""
    return b'{"jsonrpc":"2.0","id":%d,"result":{"resultType":"complete","_meta":{"%b":%b}}}' % (
        upstream_id,
        SUBSCRIPTION_ID.encode(),
        raw_id,
    )


def _ours(mark: int | str | UnsetType | None) -> int | None:
    """The gateway's ids and tokens are integers."""
    return mark if isinstance(mark, int) else None


def _members_of(raw: Raw | UnsetType) -> dict[str, Raw]:
    """Those of an object; none where it is not one."""
    try:
        return {} if raw is UNSET else _members.decode(raw)
    except msgspec.DecodeError:
        return {}


def _text_of(raw: Raw | None) -> str:
    try:
        return "" if raw is None else _text.decode(raw)
    except msgspec.DecodeError:
        return ""


def _read(raw: Raw | UnsetType) -> _Marks:
    if raw is UNSET:
        return _UNMARKED
    try:
        return _marks.decode(raw)
    except msgspec.DecodeError:
        return _UNMARKED


def _with_member(message: bytes | Raw, path: tuple[str, ...], raw: bytes) -> bytes:
    """``message`` with ``raw`` at ``path``, which exists; the values of all other members stay
    byte for byte, and the members in order."""
    members = _members.decode(message)
    name, rest = path[0], path[1:]
    members[name] = Raw(_with_member(members[name], rest, raw) if rest else raw)
    return encode(members)
