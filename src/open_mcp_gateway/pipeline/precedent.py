"""The last stateless request of a client that repeats itself, as the measure of its next ones. Hot.

Clients send the same head, ``_meta`` and method with every call, and what is checked of a request
before its arguments count is checked of these. So of two requests under one head and one permit
that are alike in them, what was found of the first holds for the second.
"""

from __future__ import annotations

from typing import Final

from msgspec import UNSET, Raw, structs

from open_mcp_gateway.pipeline.handles import same_for_all
from open_mcp_gateway.pipeline.states import UNSTATED
from open_mcp_gateway.protocol.headers import NAMED_BY
from open_mcp_gateway.protocol.jsonrpc import Call, Params
from open_mcp_gateway.protocol.messages import JSONRPC, Message, checked_id

MAX_BYTES: Final = 1024
"""Of ``_meta`` and target that are kept; requests with more are checked one by one."""


class Precedent:
    """A request that has passed, for all that are like it but for their ids and arguments."""

    __slots__ = ("_checked", "_member", "_meta", "_method", "_names", "_rest", "_target")

    def __init__(self, method: Raw, params: Params, checked: Call) -> None:
        """``method`` and ``params`` as they came, ``checked`` as they go on."""
        member = NAMED_BY.get(checked.method)
        # Without its params, which would keep its whole body.
        self._checked = structs.replace(checked, params=None)
        self._method = _own(method)
        self._names = list(params)
        self._meta = _own(params["_meta"])
        self._rest = (checked.params or {}).get("_meta")
        self._member = member if member in params else None
        """What names the target: a tool, a prompt, a resource."""

        self._target = Raw(b"") if self._member is None else _own(params[self._member])

    @property
    def size(self) -> int:
        """In bytes, of what can be of any length."""
        return len(self._meta) + len(self._target)

    def followed_by(self, message: Message) -> Call | None:
        """``message`` as it goes on if it is like this one, with its ``params`` taken over; None if
        it has to be checked.

        Raises:
            InvalidRequest: its id is none.
        """
        params, raw_id, checked = message.params, message.id, self._checked
        if (
            type(params) is not dict
            or raw_id is UNSET
            or params.get("_meta") != self._meta
            or message.method != self._method
            or message.jsonrpc != JSONRPC
            or [*params] != self._names
            or (self._member is not None and params[self._member] != self._target)
        ):
            return None
        if self._rest is None:
            del params["_meta"]
        else:
            params["_meta"] = self._rest
        return Call(
            checked.method,
            checked_id(raw_id),
            params,
            checked.progress_token,
            checked.capabilities,
            checked.log_level,
        )


def precedent(message: Message, checked: Call) -> Precedent | None:
    """What ``message``, which passed as ``checked``, is for those like it; None if for these it
    depends on more, such as whose the cursor is that they name."""
    method, params = message.method, message.params
    if method is UNSET or type(params) is not dict or "_meta" not in params:
        return None
    if not UNSTATED.issuperset(params) or not same_for_all(checked):
        return None
    found = Precedent(method, params, checked)
    return found if found.size <= MAX_BYTES else None


def _own(raw: Raw) -> Raw:
    """A copy, since it would keep the whole message otherwise."""
    return Raw(bytes(raw))
