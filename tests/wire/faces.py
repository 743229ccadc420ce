"""One gateway in a thread, behind each of the HTTP classes that can carry it, with its inside open.

``hot`` is what the program uses; the others are uvicorn's own classes around the same dispatcher.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import json
import socket
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

import anyio.from_thread
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from open_mcp_gateway import serve
from open_mcp_gateway.access.authorize import authorize
from open_mcp_gateway.access.policy import platform_admin
from open_mcp_gateway.app import Gateway, running
from open_mcp_gateway.auth.apikeys import digest_of
from open_mcp_gateway.auth.principal import PLATFORM, Permission, Principal
from open_mcp_gateway.auth.scope import EVERYTHING, UNNARROWED
from open_mcp_gateway.catalog.model import CatalogEntry, LocalProcess, ServerSpec, Snapshot
from open_mcp_gateway.clock import SystemClock
from open_mcp_gateway.config.model import Config, ListenAddress
from open_mcp_gateway.inbound.hot import Connection
from open_mcp_gateway.inbound.management import ReloadReport
from open_mcp_gateway.keystore.open import create_store
from open_mcp_gateway.keystore.store import KeyStore
from open_mcp_gateway.names import KeyId, ServerId
from open_mcp_gateway.outbound.settings import OutboundSettings
from open_mcp_gateway.supervisor.instance import Instance
from tests.rawhttp import Answer, Wire, connect, request, send

KEY: Final = b"test-key-faces-7f3a9c"
AUTH: Final = (b"X-API-Key", KEY)
JSON: Final = (b"Content-Type", b"application/json")
STARTS_IN_S: Final = 60.0

PROTOCOLS: Final[dict[str, tuple[type | None, bool]]] = {
    "hot": (None, True),
    "hot-asyncio": (None, False),
    "asgi-httptools": (HttpToolsProtocol, True),
    "asgi-h11": (H11Protocol, True),
}
"""The class in place of ``inbound/hot.py``, and whether uvloop is the event loop."""

ALL: Final = tuple(PROTOCOLS)
HOT: Final = ("hot", "hot-asyncio")

Result = TypeVar("Result")

_STDIO_SERVER: Final = Path(__file__).parents[1] / "servers" / "stdio_server.py"


def server(server_id: str, mode: str, **settings: Any) -> ServerSpec:
    """A catalog entry for one of the modes of ``stdio_server.py``."""
    return local(server_id, str(_STDIO_SERVER), mode, **settings)


def local(server_id: str, *arguments: str, **settings: Any) -> ServerSpec:
    """A catalog entry for a program in plain Python."""
    runtime = LocalProcess(command=sys.executable, args=("-S", *arguments))
    return ServerSpec(id=ServerId(server_id), runtime=runtime, display_name=server_id, **settings)


def call(
    server_id: str,
    *headers: tuple[bytes, bytes],
    method: str = "tools/call",
    message_id: object = 1,
    params: object = None,
) -> bytes:
    """A whole request to ``POST /mcp`` with the key."""
    message = {"server_id": server_id, "jsonrpc": "2.0", "id": message_id, "method": method}
    if params is not None:
        message["params"] = params
    body = json.dumps(message).encode()
    return request(b"/mcp", AUTH, JSON, *headers, method=b"POST", body=body)


def echo(text: str, *, message_id: object = 1, server_id: str = "echo") -> bytes:
    """A call whose answer repeats ``text``."""
    params = {"name": "echo", "arguments": {"text": text}}
    return call(server_id, message_id=message_id, params=params)


def echoed(answer: Answer) -> tuple[object, str]:
    """The id and text of the answer to ``echo``."""
    assert answer.status == 200, answer
    message = json.loads(answer.body)
    return message["id"], message["result"]["content"][0]["text"]


@dataclass
class Face:
    """A running gateway and the way to it."""

    name: str
    host: str
    port: int
    gateway: Gateway
    server: serve._Server
    portal: anyio.from_thread.BlockingPortal

    @property
    def is_hot(self) -> bool:
        return self.name in HOT

    @contextlib.contextmanager
    def connect(self) -> Iterator[Wire]:
        """A connection that sends each packet at once, whatever is on its way."""
        with connect(self.host, self.port) as wire:
            wire.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            yield wire

    def ask(self, raw: bytes, method: bytes = b"POST") -> Answer:
        """The first answer to ``raw`` on a connection of its own."""
        return send(self.host, self.port, raw, method=method)

    def start(self, server_id: str) -> None:
        """Have a server running, however long that takes, before calls are given little time."""
        raw = request(f"/servers/{server_id}/start".encode(), AUTH, method=b"POST")
        assert self.ask(raw).status == 200

    def inside(self, function: Callable[[], Result]) -> Result:
        """What ``function`` returns when the gateway's own thread calls it."""
        return self.portal.call(function)

    def connections(self) -> list[Connection]:
        """The hot class's open connections."""
        found = self.inside(lambda: list(self.server.server_state.connections))
        return [one for one in found if isinstance(one, Connection)]

    def instance(self, server_id: str) -> Instance | None:
        """What runs of a server."""
        entry = self.gateway.snapshot.entries[ServerId(server_id)]
        permit = authorize(_SOMEBODY, Permission.MCP_CALL, entry)
        found = self.inside(lambda: self.gateway.fleet.lease(permit))
        return found if isinstance(found, Instance) else None

    def used(self, server_id: str) -> tuple[int, int]:
        """Calls that began and have not ended, as the leases and as the peers of a server count
        them, over all its instances."""
        return self.inside(partial(self._used, server_id))

    def _used(self, server_id: str) -> tuple[int, int]:
        keeper = self.gateway.fleet._keepers.get(ServerId(server_id))
        found = [] if keeper is None else [one for one in keeper._site.instances if one.is_open]
        return sum(one.active for one in found), sum(one.peer.inflight for one in found)

    def at_rest(self) -> None:
        """Waits until no call is in flight: what began has ended, for every server."""
        for server_id in self.gateway.snapshot.entries:
            self.until(partial(self._is_at_rest, server_id))

    def _is_at_rest(self, server_id: str) -> bool:
        return self.used(server_id) == (0, 0)

    def seen(self, server_id: str) -> list[dict[str, Any]]:
        """The notifications that a server of ``stdio_server.py`` was sent."""
        answer = self.ask(call(server_id, method="test/seen"))
        found: list[dict[str, Any]] = json.loads(answer.body)["result"]["seen"]
        return found

    def until(self, condition: Callable[[], bool], within_s: float = 60.0) -> None:
        """Wait for what no event tells of: another thread's state."""
        ends = time.perf_counter() + within_s
        while not condition():
            assert time.perf_counter() < ends, "did not come true"
            threading.Event().wait(0.005)


_SOMEBODY: Final = Principal(
    key_id=KeyId("inside"),
    role="admin",
    permissions=frozenset(Permission),
    namespaces=EVERYTHING,
    holder=PLATFORM,
    scope=UNNARROWED,
)


async def _no_reload() -> ReloadReport:
    raise AssertionError("nothing is reloaded here")


@contextlib.contextmanager
def face(
    name: str,
    *servers: ServerSpec,
    store: KeyStore | None = None,
    reload: Callable[[], Awaitable[ReloadReport]] = _no_reload,
    **settings: Any,
) -> Iterator[Face]:
    """A gateway with ``KEY`` and these servers; ``settings`` are members of ``Config``."""
    protocol, uvloop = PROTOCOLS[name]
    config = Config(
        **{
            "keys": (platform_admin(digest_of(KEY), KeyId("test")),),
            "auth_enabled": True,
            "outbound": OutboundSettings(stop_grace_s=0.2, term_grace_s=0.5),
            **settings,
        }
    )
    snapshot = Snapshot({one.id: _entry(one) for one in servers})
    with (
        serve.bind(ListenAddress("127.0.0.1", 0)) as listener,
        anyio.from_thread.start_blocking_portal(backend_options={"use_uvloop": uvloop}) as portal,
    ):
        up: concurrent.futures.Future[Face] = concurrent.futures.Future()

        async def live() -> None:
            async with running(
                config,
                snapshot,
                environ={},
                clock=SystemClock(),
                reload=reload,
                store=store,
            ) as gateway:
                prepared = serve._uvicorn_config(config, gateway)
                if protocol is not None:
                    prepared.http_protocol_class = protocol
                server = serve._Server(prepared)
                host, port = listener.getsockname()[:2]
                up.set_result(Face(name, host, port, gateway, server, portal))
                await server.serve(sockets=[listener])
                serve._cut_off(server)

        ended = portal.start_task_soon(live)
        found = up.result(STARTS_IN_S)
        try:
            yield found
        finally:
            found.server.should_exit = True
            portal.call(serve._cut_off, found.server)
            ended.result(STARTS_IN_S)


@contextlib.contextmanager
def new_store(folder: Path) -> Iterator[KeyStore]:
    """An empty key store in ``folder``."""
    store = create_store("sqlite", path=folder / "keys.db")
    try:
        yield store
    finally:
        store.close()


def _entry(spec: ServerSpec) -> CatalogEntry:
    return CatalogEntry(spec=spec, shown=spec, runtime_type="local-process")


def body_of(raw: bytes) -> bytes:
    return raw.partition(b"\r\n\r\n")[2]


def receive_all(wire: Wire) -> list[Answer]:
    """Everything until the other side closes."""
    answers = []
    while (answer := wire.receive()).status:
        answers.append(answer)
    return answers


@contextlib.contextmanager
def released(front: Face) -> Iterator[None]:
    """Within this ``late`` (mode ``late_answers``) has one more call: it answers the one before."""
    with front.connect() as wire:
        wire.send(echo("", server_id="late"))
        yield
    front.at_rest()
