"""Key management on the store itself, for who is on its machine.

The requests go to the very handlers of the HTTP API, so that rules, answers and refusals are one.
"""

from __future__ import annotations

import secrets
from typing import Final

import anyio

from open_mcp_gateway.access.authorize import require
from open_mcp_gateway.auth.principal import Permission
from open_mcp_gateway.cli.ways import Answer
from open_mcp_gateway.clock import SystemClock
from open_mcp_gateway.errors import GatewayError, InternalError, StoreUnavailable
from open_mcp_gateway.inbound.admin_tenants import admin_routes
from open_mcp_gateway.inbound.arrival import Arrival
from open_mcp_gateway.inbound.handlers import Handler, OnGateway, OnRequest, Request
from open_mcp_gateway.inbound.routes import Router
from open_mcp_gateway.inbound.whoami import Whoami
from open_mcp_gateway.keystore.store import KeyStore
from open_mcp_gateway.operations.changes import Changer
from open_mcp_gateway.operations.inforce import Configured, KeysInForce
from open_mcp_gateway.operations.keys import KeyAdmin
from open_mcp_gateway.operations.local import LOCAL
from open_mcp_gateway.pipeline.reply import Reply
from open_mcp_gateway.protocol.faults import FAULTS, management_body

_HERE: Final = "127.0.0.1:0"
"""Where requests come from, for keys that may only be used from some networks."""


class StoreWay:
    """A ``Way`` to ``store``, beside which ``configured`` is in force.

    Raises, when it is made:
        StoreUnavailable: the store does not answer.
    """

    advice = ""

    def __init__(self, store: KeyStore, configured: Configured) -> None:
        self._clock = SystemClock()
        self._keys = KeysInForce(configured, self._clock.wall)
        self._keys.replace(store.read())
        self._changer = Changer(store, self._keys, lambda _: None)

    def send(
        self, method: str, target: str, body: bytes | None = None, *, rev: str | None = None
    ) -> Answer:
        """See ``Way``. Raises StoreUnavailable."""
        headers = [] if rev is None else [(b"if-match", b'"%b"' % rev.encode())]
        arrival = Arrival(method.encode("ascii"), target.encode("ascii"), headers, _HERE)
        try:
            reply = anyio.run(self._reply, arrival, body or b"")
        except StoreUnavailable:
            raise
        except GatewayError as error:
            reply = Reply(FAULTS[type(error)].status, management_body(error, arrival.request_id))
        return Answer(reply.status, reply.body)

    async def _reply(self, arrival: Arrival, body: bytes) -> Reply:
        match = self._router().match(arrival.method, arrival.path)
        permission, handler = match.route.permission, match.route.handler
        if isinstance(permission, Permission):
            clearance = require(LOCAL, permission)
            if isinstance(handler, OnGateway):
                return await handler.run(clearance, arrival.query)
            if isinstance(handler, OnRequest):
                request = Request(match.ref or "", arrival.query, body, arrival)
                return await handler.run(clearance, request)
        raise InternalError(f"{match.route.path} is not for the command line")

    def _router(self) -> Router[Handler]:
        admin = KeyAdmin(self._changer, self._clock, secrets.randbits)
        about = Whoami(keyring=lambda: self._keys.keyring, now=self._clock.wall)
        return Router([*admin_routes(admin), *about.routes()])
