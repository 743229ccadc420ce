"""What a server sends of itself, and to whom it goes.

Spec: 2025-11-25 basic/utilities/progress, basic/utilities/cancellation, basic/utilities/ping;
2026-07-28 basic/utilities/subscriptions.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Protocol

from msgspec import UNSET

from open_mcp_gateway.outbound.given_up import GivenUp
from open_mcp_gateway.outbound.peer import Audience, Waiter
from open_mcp_gateway.outbound.question import OpenQuestions
from open_mcp_gateway.outbound.relation import (
    CANCELLED,
    LISTEN,
    LOGGED,
    PROGRESS,
    cancelled_of,
    listen_ended,
    of_no_call,
    progress_of,
    subscription_of,
    task_of,
    with_listen_result,
    with_progress_token,
    with_subscription,
)
from open_mcp_gateway.outbound.tools import LIST_CHANGED
from open_mcp_gateway.protocol.faults import METHOD_NOT_FOUND
from open_mcp_gateway.protocol.jsonrpc import (
    Call,
    Incoming,
    decode_incoming,
    encode,
    error_response,
    response,
)

_log = logging.getLogger(__name__)


class Entry(Protocol):
    """A call in flight."""

    @property
    def id(self) -> int:
        """The gateway's own id for it, under which the server knows it."""

    @property
    def call(self) -> Call: ...

    @property
    def waiter(self) -> Waiter: ...


class Unasked:
    """Takes notifications and requests of one server to the call, or else the audience, they are
    meant for. ``send`` takes answers to the server's requests, ``forget`` calls that are over."""

    __slots__ = (
        "_forget",
        "_inflight",
        "_name",
        "_send",
        "audience",
        "given_up",
        "modern",
        "questions",
        "shared",
        "tools_changed",
    )

    def __init__(
        self,
        name: str,
        inflight: Mapping[int, Entry],
        *,
        send: Callable[[bytes], None],
        forget: Callable[[int], None],
    ) -> None:
        self._name = name
        self._inflight = inflight
        self._send = send
        self._forget = forget
        self.modern = False
        self.shared = False
        """Several callers have a session in common."""

        self.audience: Audience | None = None
        self.questions = OpenQuestions(send)
        self.given_up = GivenUp()
        self.tools_changed: Callable[[], None] = _nobody_minds
        """Called when a stateless server says that it has other tools, to whomever."""

    def notified(self, incoming: Incoming, message: bytes) -> None:
        """A notification that came without saying which call it belongs to but by its contents."""
        if incoming.method == PROGRESS:
            self._progressed(incoming, message)
        elif self.modern:
            self._notified_stateless(incoming, message)
        elif self.audience is None:
            return
        elif incoming.method != CANCELLED or self.questions.withdraw(cancelled_of(incoming)):
            self.audience.notified(message, incoming)

    def came_with(self, entry: Entry, incoming: Incoming, message: bytes) -> None:
        """On a call's own stream, in a session: about that call, but for what says by itself what
        it is about. A server takes all who share the session for one client."""
        if incoming.id is UNSET:
            named = incoming.method in (PROGRESS, CANCELLED)
            if named or (self.shared and of_no_call(incoming)):
                self.notified(incoming, message)
            else:
                entry.waiter.related(message, incoming)
        elif incoming.method == "ping":
            self.asked(incoming)
        else:
            question = self.questions.admit(incoming)
            if question is not None:
                entry.waiter.asked(question)

    def asked(self, incoming: Incoming, *, room: bool = True) -> None:
        """A request. Without ``room`` for answers the gateway gives none of its own."""
        if self.modern:
            self._drop("request of a stateless server")
        elif incoming.method == "ping" or self.audience is None:
            if room:
                self._send(_own_answer(incoming))
        else:
            question = self.questions.admit(incoming)
            if question is not None:
                self.audience.asked(question)

    def withdrawn(self, entry: Entry) -> None:
        """A call has left the books, though the server may still be at work on it."""
        if not self.modern or _may_be_told_of(entry.call):
            self.given_up.add(entry.id, entry.waiter.whose)

    def stray(self, incoming: Incoming) -> None:
        """An answer came to nothing that is in flight."""
        self.given_up.answered(incoming.id)
        self._drop("response to no call in flight")

    def _progressed(self, incoming: Incoming, message: bytes) -> None:
        entry = self._entry_of(progress_of(incoming))
        if entry is not None and entry.call.progress_token is not None:
            _relate(entry, with_progress_token(message, entry.call.progress_token))
        elif entry is None and self.audience is not None and self._names_task(incoming):
            self.audience.notified(message, incoming)  # tasks outlive the calls that made them
        else:
            self._drop("progress of no call in flight")

    def _names_task(self, incoming: Incoming) -> bool:
        """Only sessions have tasks that are told of without being asked."""
        return not self.modern and task_of(incoming) is not None

    def _notified_stateless(self, incoming: Incoming, message: bytes) -> None:
        if incoming.method == LIST_CHANGED:
            self.tools_changed()
        listen = self._listen_of(subscription_of(incoming))
        if listen is not None:
            _relate(listen, with_subscription(message, raw_id_of(listen)))
        elif incoming.method == CANCELLED:
            self._listen_cancelled(cancelled_of(incoming))
        elif incoming.method == LOGGED and task_of(incoming) is None:
            self._logged(incoming, message)
        else:
            self._drop("notification to nobody")

    def _listen_cancelled(self, request_id: int | str | None) -> None:
        listen = self._listen_of(request_id if isinstance(request_id, int) else None)
        if listen is not None:
            self._forget(listen.id)
            listen.waiter.answered(listen_ended(listen.id, raw_id_of(listen)), listen.id)

    def _logged(self, incoming: Incoming, message: bytes) -> None:
        """Log messages do not say which call they belong to: where it could be several they are
        dropped, for they may hold what only one of the callers may see."""
        meant = [entry for entry in self._inflight.values() if _may_be_told_of(entry.call)]
        if len(meant) == 1 and meant[0].call.log_level is not None:
            waiter = meant[0].waiter
            if not self.given_up.by_others(waiter.whose):
                waiter.related(message, incoming)
                return
        self._drop("log message to nobody in particular")

    def _entry_of(self, upstream_id: int | None) -> Entry | None:
        return None if upstream_id is None else self._inflight.get(upstream_id)

    def _listen_of(self, upstream_id: int | None) -> Entry | None:
        entry = self._entry_of(upstream_id)
        return entry if entry is not None and entry.call.method == LISTEN else None

    def _drop(self, what: str) -> None:
        _log.debug("%s dropped", what, extra={"server": self._name})


def _nobody_minds() -> None: ...


def _may_be_told_of(call: Call) -> bool:
    """Whether a log message may be about this call, even if it asked for none: servers do not all
    keep to that. The gateway's own requests are nobody's, and a subscription only waits."""
    if call.log_level is not None:
        return True
    return call.id is not None and call.method != LISTEN


def raw_id_of(entry: Entry) -> bytes:
    """The caller's own id of a request."""
    return entry.call.id or b"null"


def own_result(entry: Entry, message: bytes, incoming: Incoming) -> bytes:
    """The response to a call as its waiter gets it."""
    if entry.call.method != LISTEN or incoming.result is UNSET:
        return message
    return with_listen_result(message, incoming, raw_id_of(entry))


def _relate(entry: Entry, message: bytes) -> None:
    entry.waiter.related(message, decode_incoming(message))


def _own_answer(incoming: Incoming) -> bytes:
    """What the gateway itself says to a server's request: to ``ping`` that it is there, to all else
    that it has none of the client capabilities which that would need."""
    raw_id = encode(incoming.id)
    if incoming.method == "ping":
        return response(raw_id, b"{}")
    return error_response(raw_id, METHOD_NOT_FOUND, "Method not found")
