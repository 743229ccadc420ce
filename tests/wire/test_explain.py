"""Explanations against what is enforced, and what they keep to themselves; over real sockets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from open_mcp_gateway.auth.scope import ScopeText
from tests.rawhttp import request
from tests.wire.faces import Face, face, new_store
from tests.wire.stored_keys import Office
from tests.wire.tenants import ALPHA, KEYS, SERVERS, TENANTS, get, key, post, secret

HIDDEN = b'{"allowed":false,"code":"not_found"}'
QUESTION = {"action": "mcp:call", "server": "pg", "tool": "drop_table"}


@pytest.fixture(scope="module")
def front() -> Iterator[Face]:
    reader = key("reader", ALPHA, "caller", scope=ScopeText(resources=("pg/file:///pub/*",)))
    with face("hot", *SERVERS, keys=(*KEYS, reader), tenants=TENANTS) as running:
        yield running


def why(front: Face, who: str, question: object) -> dict[str, Any]:
    answer = post(front, who, "/auth/explain", question)
    assert answer.status == 200, answer
    told: dict[str, Any] = json.loads(answer.body)
    return told


def test_a_tool_out_of_scope(front: Face) -> None:
    told = why(front, "narrow", QUESTION)
    assert (told["allowed"], told["code"]) == (False, "not_in_scope")
    assert [step for step in told["trail"] if not step["ok"]] == [
        {
            "check": "the tool is one of the key's",
            "subject": "pg/drop_table",
            "ok": False,
            "have": ["pg/query"],
        }
    ]
    assert told["smallest_fix"] == [
        {"op": "add", "path": "/scope/tools/-", "value": "pg/drop_table"}
    ]


def test_a_tool_in_scope(front: Face) -> None:
    told = why(front, "narrow", QUESTION | {"tool": "query"})
    assert (told["allowed"], told["code"], told["smallest_fix"]) == (True, "allowed", [])
    assert all(step["ok"] for step in told["trail"])


def test_parts_that_were_never_mentioned(front: Face) -> None:
    told = why(front, "narrow", {"action": "mcp:call", "server": "pg", "resource": "file:///a"})
    assert told["smallest_fix"] == [
        {"op": "add", "path": "/scope/resources", "value": ["pg/file:///a"]}
    ]
    prompt = why(front, "narrow", {"action": "mcp:call", "server": "pg", "prompt": "p"})
    assert prompt["smallest_fix"][0]["path"] == "/scope/prompts"


def test_a_resource_that_steps_back_out(front: Face) -> None:
    uri = "file:///pub/../secret"
    told = why(front, "reader", {"action": "mcp:call", "server": "pg", "resource": uri})
    assert (told["allowed"], told["code"]) == (False, "not_in_scope")
    failed = [step["check"] for step in told["trail"] if not step["ok"]]
    assert failed == ["the resource is named in full, or cannot step back out of what is named"]
    assert told["smallest_fix"] == [
        {"op": "add", "path": "/scope/resources/-", "value": f"pg/{uri}"}
    ]


def test_a_denied_tool(front: Face) -> None:
    told = why(front, "denied", QUESTION)
    assert told["smallest_fix"] == [{"op": "remove", "path": "/scope/deny_tools/0"}]


def test_a_role_that_is_too_small(front: Face) -> None:
    told = why(front, "viewer", QUESTION)
    assert told["code"] == "permission_denied"
    assert told["smallest_fix"] == [{"op": "replace", "path": "/role", "value": "caller"}]
    gateway = why(front, "caller", {"action": "keys:read"})
    assert gateway["smallest_fix"] == [{"op": "replace", "path": "/role", "value": "tenant-admin"}]
    never = why(front, "caller", {"action": "tenants:read"})
    assert (never["allowed"], never["smallest_fix"]) == (False, [])


@pytest.mark.parametrize("who", ["narrow", "caller", "boss"])
@pytest.mark.parametrize("action", ["servers:read", "servers:stop", "mcp:call"])
def test_hidden_is_as_missing(front: Face, who: str, action: str) -> None:
    hidden = post(front, who, "/auth/explain", {"action": action, "server": "web"})
    missing = post(front, who, "/auth/explain", {"action": action, "server": "none"})
    assert hidden.status == missing.status == 200
    assert hidden.body == missing.body == HIDDEN


def test_hidden_stays_hidden_in_the_name_of_others(front: Face) -> None:
    """A tenant's administrator learns nothing of servers by asking for a key of the tenant."""
    for about in ({"key_id": "caller"}, {"role": "admin"}, {"role": "viewer", "tenant": "alpha"}):
        question = {"action": "servers:read", "server": "web", "as": about}
        assert post(front, "boss", "/auth/explain", question).body == HIDDEN


def test_the_key_of_another(front: Face) -> None:
    told = why(front, "boss", QUESTION | {"as": {"key_id": "narrow"}})
    assert told["trail"][0] == {"check": "key_live", "subject": "narrow", "ok": True}
    own = why(front, "narrow", QUESTION)
    assert told["trail"][1:] == own["trail"]
    assert told["smallest_fix"] == own["smallest_fix"]
    assert why(front, "narrow", QUESTION | {"as": {"key_id": "narrow"}}) == own


def test_what_the_tenant_lacks(front: Face) -> None:
    question = {"action": "servers:read", "server": "web", "as": {"key_id": "caller"}}
    told = why(front, "auditor", question)
    assert told["code"] == "not_found"
    assert told["smallest_fix"] == [
        {"op": "add", "path": "/tenants/alpha/namespaces/-", "value": "stage"}
    ]
    failed = [step for step in told["trail"] if not step["ok"]]
    assert failed[0]["have"] == ["dev", "prod"]


@pytest.mark.parametrize(
    ("who", "reason"), [("revoked", "revoked"), ("blocked", "tenant_disabled")]
)
def test_a_key_that_does_not_open(front: Face, who: str, reason: str) -> None:
    told = why(front, "root", QUESTION | {"as": {"key_id": who}})
    assert (told["allowed"], told["code"]) == (False, "key_not_live")
    assert told["trail"][0] == {"check": "key_live", "subject": who, "ok": False, "have": [reason]}
    assert told["smallest_fix"] == []


def test_a_key_that_might_be_made(front: Face) -> None:
    asked = {"action": "servers:start", "server": "web"}
    assert why(front, "root", asked | {"as": {"role": "operator", "tenant": "beta"}})["allowed"]
    assert not why(front, "root", asked | {"as": {"role": "caller", "tenant": "beta"}})["allowed"]
    assert not why(front, "root", asked | {"as": {"role": "operator", "tenant": "alpha"}})[
        "allowed"
    ]
    assert why(front, "root", asked | {"as": {"role": "operator"}})["allowed"]
    own = {"action": "servers:start", "server": "pg", "as": {"role": "operator"}}
    assert why(front, "boss", own)["allowed"]
    platform = {"action": "catalog:reload", "as": {"role": "admin"}}
    assert not why(front, "boss", platform)["allowed"]
    assert why(front, "auditor", platform)["allowed"]


@pytest.mark.parametrize(
    ("who", "about", "status", "text"),
    [
        ("caller", {"key_id": "boss"}, 403, "explain:any"),
        ("caller", {"key_id": "none"}, 403, "explain:any"),
        ("caller", {"role": "caller"}, 403, "explain:any"),
        ("boss", {"key_id": "other"}, 404, "Key 'other' not found"),
        ("boss", {"key_id": "root"}, 404, "Key 'root' not found"),
        ("boss", {"key_id": "none"}, 404, "Key 'none' not found"),
        ("boss", {"role": "caller", "tenant": "beta"}, 404, "Tenant 'beta' not found"),
        ("boss", {"role": "caller", "tenant": "none"}, 404, "Tenant 'none' not found"),
        ("root", {"role": "caller", "tenant": "gone"}, 404, "Tenant 'gone' not found"),
        ("root", {"role": "none"}, 400, "'none' is no role; the roles are admin,"),
        ("root", {}, 400, "'as' takes 'key_id', or 'role'"),
        ("root", {"tenant": "alpha"}, 400, "'as' takes 'key_id', or 'role'"),
        ("root", {"key_id": "caller", "role": "viewer"}, 400, "'as' takes 'key_id' alone"),
        ("root", {"key": "caller"}, 400, "unknown field `key`"),
        ("root", {"role": "viewer", "tenant": None}, 400, "$.as.tenant"),
        ("root", None, 400, "$.as"),
    ],
)
def test_in_whose_name(front: Face, who: str, about: object, status: int, text: str) -> None:
    answer = post(front, who, "/auth/explain", QUESTION | {"as": about})
    assert answer.status == status
    assert text in json.loads(answer.body)["message"]


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "the body is not a question"),
        (b"{", "the body is not a question"),
        (b"\xff", "the body is not a question"),
        (b'{"action":"\xff"}', "the body is not a question"),
        (b'{"x":' + b"[" * 50_000, "the body is not a question"),
        ([], "the body is not a question"),
        ({}, "name the 'action'"),
        ({"action": "mcp:cal"}, "'mcp:cal' is no action; the actions are servers:list,"),
        ({"action": "*"}, "'*' is no action"),
        ({"action": "MCP_CALL"}, "'MCP_CALL' is no action"),
        ({"action": 1}, "$.action"),
        ({"action": "mcp:call", "servers": "pg"}, "unknown field `servers`"),
        ({"action": "mcp:call", "tool": "a"}, "name the 'server' of the tool"),
        (QUESTION | {"prompt": "a"}, "name one of 'tool', 'resource' and 'prompt'"),
        ({"action": "servers:read", "server": "pg", "tool": "a"}, "not about a tool"),
        ({"action": "keys:read", "server": "pg"}, "not about a server"),
        ({"checks": []}, "length >= 1 - at `$.checks`"),
        ({"checks": [QUESTION] * 101}, "length <= 100 - at `$.checks`"),
        ({"checks": [QUESTION], "action": "mcp:call"}, "nothing beside it"),
        ({"checks": [{"checks": []}]}, "unknown field `checks`"),
    ],
)
def test_what_is_no_question(front: Face, body: object, text: str) -> None:
    answer = post(front, "root", "/auth/explain", body)
    assert answer.status == 400
    assert text in json.loads(answer.body)["message"]


def test_many_questions(front: Face) -> None:
    checks = [QUESTION, {"action": "servers:read", "server": "web"}] * 50
    told = why(front, "narrow", {"checks": checks})
    assert len(told["results"]) == 100
    assert told["results"][:2] == [why(front, "narrow", one) for one in checks[:2]]


def test_it_is_for_callers_alone(front: Face) -> None:
    assert post(front, None, "/auth/explain", QUESTION).status == 401
    assert post(front, "revoked", "/auth/explain", QUESTION).status == 403
    raw = request(
        b"/auth/explain",
        (b"X-API-Key", secret("root")),
        (b"Content-Type", b"text/plain"),
        method=b"POST",
        body=json.dumps(QUESTION).encode(),
    )
    assert front.ask(raw).status == 415


@pytest.mark.parametrize("who", ["root", "auditor", "viewer", "caller", "boss", "narrow", "denied"])
@pytest.mark.parametrize("server", ["pg", "git", "web", "none"])
def test_the_answer_is_what_is_enforced(front: Face, who: str, server: str) -> None:
    told = why(front, who, {"action": "servers:read", "server": server})
    assert get(front, who, f"/servers/{server}").status == (200 if told["allowed"] else 404)
    stop = why(front, who, {"action": "servers:stop", "server": server})
    status = {"allowed": 200, "permission_denied": 403, "not_found": 404}[stop["code"]]
    assert post(front, who, f"/servers/{server}/stop", b"").status == status


def test_without_authentication() -> None:
    with face("hot", *SERVERS, keys=(), auth_enabled=False) as unlocked:
        answer = post(unlocked, None, "/auth/explain", QUESTION)
        assert json.loads(answer.body)["allowed"]
        other = QUESTION | {"as": {"role": "viewer"}}
        assert post(unlocked, None, "/auth/explain", other).status == 403


def test_a_tenant_as_a_whole(tmp_path: Path) -> None:
    """The refusal of a change says how to ask why, and the answer is what is enforced."""
    with new_store(tmp_path) as store, face("hot", store=store) as front:
        office = Office(front.ask)
        office.tenant("acme", ["prod", "dev"])
        for scope, failed, fix in (
            (
                {"namespaces": ["prod"]},
                [("each namespace of the tenant is one of the key's", "dev")],
                [{"op": "add", "path": "/scope/namespaces/-", "value": "dev"}],
            ),
            (
                {"servers": ["pg"], "tools": ["pg/*"]},
                [("the key may call everything in a namespace", "acme")],
                [
                    {"op": "remove", "path": "/scope/servers"},
                    {"op": "remove", "path": "/scope/tools"},
                ],
            ),
            ({}, [], []),
        ):
            made = office.key(f"k{len(fix)}{len(failed)}", role="admin", tenant=None, scope=scope)
            narrow = Office(front.ask, made.secret)
            answer = narrow.send("PATCH", "/admin/tenants/acme", {"name": "x"})
            told = json.loads(answer.body)
            assert answer.status == (403 if failed else 200)
            question = {"action": "tenants:write", "tenant": "acme"}
            if failed:
                assert told["resource"] == "tenant/acme"
                assert told["explain"] == f"POST /auth/explain {json.dumps(question)}"
                assert narrow.send("DELETE", "/admin/tenants/acme").status == 403
            why_not = narrow.done("POST", "/auth/explain", question)
            found = [(one["check"], one["subject"]) for one in why_not["trail"] if not one["ok"]]
            assert (why_not["allowed"], found) == (not failed, failed)
            assert why_not["smallest_fix"] == fix
            missing = narrow.send("POST", "/auth/explain", {**question, "tenant": "nobody"})
            assert missing.status == 404
            other = narrow.send("POST", "/auth/explain", {**question, "action": "keys:write"})
            assert other.status == 400
