"""What a server says of a task, a resource or a question goes to those whose it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest

from tests.wire.conftest import MakeClient
from tests.wire.faces import KEY, Face, face
from tests.wire.mcp_client import OTHER_KEY, TWO_KEYS, Client, Json, Reply, talker

RELATED: Final = "io.modelcontextprotocol/related-task"


@pytest.fixture(scope="module")
def front() -> Iterator[Face]:
    with face("hot", talker("legacy", "legacy"), keys=TWO_KEYS) as running:
        yield running
        running.at_rest()


def task_of(one: Client, token: object = None) -> tuple[str, int]:
    """A new task, and the progress token that its server knows it by."""
    line = '{"jsonrpc":"2.0","id":$ID,"result":{"task":{"taskId":"t-$ID","status":"working"}}}'
    params: Json = {"name": "raw", "arguments": {"line": line}, "task": {"ttl": 1000}}
    if token is not None:
        params["_meta"] = {"progressToken": token}
    task: str = one.ask("tools/call", params).result["task"]["taskId"]
    return task, int(task.removeprefix("t-"))


def notified(one: Client, method: str, **params: object) -> Reply:
    """The answer to a call during which the server sends this."""
    return one.call("notify", method=f"notifications/{method}", params=params)


def news(task: str, token: int = 1) -> list[tuple[str, Json]]:
    """All kinds that name a task."""
    related = {RELATED: {"taskId": task}}
    return [
        ("tasks/status", {"taskId": task, "status": "working"}),
        ("message", {"level": "error", "data": "secret", "_meta": related}),
        ("progress", {"progressToken": token, "progress": 1, "_meta": related}),
        ("vendor", {"_meta": related}),
    ]


def test_of_a_task_its_owner_hears_and_nobody_else(front: Face, client: MakeClient) -> None:
    one = client(front, "legacy").initialize()
    two = client(front, "legacy").initialize()
    other = client(front, "legacy", key=OTHER_KEY).initialize()
    streams = [each.listen() for each in (two, other)]
    for stream in streams:
        stream.event()  # only the id to come back with
    task, token = task_of(other, "mine")
    for method, params in news(task, token):
        assert not notified(one, method, **params).is_stream
        heard = streams[1].next()
        assert heard["method"] == f"notifications/{method}"
        own = {"progressToken": "mine"} if method == "progress" else {}
        assert heard["params"] == params | own
    assert streams[0].is_silent(0.02)
    for each in (one, two, other):
        each.end()


def test_without_a_stream_it_comes_with_a_call(front: Face, client: MakeClient) -> None:
    one = client(front, "legacy").initialize()
    task, _ = task_of(one)
    heard = notified(one, "tasks/status", taskId=task, status="completed").next()
    assert heard["params"] == {"taskId": task, "status": "completed"}
    one.end()


def test_of_a_task_without_a_token_there_is_no_progress(front: Face, client: MakeClient) -> None:
    one = client(front, "legacy").initialize()
    for token in (None, "t" * 1000):
        task, known = task_of(one, token)
        related = {RELATED: {"taskId": task}}
        reply = notified(one, "progress", progressToken=known, progress=1, _meta=related)
        assert not reply.is_stream
    one.end()


@pytest.mark.parametrize("task", ["t-unknown", "", 7, None, {}])
def test_of_a_task_of_nobody_nobody_hears(front: Face, client: MakeClient, task: object) -> None:
    one = client(front, "legacy").initialize()
    for method, params in news(task):  # type: ignore[arg-type]
        assert not notified(one, method, **params).is_stream
    assert not notified(one, "vendor", _meta={RELATED: task}).is_stream
    one.end()


def test_levels_hold_for_tasks_too(front: Face, client: MakeClient) -> None:
    one = client(front, "legacy").initialize()
    assert one.ask("logging/setLevel", {"level": "error"}).result == {}
    task, _ = task_of(one)
    related = {RELATED: {"taskId": task}}
    assert not notified(one, "message", level="info", data=1, _meta=related).is_stream
    assert notified(one, "message", level="error", data=1, _meta=related).is_stream
    one.end()


def test_a_connection_of_its_own_is_told_everything(front: Face, client: MakeClient) -> None:
    one = client(front, "legacy").initialize(elicitation={})
    task, token = task_of(one, 5)
    for method, params in news(task, token):
        assert notified(one, method, **params).is_stream
    # A task that the client itself made for the server, say.
    assert notified(one, "tasks/status", taskId="t-client").is_stream
    assert notified(one, "elicitation/complete", elicitationId="e").is_stream
    assert notified(one, "resources/updated", uri="test://any").is_stream
    one.end()


@pytest.mark.parametrize("key", [KEY, OTHER_KEY])
def test_what_was_not_asked_for_on_a_shared_connection(
    front: Face, client: MakeClient, key: bytes
) -> None:
    one = client(front, "legacy", key=key).initialize()
    assert not notified(one, "elicitation/complete", elicitationId="e").is_stream
    assert not notified(one, "resources/updated", uri="test://any").is_stream
    assert one.ask("resources/subscribe", {"uri": "test://any"}).result == {}
    assert notified(one, "resources/updated", uri="test://any").is_stream
    one.end()
