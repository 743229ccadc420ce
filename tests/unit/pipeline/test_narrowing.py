"""What a narrowed key may name, and what it gets to see."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import Raw
from msgspec.structs import replace

from open_mcp_gateway.access.authorize import authorize
from open_mcp_gateway.access.permit import Permit
from open_mcp_gateway.auth.principal import Permission
from open_mcp_gateway.auth.scope import ScopeText
from open_mcp_gateway.errors import GatewayError, InvalidParams, UnknownMethod
from open_mcp_gateway.pipeline.narrowing import check, may_hear, shown
from open_mcp_gateway.protocol.jsonrpc import Call
from tests.unit.supervisor.memory import principal, snapshot_of, spec

SCOPE = ScopeText(
    tools=("one/read", "one/get_*"),
    deny_tools=("one/get_secret",),
    resources=("one/file:///a/*", "one/note://1", "one/file:///b/../named"),
    prompts=("one/greet",),
)
UPDATED = "notifications/resources/updated"


def permit(scope: ScopeText = SCOPE) -> Permit:
    (entry,) = snapshot_of(spec("one")).entries.values()
    caller = replace(principal(), scope=scope.compiled())
    return authorize(caller, Permission.MCP_CALL, entry)


def call(method: str, **params: Any) -> Call:
    return Call(method, b"1", {name: Raw(json.dumps(one).encode()) for name, one in params.items()})


def refusal(method: str, **params: Any) -> GatewayError:
    with pytest.raises(InvalidParams) as caught:
        check(permit(), call(method, **params))
    return caught.value


IN_SCOPE: list[tuple[str, dict[str, Any]]] = [
    ("tools/call", {"name": "read", "arguments": {"Name": "x"}}),
    ("tools/call", {"name": "get_it"}),
    ("prompts/get", {"name": "greet"}),
    ("resources/read", {"uri": "file:///a/b"}),
    ("resources/read", {"uri": "note://1"}),
    ("resources/read", {"uri": "file:///b/../named"}),
    ("resources/read", {"uri": "file:///a/b..c"}),
    ("resources/subscribe", {"uri": "file:///a/b"}),
    ("resources/unsubscribe", {"uri": "file:///a/b"}),
    ("completion/complete", {"ref": {"type": "ref/prompt", "name": "greet"}}),
    ("completion/complete", {"ref": {"type": "ref/resource", "uri": "file:///a/{x}"}}),
    ("completion/complete", {"ref": {"type": "ref/resource", "uri": "note://1"}}),
    ("subscriptions/listen", {}),
    ("subscriptions/listen", {"notifications": {"toolsListChanged": True}}),
    ("subscriptions/listen", {"notifications": {"resourceSubscriptions": ["note://1"]}}),
    ("tools/list", {"cursor": "x"}),
    ("notifications/progress", {}),
]

OUT_OF_SCOPE: list[tuple[str, dict[str, Any]]] = [
    ("tools/call", {"name": "get_secret"}),
    ("tools/call", {"name": "Read"}),
    ("tools/call", {"name": "read "}),
    ("tools/call", {"name": ""}),
    ("tools/call", {"name": 1}),
    ("tools/call", {"name": None}),
    ("tools/call", {"name": ["read"]}),
    ("tools/call", {"name": "read\ud800"}),
    ("tools/call", {}),
    ("tools/call", {"Name": "read"}),
    ("tools/call", {"name": "read", "Name": "drop"}),
    ("prompts/get", {"name": "other"}),
    ("prompts/get", {"name": "greet", "NAME": "other"}),
    ("resources/read", {"uri": "file:///b"}),
    ("resources/read", {"uri": "file:///a/../b"}),
    ("resources/read", {"uri": "file:///a/%2e%2E/b"}),
    ("resources/read", {"uri": "file:///a/%252e%252e%252fb"}),
    ("resources/read", {"uri": "file:///a/..\\b"}),
    ("resources/read", {"uri": "file:///a/..?x"}),
    ("resources/read", {"uri": "file:///a/.\t./b"}),
    ("resources/read", {"uri": "file:///a/%25252e%25252e/b"}),
    ("resources/read", {"uri": "file:///a/..;/b"}),
    ("completion/complete", {"ref": {"type": "ref/resource", "uri": "file:///a/{x}/../../b"}}),
    ("resources/read", {"uri": 3}),
    ("resources/read", {}),
    ("resources/read", {"uri": "note://1", "uRi": "note://2"}),
    ("resources/subscribe", {"uri": "file:///b"}),
    ("resources/unsubscribe", {"uri": "file:///b"}),
    ("completion/complete", {}),
    ("completion/complete", {"ref": "greet"}),
    ("completion/complete", {"ref": {"name": "greet"}}),
    ("completion/complete", {"ref": {"type": "ref/tool", "name": "greet"}}),
    ("completion/complete", {"ref": {"type": "ref/prompt"}}),
    ("completion/complete", {"ref": {"type": "ref/prompt", "name": "other"}}),
    ("completion/complete", {"ref": {"type": "ref/prompt", "name": "greet", "uri": "x://y"}}),
    ("completion/complete", {"ref": {"type": "ref/resource", "uri": "file:///{x}"}}),
    ("completion/complete", {"ref": {"type": "ref/resource", "uri": "note://1", "name": "no"}}),
    ("completion/complete", {"Ref": {"type": "ref/prompt", "name": "greet"}}),
    ("subscriptions/listen", {"notifications": []}),
    ("subscriptions/listen", {"Notifications": {"resourceSubscriptions": []}}),
    ("subscriptions/listen", {"notifications": {"resourceSubscriptions": None}}),
    ("subscriptions/listen", {"notifications": {"resourceSubscriptions": [1]}}),
    ("subscriptions/listen", {"notifications": {"RESOURCESUBSCRIPTIONS": ["x://y"]}}),
    ("subscriptions/listen", {"notifications": {"resourceSubscriptions": ["note://1", "x://y"]}}),
]


@pytest.mark.parametrize(("method", "params"), IN_SCOPE)
def test_what_is_in_scope_passes(method: str, params: dict[str, Any]) -> None:
    check(permit(), call(method, **params))


@pytest.mark.parametrize(("method", "params"), OUT_OF_SCOPE)
def test_what_is_not_clearly_in_scope_is_refused(method: str, params: dict[str, Any]) -> None:
    refusal(method, **params)


@pytest.mark.parametrize(("method", "params"), [*IN_SCOPE, *OUT_OF_SCOPE])
def test_a_key_that_is_not_narrowed_is_not_looked_at(method: str, params: dict[str, Any]) -> None:
    check(permit(ScopeText()), call(method, **params))


@pytest.mark.parametrize("method", ["test/other", "tools/Call", "notifications/other", ""])
def test_a_method_that_nobody_knows_is_denied(method: str) -> None:
    with pytest.raises(UnknownMethod):
        check(permit(), Call(method, b"1"))
    check(permit(ScopeText()), Call(method, b"1"))


def test_the_refusals_are_those_of_what_does_not_exist() -> None:
    assert refusal("tools/call", name="drop").public == "Unknown tool: drop"
    assert refusal("prompts/get", name="no").public == "Unknown prompt: no"
    missing = refusal("resources/read", uri="x://y")
    assert (missing.public, missing.data) == ("Resource not found: x://y", {"uri": "x://y"})


@pytest.mark.parametrize(
    "ref",
    [
        b'{"type":"ref/prompt","name":"other","name":"greet"}',
        b'{"type":"ref/prompt","name":"other","n\\u0061me":"greet"}',
        b'{"type":"ref/resource","type":"ref/prompt","name":"greet"}',
        b"[" * 5000 + b"]" * 5000,
    ],
)
def test_a_reference_says_each_thing_once(ref: bytes) -> None:
    with pytest.raises(InvalidParams):
        check(permit(), Call("completion/complete", b"1", {"ref": Raw(ref)}))


def test_a_reference_may_hold_numbers_of_any_length() -> None:
    ref = b'{"type":"ref/prompt","name":"greet","n":%b}' % (b"1" * 5_000)
    check(permit(), Call("completion/complete", b"1", {"ref": Raw(ref)}))


def test_an_empty_list_takes_everything_away() -> None:
    for one in (ScopeText(tools=()), ScopeText(tools=(), resources=(), prompts=())):
        for method, params in IN_SCOPE[:7]:
            with pytest.raises(InvalidParams):
                check(permit(one), call(method, **params))


def test_every_resource_means_those_that_step_back_too() -> None:
    check(permit(ScopeText(prompts=())), call("resources/read", uri="file:///a/../b"))


# Answers


LISTS = [
    ("tools/list", "tools", "name", ["read", "get_it"], ["get_secret", "drop"]),
    ("prompts/list", "prompts", "name", ["greet"], ["other"]),
    ("resources/list", "resources", "uri", ["file:///a/x", "note://1"], ["file:///a/../x", "x:"]),
    (
        "resources/templates/list",
        "resourceTemplates",
        "uriTemplate",
        ["file:///a/{x}", "file:///a/b", "note://1"],
        ["file:///{x}", "{x}", "note://1{x}", "note://2"],
    ),
]


@pytest.mark.parametrize(("method", "plural", "key", "kept", "gone"), LISTS)
def test_lists_hold_what_is_in_scope(
    method: str, plural: str, key: str, kept: list[str], gone: list[str]
) -> None:
    def answer(names: list[str], *more: object) -> bytes:
        result = {"nextCursor": "c", plural: [*({key: one, "é": 1.0} for one in names), *more]}
        return json.dumps({"jsonrpc": "2.0", "id": 7, "result": result}).encode()

    everything = answer([*gone, *kept], {}, {key: 1}, "text", None)
    assert json.loads(shown(permit(), method, everything)) == json.loads(answer(kept))
    assert shown(permit(), method, answer(kept)) == answer(kept)
    assert shown(permit(ScopeText()), method, everything) == everything
    assert shown(permit(), "tools/call", everything) == everything


@pytest.mark.parametrize("result", [b"[]", b"1", b"{}", b'{"tools":{}}', b'{"tools":null}'])
def test_what_cannot_be_read_lists_nothing(result: bytes) -> None:
    message = b'{"jsonrpc":"2.0","id":7,"result":%b}' % result
    assert json.loads(shown(permit(), "tools/list", message))["result"] == {"tools": []}


def test_errors_pass_as_they_are() -> None:
    message = b'{"jsonrpc":"2.0","id":7,"error":{"code":-32603,"message":"no"}}'
    assert shown(permit(), "tools/list", message) == message


@pytest.mark.parametrize("member", [{"cacheScope": "public"}, {"ttlMs": 1}, {"resultType": "x"}])
def test_no_cache_may_share_a_narrowed_list(member: dict[str, Any]) -> None:
    message = json.dumps({"id": 7, "result": {"tools": [], **member}}).encode()
    result = json.loads(shown(permit(), "tools/list", message))["result"]
    assert result == {"tools": [], **member, "cacheScope": "private"}


def test_a_private_list_stays_byte_for_byte() -> None:
    message = b'{"id":7, "result": {"tools":[ {"name":"read"} ],"cacheScope":"private"}}'
    assert shown(permit(), "tools/list", message) == message


# Notifications


@pytest.mark.parametrize(
    ("params", "heard"),
    [
        ({"uri": "note://1"}, True),
        ({"uri": "note://2"}, False),
        ({"uri": 1}, False),
        ({}, False),
        ([], False),
        (None, False),
    ],
)
def test_news_of_resources_out_of_scope_are_not_heard(params: object, heard: bool) -> None:
    message: dict[str, object] = {"jsonrpc": "2.0", "method": UPDATED}
    raw = json.dumps(message if params is None else message | {"params": params}).encode()
    assert may_hear(permit(), raw) is heard
    assert may_hear(permit(ScopeText()), raw)


def test_other_messages_are_heard() -> None:
    assert may_hear(permit(), b'{"jsonrpc":"2.0","method":"notifications/message","params":{}}')
