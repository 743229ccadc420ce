"""The envelope's messages: one answer each, no session, nothing before the answer."""

from __future__ import annotations

from collections.abc import Callable

from open_mcp_gateway.access.authorize import Permits
from open_mcp_gateway.access.permit import Permit
from open_mcp_gateway.auth.principal import Permission, Principal
from open_mcp_gateway.catalog.model import Snapshot
from open_mcp_gateway.errors import GatewayError
from open_mcp_gateway.outbound.peer import ANY_MANNER
from open_mcp_gateway.pipeline import narrowing, notices
from open_mcp_gateway.pipeline.errand import Errand, Means
from open_mcp_gateway.pipeline.exchange import Exchange
from open_mcp_gateway.pipeline.opening import initialize_result
from open_mcp_gateway.pipeline.remembered import REMEMBERED, without_session
from open_mcp_gateway.pipeline.reply import ACCEPTED, Reply, Responder, failed, rpc_failure
from open_mcp_gateway.pipeline.sink import ReplySink
from open_mcp_gateway.pipeline.states import refuse_states
from open_mcp_gateway.protocol.eras import Era
from open_mcp_gateway.protocol.jsonrpc import Call, response
from open_mcp_gateway.protocol.meta import without_connection_owned
from open_mcp_gateway.supervisor.lease import Lease


class Forwarder:
    """Sends envelope calls to servers; ``snapshot`` is replaced by a reload."""

    def __init__(self, means: Means, snapshot: Snapshot) -> None:
        self.means = means
        self.edition = 0
        """Another with each catalog."""

        self.snapshot = snapshot
        self._running: set[Exchange | _Brief] = set()

    @property
    def snapshot(self) -> Snapshot:
        """The catalog in force."""
        return self._snapshot

    @snapshot.setter
    def snapshot(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self.permits = Permits(snapshot, Permission.MCP_CALL)
        self.edition += 1

    def end_if(self, loss: Callable[[Permit], GatewayError | None]) -> None:
        """End what is in flight where ``loss`` says why its caller may not hear of it any more."""
        for errand in tuple(self._running):
            error = loss(errand.permit)
            if error is not None:
                errand.end(error)

    def forward(
        self,
        principal: Principal,
        server_id: str,
        call: Call,
        *,
        request_id: str,
        responder: Responder,
    ) -> Errand | None:
        """Send ``call`` on its way; ``responder`` hears of the outcome, maybe before this returns.

        Returns what to abandon if the caller leaves while the outcome is open.
        """
        try:
            permit = self.permits.get(principal, server_id)
            if call.method in REMEMBERED:
                raise without_session(call.method, server_id)
            if call.params is not None:
                refuse_states(call.params)
                if "_meta" in call.params:
                    call = Call(call.method, call.id, without_connection_owned(call.params))
            self.means.handles.check(principal.key_id, permit.entry.spec.id, call)
            errand = self._errand(permit, call, request_id, responder)
        except Exception as error:  # noqa: BLE001 - a boundary: a request without id was given one
            responder.respond(failed(error, call.id, request_id))
            return None
        if call.id is None and notices.ends_here(call.method, shared=True):
            responder.respond(ACCEPTED)
            return None
        self._running.add(errand)
        errand.start()
        return None if errand.over else errand

    def _errand(
        self, permit: Permit, call: Call, request_id: str, responder: Responder
    ) -> Exchange | _Brief:
        if call.id is None or call.method == "initialize":
            given = self.means, permit, call, responder
            return _Brief(*given, request_id=request_id, running=self._running)
        kind = _Ping if call.method == "ping" else Exchange
        sink = ReplySink(responder, request_id)
        return kind(
            self.means,
            permit,
            call,
            sink,
            manner=ANY_MANNER,
            request_id=request_id,
            books=self._running,
        )


class _Ping(Exchange):
    """Stateless servers do not know ``ping`` any more; callers of the session era do."""

    __slots__ = ()

    def run(self, lease: Lease) -> bool:
        if lease.peer.handshake.era is not Era.MODERN or self.call.id is None:
            return super().run(lease)
        self._books.discard(self)
        if not self.over:
            self.over = True
            self.sink.answer(response(self.call.id, b"{}"))
        return True


class _Brief(Errand):
    """What needs a running server but no answer of it: ``initialize``, and notifications."""

    __slots__ = ("_call", "_responder", "_running")

    def __init__(
        self,
        means: Means,
        permit: Permit,
        call: Call,
        responder: Responder,
        *,
        request_id: str,
        running: set[Exchange | _Brief],
    ) -> None:
        narrowing.check(permit, call)
        super().__init__(means, permit, ANY_MANNER, request_id)
        self._call = call
        self._responder = responder
        self._running = running

    def run(self, lease: Lease) -> bool:
        call = self._call
        if call.id is None:
            lease.peer.notify(self.permit, call)
            reply = ACCEPTED
        else:
            result = initialize_result(lease.peer.handshake, call.params)
            reply = Reply(200, response(call.id, result))
        holder = self.permit.principal.holder
        lease.began(holder)
        lease.ended(holder, failed=False)
        self._running.discard(self)
        if not self.over:
            self.over = True
            self._responder.respond(reply)
        return True

    def end(self, error: GatewayError) -> None:
        """Stop waiting, and say why."""
        self.abandon()
        self.fail(error)

    def abandon(self) -> None:
        self._running.discard(self)
        super().abandon()

    def fail(self, error: GatewayError) -> None:
        self._running.discard(self)
        error.request_id = self._call.id
        self._responder.respond(rpc_failure(error, self.request_id))
