"""Real stdio servers from ``tests/servers`` behind real peers, for the tests of this folder."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import msgspec
from msgspec import UNSET, Raw

from open_mcp_gateway.access.authorize import authorize
from open_mcp_gateway.access.permit import Permit
from open_mcp_gateway.auth.principal import PLATFORM, Permission, Principal
from open_mcp_gateway.auth.scope import EVERYTHING, UNNARROWED
from open_mcp_gateway.catalog.model import CatalogEntry, EraChoice, LocalProcess, ServerSpec
from open_mcp_gateway.errors import GatewayError
from open_mcp_gateway.names import KeyId, ServerId
from open_mcp_gateway.outbound.duplex import DuplexPeer
from open_mcp_gateway.outbound.local import open_local
from open_mcp_gateway.outbound.peer import ANY_MANNER, Manner, Question, Ticket
from open_mcp_gateway.outbound.settings import OutboundSettings
from open_mcp_gateway.outbound.verdicts import EraVerdicts
from open_mcp_gateway.protocol.jsonrpc import Call, Incoming, Params

SERVER = Path(__file__).parents[1] / "servers" / "stdio_server.py"
TALKER = SERVER.with_name("stdio_talker.py")
SECRET = "test-secret-value"

QUICK = OutboundSettings(stop_grace_s=0.3, term_grace_s=0.3, probe_silence_s=0.3)
"""Short enough for tests that wait them out; a server that behaves never does."""

CALLER = Principal(
    key_id=KeyId("test"),
    role="admin",
    permissions=frozenset(Permission),
    namespaces=EVERYTHING,
    holder=PLATFORM,
    scope=UNNARROWED,
)


def entry_of(
    mode: str,
    pids: Path | None = None,
    *,
    era: EraChoice = EraChoice.AUTO,
    env: Mapping[str, str] | None = None,
    runtime: LocalProcess | None = None,
    server: Path = SERVER,
) -> CatalogEntry:
    """A catalog entry for one mode of the server; it notes its pids in ``pids``."""
    args = ("-S", str(server), mode) + (() if pids is None else (str(pids),))
    spec = ServerSpec(
        id=ServerId("x"),
        runtime=runtime or LocalProcess(command=sys.executable, args=args),
        display_name="x",
        env=dict(env or {}),
        era=era,
    )
    return CatalogEntry(spec=spec, shown=spec, runtime_type="local-process", secrets=(SECRET,))


def permit_of(entry: CatalogEntry) -> Permit:
    return authorize(CALLER, Permission.MCP_CALL, entry)


class Outcome:
    """A Waiter that can be awaited, and that notices being told twice."""

    whose = "whoever tests"

    def __init__(self) -> None:
        self._told = anyio.Event()
        self.times = 0
        self.message = b""
        self.upstream_id = 0
        self.error: GatewayError | None = None
        self.notes: list[Any] = []
        self._noted = anyio.Event()

    def related(self, message: bytes, incoming: Incoming) -> None:
        note = msgspec.json.decode(message)
        assert note["method"] == incoming.method
        if incoming.params is not UNSET:
            assert note["params"] == msgspec.json.decode(incoming.params)
        self.notes.append(note)
        self._noted.set()

    def asked(self, question: Question) -> None:
        raise AssertionError(f"over pipes {question.method} belongs to no call")

    async def note(self) -> Any:
        """The oldest notification that was not asked for yet."""
        with anyio.fail_after(60):
            while not self.notes:
                self._noted = anyio.Event()
                await self._noted.wait()
        return self.notes.pop(0)

    def answered(self, message: bytes, upstream_id: int) -> None:
        self.message, self.upstream_id = message, upstream_id
        self._tell()

    def failed(self, error: GatewayError) -> None:
        self.error = error
        self._tell()

    def _tell(self) -> None:
        self.times += 1
        self._told.set()

    async def wait(self) -> Outcome:
        with anyio.fail_after(60):
            await self._told.wait()
        return self

    @property
    def answer(self) -> dict[str, Any]:
        assert self.error is None, self.error
        answer: dict[str, Any] = msgspec.json.decode(self.message)
        return answer

    @property
    def text(self) -> str:
        """The text of a tool's answer."""
        text: str = self.answer["result"]["content"][0]["text"]
        return text

    @property
    def failure(self) -> GatewayError:
        assert self.error is not None, self.message
        return self.error


class Caller:
    """Calls on one peer."""

    def __init__(self, peer: DuplexPeer, entry: CatalogEntry) -> None:
        self.peer = peer
        self.permit = permit_of(entry)

    def begin(
        self, method: str, params: Params | None, *, within_s: float = 60.0
    ) -> tuple[Outcome, Ticket]:
        return self.send(Call(method, b'"caller"', params), within_s=within_s)

    def send(self, call: Call, *, within_s: float = 60.0) -> tuple[Outcome, Ticket]:
        outcome = Outcome()
        deadline_s = time.monotonic() + within_s
        return outcome, self.peer.call(self.permit, call, outcome, deadline_s=deadline_s)

    def tool(self, name: str, *, within_s: float = 60.0, **arguments: object) -> Outcome:
        return self.begin("tools/call", tool_params(name, **arguments), within_s=within_s)[0]

    async def ask(self, method: str) -> Any:
        """The result of a method of the test server."""
        return (await self.begin(method, None)[0].wait()).answer["result"]


def tool_params(name: str, **arguments: object) -> Params:
    encode = msgspec.json.encode
    return {"name": Raw(encode(name)), "arguments": Raw(encode(arguments))}


@asynccontextmanager
async def peer_of(
    entry: CatalogEntry,
    settings: OutboundSettings = QUICK,
    verdicts: EraVerdicts | None = None,
    environ: Mapping[str, str] | None = None,
    *,
    manner: Manner = ANY_MANNER,
) -> AsyncIterator[Caller]:
    with anyio.fail_after(60):
        peer = await open_local(entry, manner, settings, verdicts or EraVerdicts(), environ or {})
    assert isinstance(peer, DuplexPeer)
    try:
        yield Caller(peer, entry)
    finally:
        await peer.aclose()


def pids_in(file: Path) -> list[int]:
    """The pids that servers noted; none while there is no file yet."""
    if not file.exists():
        return []
    return [int(line) for line in file.read_text(encoding="ascii").split()]


def is_running(pid: int) -> bool:
    """Whether ``pid`` runs; a zombie that its own parent has not reaped does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="ascii")
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in {"Z", "X"}


def process_exists(pid: int) -> bool:
    """Whether ``pid`` runs or is a zombie."""
    return Path(f"/proc/{pid}").exists()
