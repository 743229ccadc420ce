"""Children are started as told, heard of when they end, and ended without remains."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import anyio
import anyio.lowlevel
import pytest
from msgspec.structs import replace

from open_mcp_gateway.errors import UpstreamUnavailable
from open_mcp_gateway.outbound.channel import Loss
from open_mcp_gateway.outbound.child import Child, Launch, find_program, spawn
from open_mcp_gateway.outbound.exits import watch_by_thread, watch_exit
from open_mcp_gateway.outbound.stderr import StderrTail
from tests.process.stdio_peers import QUICK, is_running, process_exists

pytestmark = pytest.mark.anyio

LOOPS = [
    pytest.param(("asyncio", {"use_uvloop": True}), id="uvloop"),
    pytest.param(("asyncio", {"use_uvloop": False}), id="asyncio"),
]


@pytest.fixture(params=LOOPS)
def anyio_backend(request: pytest.FixtureRequest) -> object:
    return request.param


Watch = Callable[[subprocess.Popen[bytes], Callable[[], None]], None]


def open_descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


class Listener:
    """An Owner that writes down what it hears."""

    def __init__(self) -> None:
        self.data = b""
        self.heard = anyio.Event()
        self.losses: list[Loss] = []
        self.loss = anyio.Event()
        self.full = False
        self.stdout_ended = False

    def received(self, data: bytes) -> None:
        self.data += data
        self.heard.set()

    def ended(self) -> None:
        self.stdout_ended = True

    def congested(self, full: bool) -> None:
        self.full = full

    def lost(self, loss: Loss) -> None:
        self.losses.append(loss)
        self.loss.set()

    async def until(self, text: bytes) -> None:
        with anyio.fail_after(60):
            while text not in self.data:
                self.heard = anyio.Event()
                await self.heard.wait()


def python(code: str, **env: str) -> Launch:
    return Launch(program=sys.executable, args=("-S", "-c", code), working_dir=None, env=env)


@asynccontextmanager
async def started(launch: Launch) -> AsyncIterator[tuple[Child, Listener]]:
    listener = Listener()
    stderr = StderrTail(50, lambda text: text, lambda _line: None)
    child = await spawn(launch, listener, stderr, QUICK)
    try:
        yield child, listener
    finally:
        await child.stop()
        assert not process_exists(child.pid), "not reaped"


async def test_a_child_gets_its_arguments_environment_and_directory(tmp_path: Path) -> None:
    code = "import os, sys; print(sys.argv[1:], sorted(os.environ), os.getcwd(), 'end', flush=True)"
    launch = python(code, ONLY="this")
    launch = replace(launch, args=(*launch.args, "a b", "$HOME; `x`"), working_dir=str(tmp_path))
    async with started(launch) as (_, listener):
        await listener.until(b"end")
        text = listener.data.decode()
        assert text.startswith("['a b', '$HOME; `x`'] ")
        assert "'ONLY'" in text
        assert "'PATH'" not in text
        assert str(tmp_path) in text


async def test_a_child_has_its_three_pipes_a_session_of_its_own_and_no_other_descriptor() -> None:
    inheritable = os.open(os.devnull, os.O_RDONLY)
    os.set_inheritable(inheritable, True)
    code = """
import os
open_fds = []
for fd in range(256):
    try: os.fstat(fd)
    except OSError: continue
    open_fds.append(fd)
print(open_fds, os.getpid() == os.getsid(0) == os.getpgid(0), "end", flush=True)
input()
"""
    try:
        async with started(python(code)) as (_, listener):
            await listener.until(b"end")
            assert listener.data == b"[0, 1, 2] True end\n"
    finally:
        os.close(inheritable)


async def test_what_is_written_comes_back_and_the_end_is_orderly() -> None:
    code = "import sys\nfor line in sys.stdin: print(line.upper(), end='', flush=True)"
    async with started(python(code)) as (child, listener):
        child.write(b"one\ntwo\n")
        await listener.until(b"TWO\n")
        started_at_s = asyncio.get_running_loop().time()
        await child.stop()
        assert asyncio.get_running_loop().time() - started_at_s < QUICK.stop_grace_s
        assert listener.losses == []
        child.write(b"nobody reads this\n")


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("import sys; sys.stderr.write('a\\nlast words'); sys.exit(3)", "exited with code 3"),
        ("import os; os.write(2, b'last words'); os.kill(os.getpid(), 9)", "was ended by SIGKILL"),
        ("import os; os.write(2, b'last words'); os.kill(os.getpid(), 40)", "was ended by signal"),
    ],
)
async def test_an_exit_is_told_once_with_its_cause_and_last_words(code: str, what: str) -> None:
    async with started(python(code)) as (_, listener):
        with anyio.fail_after(60):
            await listener.loss.wait()
        (loss,) = listener.losses
        assert loss.what.startswith(what)
        assert loss.detail.startswith("stderr: ")
        assert loss.detail.endswith("last words")
    assert len(listener.losses) == 1


async def test_everything_written_before_the_exit_is_read() -> None:
    code = "import sys; sys.stdout.write('x' * 300_000 + 'end'); sys.stdout.flush()"
    async with started(python(code)) as (_, listener):
        with anyio.fail_after(60):
            await listener.loss.wait()
        assert len(listener.data) == 300_003
        assert listener.stdout_ended


async def test_an_exit_is_heard_although_a_grandchild_holds_the_pipes(tmp_path: Path) -> None:
    file = tmp_path / "pid"
    code = f"""
import os, signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
p = subprocess.Popen([sys.executable, "-S", "-c", "import time; time.sleep(600)"])
open({str(file)!r}, "w").write(str(p.pid))
os._exit(5)
"""
    async with started(python(code)) as (_, listener):
        with anyio.fail_after(60):
            await listener.loss.wait()
        assert listener.losses[0].what == "exited with code 5"
        grandchild = int(file.read_text())
        assert is_running(grandchild)
    assert not is_running(grandchild), "stop returns when the whole group is gone"


@pytest.mark.parametrize(("fd", "which"), [(1, "output"), (0, "input")])
async def test_a_pipe_closed_by_a_child_that_goes_on_is_a_loss(fd: int, which: str) -> None:
    code = f"import os, time; os.close({fd}); time.sleep(600)"
    async with started(python(code)) as (child, listener):
        with anyio.fail_after(60):
            await listener.loss.wait()
        assert listener.losses[0].what == f"closed its standard {which} while running"
        with anyio.fail_after(60):
            await child.begin_stop()
        assert not is_running(child.pid)


async def test_a_closed_stderr_is_no_loss() -> None:
    code = "import os; os.close(2); print('closed', flush=True); input()"
    async with started(python(code)) as (_, listener):
        await listener.until(b"closed")
        await anyio.sleep(0.3)  # there is no event for what must not happen
        assert listener.losses == []


STUBBORN = """
import signal, time
signal.signal(signal.SIGTERM, {handler})
print('ready', flush=True)
while True:
    try: time.sleep(600)
    except SystemExit: raise
"""


@pytest.mark.parametrize(
    ("handler", "grace_s"),
    [
        ("signal.SIG_DFL", QUICK.stop_grace_s),
        ("signal.SIG_IGN", QUICK.stop_grace_s + QUICK.term_grace_s),
    ],
)
async def test_who_does_not_end_with_its_stdin_is_ended(handler: str, grace_s: float) -> None:
    async with started(python(STUBBORN.format(handler=handler))) as (child, listener):
        await listener.until(b"ready")
        begun_s = asyncio.get_running_loop().time()
        await child.stop()
        took_s = asyncio.get_running_loop().time() - begun_s
        assert grace_s * 0.9 <= took_s < grace_s + 20
        assert not is_running(child.pid)


async def test_stop_completes_under_cancellation() -> None:
    async with started(python(STUBBORN.format(handler="signal.SIG_IGN"))) as (child, listener):
        await listener.until(b"ready")
        with anyio.CancelScope() as scope:
            scope.cancel()
            await child.stop()
        assert not is_running(child.pid)


async def test_stop_goes_on_when_the_task_that_waits_for_it_is_killed() -> None:
    async with started(python(STUBBORN.format(handler="signal.SIG_IGN"))) as (child, listener):
        await listener.until(b"ready")
        waiting = asyncio.get_running_loop().create_task(child.stop())
        await anyio.lowlevel.checkpoint()
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        with anyio.fail_after(60):
            await child.begin_stop()
        assert not is_running(child.pid)


async def test_a_torn_down_event_loop_kills_at_once() -> None:
    async with started(python(STUBBORN.format(handler="signal.SIG_IGN"))) as (child, listener):
        await listener.until(b"ready")
        ladder = child.begin_stop()
        await anyio.lowlevel.checkpoint()
        ladder.cancel()
        with pytest.raises(asyncio.CancelledError):
            await ladder
        with anyio.fail_after(60):
            await child._exited
        child._stopping = None


async def test_a_child_that_does_not_read_congests_and_still_ends() -> None:
    async with started(python(STUBBORN.format(handler="signal.SIG_DFL"))) as (child, listener):
        await listener.until(b"ready")
        child.write(b"x" * QUICK.max_send_buffer_bytes)
        child.write(b"x" * 200_000)
        assert listener.full
        await child.stop()
    assert not is_running(child.pid)


async def test_a_reader_relieves_the_congestion() -> None:
    code = "import sys; print(len(sys.stdin.read(20_000_000)), flush=True); sys.stdin.read()"
    async with started(python(code)) as (child, listener):
        child.write(b"x" * 20_000_000)
        assert listener.full
        await listener.until(b"20000000")
        assert not listener.full


async def test_nothing_is_left_open_by_many_children() -> None:
    async def one() -> None:
        async with started(python("input()")):
            pass

    await one()
    before = open_descriptors()
    for _ in range(10):
        await one()
    with anyio.fail_after(60):
        while open_descriptors() > before:  # noqa: ASYNC110 - uvloop closes handles a turn later
            await anyio.sleep(0.01)


@pytest.mark.parametrize("watch", [watch_exit, watch_by_thread])
async def test_an_exit_is_heard_and_the_process_reaped(watch: Watch) -> None:
    exited = anyio.Event()
    process = subprocess.Popen([sys.executable, "-S", "-c", "raise SystemExit(4)"])  # noqa: ASYNC220
    watch(process, exited.set)
    with anyio.fail_after(60):
        await exited.wait()
    assert process.returncode == 4
    assert not process_exists(process.pid)


async def test_a_program_that_cannot_be_run_is_an_error_that_names_it(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fELF nonsense")
    broken.chmod(0o755)
    before = open_descriptors()
    for args in ((), ("nul\0byte",)):
        launch = Launch(program=str(broken), args=args, working_dir=None, env={})
        with pytest.raises(UpstreamUnavailable, match="broken': "):
            async with started(launch):
                pass
    assert open_descriptors() == before


def program(path: Path, mode: int = 0o755) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text("#!/bin/sh\n")
    path.chmod(mode)
    return path


def test_a_program_is_looked_up_on_the_child_s_own_path(tmp_path: Path) -> None:
    tool = program(tmp_path / "bin" / "tool")
    env = {"PATH": f"/nowhere:{tmp_path}/bin"}
    assert find_program("tool", None, env) == str(tool)
    with pytest.raises(UpstreamUnavailable, match="'tool' was not found on PATH; install it"):
        find_program("tool", None, {"PATH": "/nowhere"})


def test_a_program_with_a_slash_is_relative_to_the_working_directory(tmp_path: Path) -> None:
    tool = program(tmp_path / "bin" / "tool")
    assert find_program("bin/tool", str(tmp_path), {}) == str(tool)
    assert find_program(str(tool), "/", {}) == str(tool)


def test_what_cannot_be_started_says_what_to_do(tmp_path: Path) -> None:
    plain = program(tmp_path / "plain", 0o644)
    with pytest.raises(UpstreamUnavailable, match="does not exist"):
        find_program("./absent", str(tmp_path), {})
    with pytest.raises(UpstreamUnavailable, match="does not exist"):
        find_program(str(tmp_path), None, {})
    with pytest.raises(UpstreamUnavailable, match=r"not executable; chmod \+x"):
        find_program(str(plain), None, {})
    with pytest.raises(UpstreamUnavailable, match="working_dir '/nowhere' is no directory"):
        find_program("sh", "/nowhere", {"PATH": "/bin"})
