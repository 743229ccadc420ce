"""Handles belong to whoever was given them."""

import json
from typing import Any

import pytest
from msgspec import Raw
from msgspec.structs import replace

from open_mcp_gateway.auth.principal import PLATFORM
from open_mcp_gateway.auth.records import KeyRecord, Source
from open_mcp_gateway.errors import InvalidParams, UnknownMethod
from open_mcp_gateway.names import KeyId, ServerId, TenantId
from open_mcp_gateway.pipeline import handles as module
from open_mcp_gateway.pipeline.handles import Handles
from open_mcp_gateway.pipeline.sole import SoleHandles
from open_mcp_gateway.protocol.jsonrpc import Call

ALICE, BOB, SERVER = KeyId("alice"), KeyId("bob"), ServerId("s")


RELATED = "io.modelcontextprotocol/related-task"
ESCAPED = b'{"io.modelcontextprotocol\\u002frelated\\u002dtask":{"taskId":"h"}}'
TWICE = b'{"%b":{"taskId":"h"},"%b":{"taskId":"mine"}}' % (RELATED.encode(), RELATED.encode())
ANY_METHOD = (
    "tools/call",
    "tools/list",
    "resources/read",
    "prompts/get",
    "vendor/method",
    "subscriptions/listen",
    "notifications/vendor",
    "ping",
)


def call(method: str, **params: object) -> Call:
    return Call(
        method, b"1", {name: Raw(json.dumps(value).encode()) for name, value in params.items()}
    )


def given(**result: object) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}).encode()


@pytest.mark.parametrize(
    ("source", "message", "use"),
    [
        ("tools/list", given(tools=[], nextCursor="h"), call("tools/list", cursor="h")),
        ("tools/list", given(tools=[], nextCursor=""), call("tools/list", cursor="")),
        ("tools/call", given(resultType="task", taskId="h"), call("tasks/get", taskId="h")),
        ("tools/call", given(task={"taskId": "h"}), call("tasks/result", taskId="h")),
        (
            "tools/call",
            given(taskId="h"),
            call("subscriptions/listen", notifications={"taskIds": ["h"]}),
        ),
    ],
)
def test_a_handle_is_good_for_its_owner_alone(source: str, message: bytes, use: Call) -> None:
    handles = Handles()
    handles.learn(ALICE, SERVER, call(source), message)
    handles.check(ALICE, SERVER, use)
    for caller, server in ((BOB, SERVER), (ALICE, ServerId("other"))):
        with pytest.raises(InvalidParams):
            handles.check(caller, server, use)


def test_whose_a_task_is_and_by_which_token_it_goes() -> None:
    handles = Handles()
    made = Call("tools/call", b"1", progress_token=Raw(b'"token"'))
    handles.learn(ALICE, SERVER, made, given(task={"taskId": "t"}))
    handles.learn(ALICE, SERVER, call("tools/call"), given(taskId="quiet"))
    long = Call("tools/call", b"1", progress_token=Raw(b"1" * (module.MAX_TOKEN_BYTES + 1)))
    handles.learn(ALICE, SERVER, long, given(taskId="long"))
    assert handles.token_of(ALICE, SERVER, "t") == Raw(b'"token"')
    assert handles.owns(ALICE, SERVER, "t")
    for task in ("quiet", "long"):
        assert handles.owns(ALICE, SERVER, task)
        assert handles.token_of(ALICE, SERVER, task) is None
    for caller, server, task in (
        (BOB, SERVER, "t"),
        (ALICE, ServerId("other"), "t"),
        (ALICE, SERVER, "other"),
    ):
        assert not handles.owns(caller, server, task)
        assert handles.token_of(caller, server, task) is None


def test_whoever_is_alone_owns_every_task() -> None:
    handles = SoleHandles()
    made = Call("tools/call", b"1", progress_token=Raw(b"5"))
    message = given(task={"taskId": "t"})
    assert handles.passed_on(ALICE, SERVER, made, message) is message
    assert handles.owns(ALICE, SERVER, "of an earlier process")
    assert handles.token_of(ALICE, SERVER, "t") == Raw(b"5")


def test_tasks_are_named_once() -> None:
    handles = Handles()
    handles.learn(ALICE, SERVER, call("tools/call"), given(taskId="mine"))
    for text in (
        b'{"taskIds":["other"],"taskIds":["mine"]}',
        b'{"taskIds":["other"],"task\\u0049ds":["mine"]}',
    ):
        with pytest.raises(InvalidParams, match="twice"):
            handles.check(
                ALICE, SERVER, Call("subscriptions/listen", b"1", {"notifications": Raw(text)})
            )


@pytest.mark.parametrize(
    "free",
    [
        Call("tools/list", b"1"),
        call("tools/list"),
        call("tools/list", cursor=None),
        call("tools/call", name="x", cursor="h", taskId="h"),
        call("subscriptions/listen", notifications={"toolsListChanged": True}),
    ],
)
def test_what_names_no_handle_passes(free: Call) -> None:
    Handles().check(ALICE, SERVER, free)


@pytest.mark.parametrize(
    "bad",
    [
        call("tools/list", cursor=7),
        call("subscriptions/listen", notifications={"taskIds": [7]}),
        call("subscriptions/listen", notifications=7),
    ],
)
def test_handles_of_the_wrong_type_are_refused(bad: Call) -> None:
    with pytest.raises(InvalidParams):
        Handles().check(ALICE, SERVER, bad)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("tools/call", given(structuredContent={"nextCursor": "h"})),
        ("tools/list", b'{"id":1,"error":{"code":1,"message":"\\"nextCursor\\""}}'),
        ("tools/list", b'{"id":1,"result":{"nextCursor":7}}'),
        ("tools/list", given(tools=[])),
        ("prompts/get", given(taskId="h")),
    ],
)
def test_nothing_is_learnt_from_other_places(method: str, message: bytes) -> None:
    handles = Handles()
    handles.learn(ALICE, SERVER, call(method), message)
    with pytest.raises(InvalidParams):
        handles.check(ALICE, SERVER, call("tools/list", cursor="h"))


def test_the_oldest_handles_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_HANDLES", 2)
    handles = Handles()
    for name in ("a", "b"):
        handles.learn(ALICE, SERVER, call("tools/list"), given(nextCursor=name))
    handles.check(ALICE, SERVER, call("tools/list", cursor="a"))
    handles.learn(ALICE, SERVER, call("tools/list"), given(nextCursor="c"))
    handles.check(ALICE, SERVER, call("tools/list", cursor="a"))
    with pytest.raises(InvalidParams):
        handles.check(ALICE, SERVER, call("tools/list", cursor="b"))


def passed(handles: Handles, caller: KeyId, *tasks: object) -> object:
    message = handles.passed_on(
        caller, SERVER, call("tasks/list"), given(tasks=list(tasks), more="x")
    )
    return json.loads(message)["result"]


def test_a_list_of_tasks_holds_ones_own() -> None:
    handles = Handles()
    long = "t" * 1000
    for caller, task in ((ALICE, "mine"), (ALICE, long), (BOB, "theirs")):
        message = given(taskId=task)
        assert handles.passed_on(caller, SERVER, call("tools/call"), message) is message
    mine, theirs = {"taskId": "mine", "a": 1.5}, {"taskId": "theirs"}
    assert passed(handles, ALICE, mine, theirs, {"taskId": long}, {}) == {
        "tasks": [mine, {"taskId": long}],
        "more": "x",
    }
    assert passed(handles, KeyId("carol"), mine, theirs) == {"tasks": [], "more": "x"}
    whole = given(tasks=[theirs])
    assert handles.passed_on(BOB, SERVER, call("tasks/list"), whole) is whole


@pytest.mark.parametrize("result", [{"tasks": 7}, {"tasks": [7]}, {"tasks": [{"taskId": 7}]}, 7])
def test_a_list_of_tasks_that_cannot_be_read_is_empty(result: object) -> None:
    message = json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}).encode()
    found = json.loads(Handles().passed_on(ALICE, SERVER, call("tasks/list"), message))
    assert found == {"jsonrpc": "2.0", "id": 1, "result": {"tasks": []}}


def test_errors_and_other_answers_pass() -> None:
    for method, message in (
        ("tasks/list", b'{"id":1,"error":{"code":1,"message":"tasks"}}'),
        ("tools/list", given(nextCursor="c")),
        ("tools/call", b'{"id":1,"error":{"code":1,"message":"\\"taskId\\""}}'),
        ("prompts/get", given(taskId="x")),
    ):
        assert Handles().passed_on(ALICE, SERVER, call(method), message) is message


def test_nobody_can_crowd_out_the_handles_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_HANDLES", 2)
    handles = Handles()
    handles.learn(ALICE, SERVER, call("tools/list"), given(nextCursor="a"))
    for number in range(10):
        handles.learn(BOB, SERVER, call("tools/list"), given(nextCursor=str(number)))
    handles.check(ALICE, SERVER, call("tools/list", cursor="a"))


@pytest.mark.parametrize(
    "sly",
    [
        call("tasks/get", TaskId="h"),
        call("tasks/get", TASKID="h"),
        call("tasks/result", task_id="h"),
        call("tasks/get", taskId="mine", TaskId="h"),
        call("tasks/cancel", taskId="mine", taskIds=["h"]),
        call("tasks/cancel", taskId="mine", TaskIds=["h"]),
        call("tasks/delete", taskId="h"),
        call("tasks/delete", id="h"),
        call("tasks/get"),
        Call("tasks/get", b"1"),
        call("Tasks/Get", taskId="h"),
        call("tools/list", Cursor="h"),
        call("tasks/list", CURSOR="h"),
        call("subscriptions/listen", taskId="h"),
        call("subscriptions/listen", Notifications={"taskIds": ["h"]}),
        call("subscriptions/listen", notifications={"TaskIds": ["h"]}),
        call("subscriptions/listen", notifications={"taskIds": ["mine"], "task_ids": ["h"]}),
        Call(
            "subscriptions/listen",
            b"1",
            {"notifications": Raw(b'{"taskIds":["h"],"taskIds":["mine"]}')},
        ),
        call("tools/call", name="x", _Meta={"progressToken": 1}),
        call("vendor/method", meta={"progressToken": 1}),
        *(call(method, _meta={RELATED: {"taskId": "h"}}) for method in ANY_METHOD),
        call("tasks/get", taskId="mine", _meta={RELATED: {"taskId": "h"}}),
        call("tools/call", name="x", _meta={RELATED: {"task_id": "h"}}),
        call("tools/call", name="x", _meta={RELATED: {"taskId": "mine", "TaskId": "h"}}),
        call("tools/call", name="x", _meta={RELATED: {"taskId": 1}}),
        call("tools/call", name="x", _meta={RELATED: "h"}),
        call("tools/call", name="x", _meta={RELATED.upper(): {"taskId": "h"}}),
        call("tools/call", name="x", _meta={RELATED.replace("k", "\u212a"): {"taskId": "h"}}),
        call("tools/call", name="x", _meta={RELATED.replace("-t", "T"): {"taskId": "h"}}),
        Call("tools/call", b"1", {"_meta": Raw(ESCAPED)}),
        Call("tools/call", b"1", {"_meta": Raw(TWICE)}),
    ],
)
def test_no_other_spelling_or_method_leads_to_a_handle(sly: Call) -> None:
    handles = Handles()
    handles.learn(ALICE, SERVER, call("tools/call"), given(taskId="h"))
    handles.learn(BOB, SERVER, call("tools/call"), given(taskId="mine"))
    with pytest.raises(InvalidParams):
        handles.check(BOB, SERVER, sly)


@pytest.mark.parametrize(
    "method",
    [
        "Tools/List",
        "TASKS/LIST",
        "Subscriptions/listen",
        "Resources/Unsubscribe",
        "logging/setlevel",
    ],
)
def test_a_method_whose_answers_matter_has_one_spelling(method: str) -> None:
    with pytest.raises(UnknownMethod):
        Handles().check(ALICE, SERVER, Call(method, b"1"))


def test_any_method_of_tasks_is_free_for_ones_own() -> None:
    handles = Handles()
    handles.learn(ALICE, SERVER, call("tools/call"), given(taskId="h"))
    handles.check(ALICE, SERVER, call("tasks/delete", taskId="h", taskIds=["h"], more="x"))
    handles.check(ALICE, SERVER, call("vendor/method", task_id="h", Cursor="x"))


def test_what_belongs_to_ones_own_task_passes() -> None:
    handles = Handles()
    handles.learn(ALICE, SERVER, call("tools/call"), given(task={"taskId": "h"}))
    for method in ANY_METHOD:
        handles.check(ALICE, SERVER, call(method, _meta={RELATED: {"taskId": "h", "x": 1}}))
        handles.check(ALICE, SERVER, call(method, _meta={"\u00e9": "related-task", "x\\": 1}))
    for about in ("progress", "tasks/status"):  # which may be the client's own, that it has made
        note = Call(
            f"notifications/{about}", None, call("x", _meta={RELATED: {"taskId": "c"}}).params
        )
        handles.check(ALICE, SERVER, note)


def key(digest: bytes, **more: Any) -> dict[KeyId, KeyRecord]:
    record = KeyRecord(id=ALICE, holder=PLATFORM, name="a", role="caller", digests=(digest,))
    return {ALICE: replace(record, **more)}


@pytest.mark.parametrize(
    ("later", "kept"),
    [
        ({}, False),
        (key(b"1", revoked_at=1.0), False),
        (key(b"1", holder=TenantId("t")), False),
        (key(b"2"), False),
        (key(b"2", source=Source.STORE), True),
        (key(b"1", digests=(b"2", b"1")), True),
        (key(b"1", role="admin"), True),
    ],
)
def test_handles_go_with_their_key(later: dict[KeyId, KeyRecord], *, kept: bool) -> None:
    handles = Handles()
    handles.turn(key(b"1"))
    handles.learn(ALICE, SERVER, call("tools/list"), given(nextCursor="h"))
    handles.learn(BOB, SERVER, call("tools/list"), given(nextCursor="h"))
    handles.turn(later)
    handles.check(BOB, SERVER, call("tools/list", cursor="h"))  # who has no key at all
    if kept:
        handles.check(ALICE, SERVER, call("tools/list", cursor="h"))
    else:
        with pytest.raises(InvalidParams):
            handles.check(ALICE, SERVER, call("tools/list", cursor="h"))


def test_all_callers_together_are_bounded_and_the_thrifty_lose_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "MAX_IN_ALL", 40)
    handles = Handles()
    handles.learn(ALICE, SERVER, call("tools/list"), given(nextCursor="a"))
    for number in range(100):
        caller = KeyId(f"greedy {number % 3}")
        handles.learn(caller, SERVER, call("tools/list"), given(nextCursor=str(number)))
        assert sum(map(len, handles._owned.values())) == handles._count <= 40
    handles.check(ALICE, SERVER, call("tools/list", cursor="a"))
    handles.check(KeyId("greedy 0"), SERVER, call("tools/list", cursor="99"))
