"""A child process in a process group of its own: started, watched, and ended without remains."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Protocol

import anyio
from msgspec import Struct

from open_mcp_gateway.errors import UpstreamUnavailable
from open_mcp_gateway.outbound.channel import Loss
from open_mcp_gateway.outbound.environment import group_has_members
from open_mcp_gateway.outbound.exits import watch_exit
from open_mcp_gateway.outbound.pipes import STDERR, STDIN, STDOUT, Input, Output, PipeEnd, Pipes
from open_mcp_gateway.outbound.settings import OutboundSettings
from open_mcp_gateway.outbound.stderr import StderrTail

DRAIN_S = 0.25
"""From the exit of the process, or the loss of a pipe, to the verdict: what is still in the pipes
is read first. Not until their end: a grandchild may hold them open for ever."""

KILL_WAIT_S = 5.0
"""How long to wait for what SIGKILL leaves: a process can hang in the kernel."""

POLL_S = 0.02


class Launch(Struct, frozen=True, kw_only=True):
    """What to start."""

    program: str
    """Absolute path; see ``find_program``."""

    args: tuple[str, ...]
    working_dir: str | None
    env: dict[str, str]


class Owner(Protocol):
    """Whoever talks to the child."""

    def received(self, data: bytes) -> None:
        """The child wrote to its stdout."""

    def ended(self) -> None:
        """The child's stdout is at its end."""

    def congested(self, full: bool) -> None:
        """The bound on bytes waiting for the child is reached, or no longer."""

    def lost(self, loss: Loss) -> None:
        """The child ended, or closed a pipe, without ``stop``. It is being cleaned up."""


class Child:
    """One running child. ``subprocess.Popen`` starts it rather than the event loop: uvloop leaves
    inheritable descriptors open in a child, the spare ends of its own pipes among them, so that a
    child's closing of its stdout would go unnoticed; and it makes sockets where pipes are cheaper.
    """

    def __init__(
        self,
        process: subprocess.Popen[bytes],
        pipes: dict[int, PipeEnd],
        owner: Owner,
        stderr: StderrTail,
        settings: OutboundSettings,
    ) -> None:
        self._process = process
        self._owner = owner
        self._stderr = stderr
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._exited = self._loop.create_future()
        self._unconnected = pipes
        self._open_pipes = {STDIN, STDOUT, STDERR}
        self._stdin: asyncio.WriteTransport | None = None
        self._outputs: list[asyncio.ReadTransport] = []
        self._verdict: asyncio.TimerHandle | None = None
        self._verdict_given = False
        self._stopping: asyncio.Task[None] | None = None
        self.pid = process.pid

    async def connect(self) -> None:
        """Begin to read, write and watch; once, first of all."""
        watch_exit(self._process, self._on_exit)
        stdin, _ = await self._loop.connect_write_pipe(
            partial(Input, self._owner.congested, partial(self._on_closed, STDIN)),
            self._unconnected.pop(STDIN),
        )
        stdin.set_write_buffer_limits(high=self._settings.max_send_buffer_bytes)
        self._stdin = stdin
        for number, feed in ((STDOUT, self._owner.received), (STDERR, self._stderr.feed)):
            output, _ = await self._loop.connect_read_pipe(
                partial(Output, feed, partial(self._on_closed, number)),
                self._unconnected.pop(number),
            )
            self._outputs.append(output)

    # Callbacks of the event loop

    def _on_closed(self, fd: int) -> None:
        self._open_pipes.discard(fd)
        if fd == STDOUT:
            self._owner.ended()
        elif fd == STDERR:
            self._stderr.finish()
        if fd != STDERR or self._exited.done():
            self._expect_verdict()

    def _on_exit(self) -> None:
        self._exited.set_result(None)
        self._expect_verdict()

    # For the owner

    def write(self, data: bytes) -> None:
        if self._stdin is not None and STDIN in self._open_pipes:
            self._stdin.write(data)

    async def stop(self) -> None:
        """Close stdin, then SIGTERM, then SIGKILL, the whole process group; reaps. Idempotent."""
        with anyio.CancelScope(shield=True):
            # A task, so that the ladder goes on even when this wait is broken off.
            await asyncio.shield(self.begin_stop())

    def begin_stop(self) -> asyncio.Task[None]:
        if self._stopping is None:
            self._verdict_given = True
            self._stopping = self._loop.create_task(self._stop(), name=f"stop child {self.pid}")
        return self._stopping

    # Inside

    def _expect_verdict(self) -> None:
        if self._verdict_given:
            return
        if self._exited.done() and not self._open_pipes & {STDOUT, STDERR}:
            self._give_verdict()
        elif self._verdict is None:
            self._verdict = self._loop.call_later(DRAIN_S, self._give_verdict)

    def _give_verdict(self) -> None:
        if self._verdict is not None:
            self._verdict.cancel()
        if self._verdict_given:
            return
        self._verdict_given = True
        self._owner.lost(Loss(self._what_happened(), self._stderr.quote()))
        self.begin_stop()

    def _what_happened(self) -> str:
        code = self._process.returncode
        if code is None:
            which = "output" if STDOUT not in self._open_pipes else "input"
            return f"closed its standard {which} while running"
        if code >= 0:
            return f"exited with code {code}"
        with contextlib.suppress(ValueError):
            return f"was ended by {signal.Signals(-code).name}"
        return f"was ended by signal {-code}"

    async def _stop(self) -> None:
        settings = self._settings
        try:
            if self._stdin is not None:
                self._stdin.close()
            if not await self._exits_within(settings.stop_grace_s):
                self._signal_group(signal.SIGTERM)
                if not await self._exits_within(settings.term_grace_s):
                    self._signal_group(signal.SIGKILL)
                    await self._exits_within(KILL_WAIT_S)
            await self._sweep_group()
        except asyncio.CancelledError:
            self._signal_group(signal.SIGKILL)  # the event loop itself is being torn down
            raise
        finally:
            self._close_pipes()

    def _close_pipes(self) -> None:
        if self._stdin is not None and STDIN in self._open_pipes:
            self._stdin.abort()  # closing would wait for a child that does not read
        for output in self._outputs:
            output.close()
        for pipe in self._unconnected.values():
            pipe.close()

    async def _sweep_group(self) -> None:
        """End what the child left of its group: the id stays taken while a member lives."""
        for number, patience_s in (
            (signal.SIGTERM, self._settings.term_grace_s),
            (signal.SIGKILL, KILL_WAIT_S),
        ):
            give_up_at_s = self._loop.time() + patience_s
            if not group_has_members(self.pid):
                return
            self._signal_group(number)
            # They are no children of ours: nobody tells us of their end.
            while self._loop.time() < give_up_at_s and group_has_members(self.pid):  # noqa: ASYNC110
                await asyncio.sleep(POLL_S)

    async def _exits_within(self, seconds: float) -> bool:
        await asyncio.wait({self._exited}, timeout=seconds)
        return self._exited.done()

    def _signal_group(self, number: signal.Signals) -> None:
        # EPERM: macOS says so for a group of zombies.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)


async def spawn(
    launch: Launch, owner: Owner, stderr: StderrTail, settings: OutboundSettings
) -> Child:
    """Start ``launch`` in a session of its own, its standard streams pipes to us.

    Raises:
        UpstreamUnavailable: it could not be started.
    """
    try:
        pipes = Pipes()
        try:
            process = _start(launch, pipes)
        except BaseException:
            pipes.close()
            raise
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UpstreamUnavailable(
            f"cannot be started: command '{launch.program}': {reason or error}"
        ) from error
    child = Child(process, pipes.started(), owner, stderr, settings)
    try:
        await child.connect()
    except BaseException:
        await child.stop()
        raise
    return child


def _start(launch: Launch, pipes: Pipes) -> subprocess.Popen[bytes]:
    """Blocks until the exec, about a millisecond; by vfork, so not longer the bigger we are."""
    stdin, stdout, stderr = pipes.of_child
    return subprocess.Popen(  # noqa: S603 - the catalog says what to run; no shell
        [launch.program, *launch.args],
        stdin=stdin,
        stdout=stdout,
        stderr=stderr,
        cwd=launch.working_dir,
        env=launch.env,
        start_new_session=True,
        close_fds=True,
    )


def find_program(command: str, working_dir: str | None, env: Mapping[str, str]) -> str:
    """The absolute path of ``command``, looked up on the child's own PATH.

    Raises:
        UpstreamUnavailable: there is no such program or directory; says what to do.
    """
    base = Path(working_dir) if working_dir is not None else Path.cwd()
    if not base.is_dir():
        raise UpstreamUnavailable(
            f"cannot be started: working_dir '{working_dir}' is no directory; create or correct it"
        )
    if os.sep not in command:
        found = shutil.which(command, path=env.get("PATH", os.defpath))
        if found is None:
            raise UpstreamUnavailable(
                f"cannot be started: command '{command}' was not found on PATH; "
                "install it, or give its full path"
            )
        return str(Path(found).absolute())
    path = base.absolute() / command
    if not path.is_file():
        raise UpstreamUnavailable(
            f"cannot be started: command '{command}' does not exist; install or correct it"
        )
    if not os.access(path, os.X_OK):
        raise UpstreamUnavailable(
            f"cannot be started: command '{command}' is not executable; chmod +x may mend that"
        )
    return str(path)
