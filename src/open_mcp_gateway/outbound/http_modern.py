"""The stateless era over HTTP: every request says anew who asks, in ``_meta`` and in headers.

Spec: 2026-07-28 basic/transports#streamable-http and basic/versioning.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import UNSET

from open_mcp_gateway.errors import GatewayError
from open_mcp_gateway.outbound.answer import Reply, error_code
from open_mcp_gateway.outbound.discovery import denies_modern, is_outage, modern_headers
from open_mcp_gateway.outbound.doubt import Doubt
from open_mcp_gateway.outbound.handshake import (
    DISCOVER,
    HEADER_MISMATCH,
    UNSUPPORTED_VERSION,
    AskAgain,
    judge_discovery,
)
from open_mcp_gateway.outbound.http import NO_ENDPOINT, HttpPeer, version_header
from open_mcp_gateway.outbound.http_call import HttpCall
from open_mcp_gateway.outbound.http_refusals import lose_changed
from open_mcp_gateway.outbound.link import Link
from open_mcp_gateway.outbound.listing import FIRST_LISTING_S, RELIST_AFTER_S, Listing, has_tools
from open_mcp_gateway.outbound.peer import Handshake
from open_mcp_gateway.outbound.relation import (
    CANCELLED,
    LISTEN,
    LOGGED,
    PROGRESS,
    listen_ended,
    progress_of,
    subscribed,
    with_listen_result,
    with_progress_token,
)
from open_mcp_gateway.outbound.stamp import Stamp
from open_mcp_gateway.outbound.tools import CALL, LIST, LIST_CHANGED, ToolSchemas, tool_of
from open_mcp_gateway.protocol.jsonrpc import (
    Call,
    Incoming,
    Params,
    decode_incoming,
    encode_params,
    notification,
    request,
)
from open_mcp_gateway.protocol.mirrored import NOTHING, Fields, headers_for

_OWN_RESULTS: Final = frozenset({LISTEN, LIST})
"""Methods whose results are not passed on as they came."""

_log = logging.getLogger(__name__)


class ModernPeer(HttpPeer):
    """A stateless server."""

    def __init__(self, link: Link, handshake: Handshake, on_misjudged: Callable[[], None]) -> None:
        super().__init__(link, handshake)
        self._on_misjudged = on_misjudged
        self._stamp = Stamp(handshake.version)
        self._version_header = version_header(handshake.version)
        self.tools = ToolSchemas(link.entry.spec.id)
        self._listing: Listing | None = None
        self._first_listing: asyncio.TimerHandle | None = None
        """While it is set, calls of tools wait: what headers they need is not known yet."""
        self._curious: list[Callable[[], None]] = []
        """Who waits for the same, elsewhere."""
        self._relisting: asyncio.TimerHandle | None = None
        self._doubt = Doubt(self._denied, self._judge_anew, self._believe)
        self._refused: dict[HttpCall, tuple[Reply, Incoming | None]] = {}
        """By call the odd refusals that may have come from a server of the other era."""

    def learn_tools(self) -> None:
        """Find out what headers the server's tools need, without keeping anybody waiting for it."""
        if has_tools(self.handshake):
            self._first_listing = self._loop.call_later(FIRST_LISTING_S, self._stop_waiting)
            self._list()

    def mirrored(self, tool: str) -> Fields | None:
        """See ``Peer``."""
        return self.tools.fields(tool)

    def wait_for_tools(self, then: Callable[[], None]) -> bool:
        """See ``Peer``."""
        if self._first_listing is not None:
            self._curious.append(then)
        return self._first_listing is not None

    def word(self, call: HttpCall) -> None:
        asked = call.call
        params = self._stamp.params(asked, call.id)
        call.headers = modern_headers(self._version_header, asked.method, params)
        if self.tools.annotated and asked.method == CALL:
            fields = self.tools.fields(tool_of(params) or "") or NOTHING
            call.headers += headers_for(fields, params.get("arguments"))
        call.body = request(call.id, asked.method, encode_params(params))

    def word_notification(self, method: str, params: Params | None) -> bytes:
        body = notification(method, encode_params(self._stamp.own_params(params)))
        return self.link.post(modern_headers(self._version_header, method, params), body)

    def inquiry(self) -> Call:
        return Call(DISCOVER, None)

    def send(self, call: HttpCall) -> None:
        if self._first_listing is not None and call.call.method == CALL:
            self.hold(call)
            return
        call.request = self.link.post(call.headers, call.body)
        self.link.pool.submit(call)

    def overruled(self, call: HttpCall, reply: Reply, answer: Incoming | None) -> bool:
        if is_outage(reply):
            return False
        # A modern server reads the id before it refuses.
        if reply.status in NO_ENDPOINT if answer is None else answer.id != call.id:
            self._doubt.arise()
            # Where no endpoint took the call nothing was done either, with whatever body.
            if reply.status < 500:
                self._refused[call] = reply, answer
                return True
        return False

    def received(self, call: HttpCall, answer: Incoming, message: bytes) -> None:
        method = call.call.method
        if answer.error is not UNSET:
            if self._mended(call, answer, message):
                return
        elif method in _OWN_RESULTS:
            if method == LISTEN:
                message = with_listen_result(message, answer, call.call.id or b"null")
            else:
                message = self.tools.pass_on(message)
        if self._calls.pop(call.id, None) is not None:
            call.waiter.answered(message, call.id)

    def ended(self) -> None:
        for timer in (self._first_listing, self._relisting):
            if timer is not None:
                timer.cancel()
        self._first_listing = self._relisting = None
        self._refused.clear()

    # What came on a call's stream before its answer

    def unasked(self, call: HttpCall, incoming: Incoming, message: bytes) -> None:
        if incoming.id is not UNSET:
            _log.warning("request of a stateless server dropped", extra=self._facts(incoming))
            return
        if incoming.method == LIST_CHANGED:
            self._tools_changed()
        if incoming.method == PROGRESS:
            self._progressed(call, incoming, message)
        elif call.call.method == LISTEN:
            self._heard(call, incoming, message)
        elif incoming.method != LOGGED or call.call.log_level is not None:
            call.waiter.related(message, incoming)

    def _progressed(self, call: HttpCall, incoming: Incoming, message: bytes) -> None:
        token = call.call.progress_token
        if token is not None and progress_of(incoming) == call.id:
            own = with_progress_token(message, token)
            call.waiter.related(own, decode_incoming(own))

    def _heard(self, call: HttpCall, incoming: Incoming, message: bytes) -> None:
        """On the stream of a subscription, whose id there is the caller's own."""
        raw_id = call.call.id or b"null"
        if incoming.method == CANCELLED:  # one way for a server to end it
            self.link.pool.settled(call)
            self.answered(call, listen_ended(call.id, raw_id))
        else:
            own = subscribed(message, raw_id)
            call.waiter.related(own, decode_incoming(own))

    def _facts(self, incoming: Incoming) -> dict[str, object]:
        return {"server": self.link.entry.spec.id, "method": str(incoming.method)[:100]}

    # Refusals that are between the gateway and the server, and no business of the caller

    def _mended(self, call: HttpCall, answer: Incoming, message: bytes) -> bool:
        """See to an error response that is about how the gateway worded the call.

        Nothing was done then, so the call may be sent again, worded anew.
        """
        code = error_code(answer)
        if code not in (HEADER_MISMATCH, UNSUPPORTED_VERSION):
            return False
        if call.repaired:
            text = "does not accept the request as the gateway words it: "
            self.fail(call, self.link.broken(text + _quoted(answer)))
            return True
        call.repaired = True
        if code == UNSUPPORTED_VERSION:
            self._change_version(call, message)
        elif call.call.method == CALL:
            self._learn_headers(call)
        else:
            self.word(call)
            self.again(call)
        return True

    def _change_version(self, call: HttpCall, message: bytes) -> None:
        judged = judge_discovery(message)
        if not isinstance(judged, AskAgain):
            self._doubt.arise()
            self.fail(call, self.link.broken("refused the protocol version agreed on"))
            return
        self.handshake = msgspec.structs.replace(self.handshake, version=judged.version)
        self._stamp = Stamp(judged.version)
        self._version_header = version_header(judged.version)
        self.word(call)
        self.again(call)

    # Whether it still is what it was when it was reached

    async def _denied(self) -> bool:
        return await denies_modern(self.link, self.handshake.version)

    def _judge_anew(self) -> None:
        self._on_misjudged()
        lose_changed(self, tuple(self._refused))

    def _believe(self) -> None:
        refused, self._refused = self._refused, {}
        for call, (reply, answer) in refused.items():
            self.concluded(call, reply, answer)

    async def goodbye(self, *, lost: bool) -> None:  # noqa: ARG002 - for the other era
        await self._doubt.dispel()

    def _learn_headers(self, call: HttpCall) -> None:
        try:
            self.hold(call)
        except GatewayError as error:
            self.fail(call, error)
        else:
            self._list()

    # The tools

    def _tools_changed(self) -> None:
        if self._relisting is None:
            self._relisting = self._loop.call_later(RELIST_AFTER_S, self._relist)

    def _relist(self) -> None:
        self._relisting = None
        if self._listing is None:
            self._list()
        else:  # that may have seen what was before the change
            self._tools_changed()

    def _list(self) -> None:
        """Go through all pages once more, unless that is under way."""
        if self._relisting is not None:
            self._relisting.cancel()
            self._relisting = None
        if self._listing is None:
            self._listing = Listing(self.tools, self.start, self._listed)
            self._listing.ask(None)

    def _listed(self) -> None:
        """The listing is over, whatever came of it."""
        self._listing = None
        self._stop_waiting()

    def _stop_waiting(self) -> None:
        if self._first_listing is not None:
            self._first_listing.cancel()
            self._first_listing = None
        for call in self._held:
            self.word(call)
        self.release()
        curious, self._curious = self._curious, []
        for then in curious:
            self._loop.call_soon(then)


def _quoted(answer: Incoming) -> str:
    return bytes(answer.error if answer.error is not UNSET else b"")[:300].decode(errors="replace")
