"""What a defect of ours costs a client on stdin and stdout: one answer, not the program."""

from __future__ import annotations

import json
import os
from typing import NoReturn

import anyio
import pytest

from open_mcp_gateway.access.permit import Permit
from open_mcp_gateway.inbound.stdio import StdioFace
from open_mcp_gateway.pipeline.errand import Means
from open_mcp_gateway.pipeline.forward import Forwarder
from open_mcp_gateway.pipeline.modern import ModernFace
from open_mcp_gateway.pipeline.states import StateSeal
from tests.process.stdio_program import STATELESS, line_of
from tests.unit.pipeline.exchanges import Desk
from tests.unit.supervisor.memory import principal, snapshot_of, spec
from tests.unit.supervisor.virtual_time import LoopClock

pytestmark = pytest.mark.anyio


class Broken(ModernFace):
    """Fails in a way that nobody foresaw."""

    def take(self, permit: Permit, *_: object, **_more: object) -> NoReturn:
        raise ZeroDivisionError("ours", permit)


async def test_the_next_line_is_served_and_the_id_is_free() -> None:
    lines, stdin = os.pipe()
    answers, stdout = os.pipe()
    async with anyio.create_task_group() as tasks:
        clock = LoopClock()
        means = Means(Desk(), tasks, clock, request_timeout_s=30, max_request_s=600)
        face = StdioFace(
            Forwarder(means, snapshot_of(spec("a"))),
            Broken(means, StateSeal(clock)),
            principal(),
            "a",
            stdin=lines,
            stdout=stdout,
            max_line_bytes=1000,
            relayed=False,
        )
        for _ in range(2):
            os.write(stdin, line_of("tools/list", STATELESS, 7))
        os.close(stdin)
        with anyio.fail_after(60):
            await face.run()
    os.close(stdout)
    with os.fdopen(answers, "rb") as reader:
        told = [json.loads(line) for line in reader.read().splitlines()]
    os.close(lines)
    assert [(one["id"], one["error"]["code"]) for one in told] == [(7, -32603), (7, -32603)]
    assert "ours" not in json.dumps(told)
