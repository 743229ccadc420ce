"""Bytes of one connection become requests: where each begins and ends, and how large it may be.

Parsing is httptools'. What is decided here is what to do with each finding: let in, refuse at the
head, read a body away, stop reading.
"""

from __future__ import annotations

import logging
from collections.abc import Callable

import httptools

from open_mcp_gateway.errors import GatewayError, HeadTooLarge, MalformedMessage
from open_mcp_gateway.inbound.arrival import MAX_HEAD_BYTES, UNKNOWN_SIZE, Arrival
from open_mcp_gateway.inbound.dispatch import Dispatcher
from open_mcp_gateway.inbound.known import Known
from open_mcp_gateway.inbound.turn import Line, Turn
from open_mcp_gateway.protocol.heads import KnownHeads

log = logging.getLogger(__name__)

AHEAD_BYTES = 64 * 1024
"""Body of a pipelined request that is read before its turn has come."""

DISCARD_BYTES = 64 * 1024
"""Body of a refused request that is read away to keep the connection; for a longer one the
connection ends."""


class Intake:
    """Feeds a parser and takes its callbacks."""

    def __init__(self, line: Line, dispatcher: Dispatcher, now: Callable[[], float]) -> None:
        self.line = line
        self.dispatcher = dispatcher
        self.now = now
        self.peer_name = ""
        self.parser = httptools.HttpRequestParser(self)
        self.url = b""
        self.head: list[tuple[bytes, bytes]] = []
        self.declared = b""
        """Its ``Content-Length``, kept apart: the rest is often the same as the last time."""

        self._known: Known | None = None
        self._covered = False
        """The request that is arriving was let in by what is known."""

        self._heads: KnownHeads[tuple[Known, bytes]] = KnownHeads()
        self.reading: Turn | None = None
        """The request whose body is arriving."""

        self.closing = False
        """No further request is taken from this connection."""

        self.draining = False
        """The next request is the last."""

        self.begun = False
        """Part of a request has arrived."""

        self.begun_s = now()
        """When the last one began."""

        self._in_head = False
        self._ignoring_upgrade = False
        self.fed_bytes = 0
        """What the parser was given last; 0: nothing has come yet."""

        self._advanced = False
        """It found a beginning, an end or a piece of a body in that."""

        self._ended = 0
        """How many requests ended in that."""
        self._piece_bytes = 0
        """What it was given when it last found one."""

        self._stalled_bytes = 0
        """What it was given since then: the rest of a head, or of trailers."""

    def feed(self, data: bytes) -> None:
        """More bytes. Raises HttpParserCallbackError if one of the callbacks has a defect."""
        if self.closing and self.reading is None:
            return
        between = not self.begun
        if between and self._heads and self._repeated(data):
            return
        self.fed_bytes = len(data)
        self._advanced = False
        self._ended = 0
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as stop:
            self._after_upgrade(data[stop.args[0] :])
            return
        except httptools.HttpParserCallbackError:
            raise
        except httptools.HttpParserError:
            self._refuse_unreadable(MalformedMessage("this is not an HTTP/1.1 request"))
            return
        if self._advanced:
            self._piece_bytes = self.fed_bytes
            self._stalled_bytes = 0
            known, declared = self._known, self.declared
            if between and self._ended == 1 and not self.begun and known and self._covered:
                self._heads.keep(data, int(declared or 0), (known, declared))
            return
        self._stalled_bytes += self.fed_bytes
        if self._stalled_bytes > MAX_HEAD_BYTES:
            self._refuse_unreadable(HeadTooLarge(f"headers over {MAX_HEAD_BYTES} bytes"))

    def close(self) -> None:
        """Nothing more comes. Lets go of what refers back here, so that no garbage is left."""
        self.closing = True
        self.reading = self._known = None
        self._heads.forget()
        del self.parser, self.line

    # ── what needs no parser ─────────────────────────────────────────────────────────────────────

    def _repeated(self, data: bytes) -> bool:
        """Take ``data`` without the parser if it is a whole request with a known head."""
        found = self._heads.find(data)
        if found is None or self.draining or self.closing:
            return False
        (known, declared), body = found
        if known.policies != self.dispatcher.policies:
            return False
        turn = Turn(self.line, known.admitted.arrival.again(declared), keep_alive=True)
        try:
            turn.admitted = self.dispatcher.readmit(known.admitted, turn.arrival)
        except GatewayError:
            return False
        self.begun_s = self.now()
        turn.size = len(body)
        turn.body = body
        self.line.enqueue(turn)
        return True

    # ── what the parser finds ────────────────────────────────────────────────────────────────────

    def on_message_begin(self) -> None:
        self.url = b""
        self.head = []
        self.declared = b""
        self.begun = self._in_head = self._advanced = True
        self._covered = False
        self.begun_s = self.now()

    def on_url(self, url: bytes) -> None:
        self.url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        # Fields after the body (trailers) come through here too; nothing may be decided by them.
        if not self._in_head:
            return
        # The parser leaves white space at the end, no part of a value (RFC 9110 section 5.5).
        name, value = name.lower(), value.rstrip(b" \t")
        if name == b"content-length":
            self.declared = value
        else:
            self.head.append((name, value))

    def on_headers_complete(self) -> None:
        self._in_head = False
        if self.closing:
            return
        parser = self.parser
        method, version = parser.get_method(), parser.get_http_version()
        connects = method == b"CONNECT"
        if parser.should_upgrade() and not connects:
            self._ignoring_upgrade = True
            return
        if self._same_again(method, version):
            return
        arrival = Arrival(method, self.url, self.head, self.peer_name)
        arrival.declared = self.declared
        keep_alive = version == "1.1" and parser.should_keep_alive()
        keep_alive = keep_alive and not connects and not self.draining
        turn = self.reading = Turn(self.line, arrival, keep_alive=keep_alive)
        turn.chunked = version == "1.1"
        try:
            if self._piece_bytes + self._stalled_bytes + self.fed_bytes > MAX_HEAD_BYTES:
                arrival.check_size()  # exactly, now that it could be over
            admitted = turn.admitted = self.dispatcher.admit(arrival, http_version=version)
        except GatewayError as error:
            self._refuse(turn, error)
            return
        if admitted.ready is not None:
            self._enqueue_without_body(turn)
        elif admitted.expects_continue:
            self.line.invite()
        elif keep_alive and admitted.most_bytes == UNKNOWN_SIZE:
            policies = self.dispatcher.policies
            self._known = Known(method, self.url, self.head, admitted, policies)
            self._covered = True

    def _same_again(self, method: bytes, version: str) -> bool:
        """Let a request in by what was decided of the one before it, if their heads are the same.

        A client sends the same headers with each request; what is decided of them depends on them
        and on the policies in force, so equal ones need not be decided again.
        """
        known, dispatcher = self._known, self.dispatcher
        if (
            known is None
            or self.draining
            or version != "1.1"
            or not known.covers(method, self.url, self.head, dispatcher.policies)
            or not self.parser.should_keep_alive()
        ):
            return False
        arrival = known.admitted.arrival.again(self.declared)
        turn = self.reading = Turn(self.line, arrival, keep_alive=True)
        try:
            turn.admitted = dispatcher.readmit(known.admitted, arrival)
            self._covered = True
        except GatewayError as error:
            self._refuse(turn, error)
        return True

    def on_body(self, body: bytes) -> None:
        self._advanced = True
        turn = self.reading
        if turn is None:
            return
        turn.size += len(body)
        admitted = turn.admitted
        if turn.queued or admitted is None:
            return
        turn.take(body)
        if turn.size > self.dispatcher.max_body_bytes or turn.size > admitted.most_bytes:
            self._refuse(turn, self.dispatcher.too_large(admitted.most_bytes))
        elif turn.size > AHEAD_BYTES:
            self.line.large_body()

    def on_message_complete(self) -> None:
        self._advanced = True
        self._ended += 1
        self.begun = False
        turn, self.reading = self.reading, None
        if turn is None:
            return
        if not turn.keep_alive:
            self.closing = True  # RFC 9112 section 9.6: what follows is not processed
        if turn.queued:
            self.line.rest_read()
        else:
            self.line.enqueue(turn)

    def _after_upgrade(self, rest: bytes) -> None:
        """Read on after a head that asked to change protocols, as if it had not asked.

        Clients do so on any request (Java's HttpClient, curl --http2), with a body or without, and
        a server is free to stay with HTTP/1.1 (RFC 9110 section 7.8); the parser is not, so it gets
        the head again without the wish. After CONNECT there is nothing to read.
        """
        if not self._ignoring_upgrade:
            return
        self._ignoring_upgrade = False
        old = self.parser
        target = old.get_method() + b" " + self.url
        lines = [b"%b HTTP/%b" % (target, old.get_http_version().encode("ascii"))]
        lines += [name + b": " + value for name, value in self.head if name != b"upgrade"]
        if self.declared:
            lines.append(b"content-length: " + self.declared)
        self.parser = httptools.HttpRequestParser(self)
        self.feed(b"\r\n".join((*lines, b"", rest)))

    # ── what is not read to its end ──────────────────────────────────────────────────────────────

    def _refuse(self, turn: Turn, error: GatewayError) -> None:
        turn.refusal = error
        if isinstance(error, HeadTooLarge):
            turn.keep_alive = False
        self._enqueue_without_body(turn)

    def _enqueue_without_body(self, turn: Turn) -> None:
        """Answer ``turn`` in its order without waiting for the rest of its body."""
        turn.body = b""
        arrival = turn.arrival
        # Who was not invited to send the body may send it or may not; nobody can tell which.
        if arrival.pending_bytes() > DISCARD_BYTES or arrival.header(b"expect") is not None:
            turn.keep_alive = False
        self.line.enqueue(turn)

    def _refuse_unreadable(self, error: GatewayError) -> None:
        """The request that is arriving, or that there should be, cannot be read to its end."""
        if self.closing:
            return
        self.closing = True
        turn, self.reading = self.reading, None
        if turn is None:
            arrival = Arrival(b"-", b"", [], self.peer_name)
            turn = Turn(self.line, arrival, keep_alive=False)
        turn.keep_alive = False
        turn.unread = True
        if not turn.queued:
            turn.refusal = error
            self.line.enqueue(turn)
