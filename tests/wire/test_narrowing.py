"""Keys narrowed to some tools, resources and prompts of a server, through every face."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, Final

import pytest

from open_mcp_gateway.access.policy import ADMIN_ROLE, platform_admin
from open_mcp_gateway.auth.apikeys import digest_of
from open_mcp_gateway.auth.principal import PLATFORM
from open_mcp_gateway.auth.records import KeyRecord
from open_mcp_gateway.auth.scope import ScopeText
from open_mcp_gateway.names import KeyId
from tests.rawhttp import request
from tests.wire.conftest import MakeClient
from tests.wire.faces import ALL, JSON, KEY, Face, face
from tests.wire.mcp_client import ACCEPT, CAPABILITIES, MODERN, VERSION, Client, Json, mirror
from tests.wire.test_sse_face import opened

NARROW: Final = b"test-key-narrow-41c7d9"
SCOPE: Final = ScopeText(
    tools=("*",),
    deny_tools=("legacy/drop", "modern/drop", "unused/*"),
    resources=("legacy/file:///a/*", "modern/file:///a/*"),
    prompts=("legacy/greet", "modern/greet"),
)
KEYS: Final = (
    platform_admin(digest_of(KEY), KeyId("test")),
    KeyRecord(
        id=KeyId("narrow"),
        holder=PLATFORM,
        name="narrow",
        role=ADMIN_ROLE,
        scope=SCOPE,
        digests=(digest_of(NARROW),),
    ),
)

ALLOWED: Final[tuple[tuple[str, Json], ...]] = (
    ("tools/call", {"name": "read", "arguments": {}}),
    ("prompts/get", {"name": "greet"}),
    ("resources/read", {"uri": "file:///a/1"}),
    ("completion/complete", {"ref": {"type": "ref/prompt", "name": "greet"}}),
)
REFUSED: Final[tuple[tuple[str, Json, str], ...]] = (
    ("tools/call", {"name": "drop", "arguments": {}}, "Unknown tool: drop"),
    ("prompts/get", {"name": "other"}, "Unknown prompt: other"),
    ("resources/read", {"uri": "file:///b"}, "Resource not found: file:///b"),
    ("resources/read", {"uri": "file:///a/../b"}, "Resource not found: file:///a/../b"),
    (
        "completion/complete",
        {"ref": {"type": "ref/prompt", "name": "other"}},
        "Unknown prompt: other",
    ),
)
SAID: Final = {"said": 1}
ITEMS: Final = [{"name": "drop"}, {"name": "read", "x": 1.0}, {}]

Ask = Callable[[str, Json], Json]


@pytest.fixture(scope="module", params=ALL)
def front(request: pytest.FixtureRequest) -> Iterator[Face]:
    servers = (
        mirror("legacy", "legacy"),
        mirror("modern", "modern"),
        mirror("unused", "legacy"),
    )
    with face(request.param, *servers, keys=KEYS) as running:
        yield running
        running.at_rest()


def message(method: str, params: Json) -> Json:
    return {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}


def posted(front: Face, path: bytes, body: bytes, *headers: tuple[bytes, bytes]) -> Json:
    key = (b"X-API-Key", NARROW)
    answer = front.ask(request(path, key, JSON, *headers, method=b"POST", body=body))
    decoded: Json = json.loads(answer.body)
    return decoded


def enveloped(front: Face, server_id: str) -> Ask:
    def ask(method: str, params: Json) -> Json:
        body = {"server_id": server_id, **message(method, params)}
        return posted(front, b"/mcp", json.dumps(body).encode())

    return ask


def by_rpc(front: Face, server_id: str) -> Ask:
    def ask(method: str, params: Json) -> Json:
        body = json.dumps(message(method, params)).encode()
        return posted(front, b"/rpc", body, (b"X-Server-ID", server_id.encode()))

    return ask


@pytest.fixture(params=["envelope", "envelope-modern", "rpc", "session", "batch", "sse", "modern"])
def ask(request: pytest.FixtureRequest, front: Face, client: MakeClient) -> Ask:
    """A request of the narrowed key, through one of the faces."""
    match request.param:
        case "envelope":
            return enveloped(front, "legacy")
        case "envelope-modern":
            return enveloped(front, "modern")
        case "rpc":
            return by_rpc(front, "legacy")
        case "session":
            session = client(front, "legacy", key=NARROW).initialize()
            return lambda method, params: session.ask(method, params).message
        case "batch":
            batch = client(front, "legacy", key=NARROW).initialize("2025-03-26")
            return lambda method, params: in_batch(batch, method, params)
        case "sse":
            stream = opened(client(front, "legacy", key=NARROW))
            stream.initialize()
            return stream.ask
        case _:
            modern = client(front, "modern", key=NARROW)
            return lambda method, params: modern.modern(method, params).message


def in_batch(session: Client, method: str, params: Json) -> Json:
    """The answer to a request that has an allowed one before and after it in its batch."""
    fine = {"name": "read", "arguments": {}, "say": f'"result":{json.dumps(SAID)}'}
    batch = [
        {**message("tools/call", fine), "id": "before"},
        message(method, params),
        {**message("tools/call", fine), "id": "after"},
    ]
    reply = session.post(batch)
    answers: Any = reply.messages() if reply.is_stream else json.loads(reply.body)
    flat = [one for some in answers for one in (some if isinstance(some, list) else [some])]
    by_id = {one["id"]: one for one in flat}
    assert by_id["before"]["result"] == by_id["after"]["result"] == SAID
    found: Json = by_id[1]
    return found


def last_heard(client: MakeClient, front: Face) -> list[str]:
    """What both servers were sent last, by any connection of those that share."""
    session = client(front, "legacy").initialize()
    legacy = session.ask("test/last").result["line"]
    return [legacy, client(front, "modern").modern("test/last").result["line"]]


@pytest.mark.parametrize(("method", "params"), ALLOWED)
def test_what_is_in_scope_passes(ask: Ask, method: str, params: Json) -> None:
    assert ask(method, params | {"say": f'"result":{json.dumps(SAID)}'})["result"] == SAID


@pytest.mark.parametrize(("method", "params", "text"), REFUSED)
def test_what_is_out_of_scope_does_not_exist(
    ask: Ask, method: str, params: Json, text: str
) -> None:
    error = ask(method, params | {"say": '"result":{"leaked":1}'})["error"]
    assert (error["code"], error["message"]) == (-32602, text)
    if "uri" in params:
        assert error["data"] == {"uri": params["uri"]}


def test_a_method_that_nobody_knows_is_denied(ask: Ask) -> None:
    assert ask("vendor/method", {"say": '"result":{}'})["error"]["code"] == -32601


def test_lists_hold_what_is_in_scope(ask: Ask) -> None:
    result = {"tools": ITEMS, "nextCursor": "c", "ttlMs": 5, "cacheScope": "public"}
    answer = ask("tools/list", {"say": f'"result":{json.dumps(result)}'})
    shown = {"tools": [{"name": "read", "x": 1.0}], "cacheScope": "private"}
    assert answer["result"] == result | shown


def test_the_server_is_not_asked(front: Face, client: MakeClient) -> None:
    for server_id, ask in (("legacy", enveloped), ("modern", enveloped)):
        ask(front, server_id)("tools/call", {"name": "read", "say": '"result":{"mark":1}'})
    before = last_heard(client, front)
    session = client(front, "legacy", key=NARROW).initialize()
    modern = client(front, "modern", key=NARROW)
    for method, params, _ in REFUSED:
        asked = params | {"say": '"result":{}'}
        enveloped(front, "legacy")(method, asked)
        by_rpc(front, "modern")(method, asked)
        assert session.ask(method, asked).error["code"] == -32602
        assert modern.modern(method, asked).error["code"] == -32602
    assert session.notify("notifications/vendor", {"a": 1}).status == 202
    assert last_heard(client, front) == before


def test_no_server_is_started_for_it(front: Face) -> None:
    for ask in (enveloped(front, "unused"), by_rpc(front, "unused")):
        assert ask("tools/call", {"name": "x"})["error"]["message"] == "Unknown tool: x"
        assert ask("prompts/get", {"name": "x"})["error"]["code"] == -32602
        assert ask("vendor/method", {})["error"]["code"] == -32601
    body = b'{"server_id":"unused","method":"notifications/vendor"}'
    assert posted(front, b"/mcp", body)["error"]["code"] == -32601
    assert front.instance("unused") is None


def test_a_resource_that_is_not_there_cannot_be_subscribed_to(
    front: Face, client: MakeClient
) -> None:
    session = client(front, "legacy", key=NARROW).initialize()
    for method in ("resources/subscribe", "resources/unsubscribe"):
        asked = {"uri": "file:///b", "say": '"result":{}'}
        assert session.ask(method, asked).error["data"] == {"uri": "file:///b"}
    modern = client(front, "modern", key=NARROW)
    wanted = {"resourceSubscriptions": ["file:///a/1", "file:///b"]}
    reply = modern.modern("subscriptions/listen", {"notifications": wanted})
    assert (reply.status, reply.error["data"]) == (400, {"uri": "file:///b"})


@pytest.mark.parametrize("capabilities", [{}, {"roots": {}}], ids=["shared", "exclusive"])
def test_news_of_it_are_not_heard(front: Face, client: MakeClient, capabilities: Json) -> None:
    session = client(front, "legacy", key=NARROW).initialize(**capabilities)
    listening = session.listen()
    subscribed = {"uri": "file:///a/1", "say": '"result":{}'}
    assert session.ask("resources/subscribe", subscribed).result == {}

    def news(uri: str) -> str:
        method = "notifications/resources/updated"
        return json.dumps({"jsonrpc": "2.0", "method": method, "params": {"uri": uri}})

    first = [news("file:///b"), news("file:///a/1")]
    said = {"name": "read", "first": first, "say": '"result":{}'}
    assert session.ask("tools/call", said).result == {}
    assert listening.next()["params"] == {"uri": "file:///a/1"}
    assert session.end() == 204


TWICE: Final = (
    '{"name":"read","name":"drop"}',
    '{"name":"drop","n\\u0061me":"read"}',
    '{"name":"read","Name":"drop"}',
    '{"Name":"drop"}',
    '{"name":["drop"]}',
    '{"name":null}',
    "{}",
    "null",
)


@pytest.mark.parametrize("params", TWICE)
def test_no_two_readers_of_a_call_can_differ(front: Face, client: MakeClient, params: str) -> None:
    text = f'"jsonrpc":"2.0","id":1,"method":"tools/call","params":{params}}}'
    codes = {-32600, -32602}
    enveloped_ = f'{{"server_id":"legacy",{text}'.encode()
    assert posted(front, b"/mcp", enveloped_)["error"]["code"] in codes
    session = client(front, "legacy", key=NARROW).initialize()
    reply = session.send(f"{{{text}".encode(), *session.headers())
    assert reply.error["code"] in codes


@pytest.mark.parametrize(("header", "name"), [("read", "drop"), ("drop", "read")])
def test_the_name_in_the_header_is_the_one_in_the_body(
    front: Face, client: MakeClient, header: str, name: str
) -> None:
    own = {VERSION: MODERN, CAPABILITIES: {}}
    body = message("tools/call", {"name": name, "arguments": {}, "_meta": own})
    headers = [
        (b"MCP-Protocol-Version", MODERN.encode()),
        (b"Mcp-Method", b"tools/call"),
        (b"Mcp-Name", header.encode()),
    ]
    modern = client(front, "modern", key=NARROW)
    reply = modern.send(json.dumps(body).encode(), ACCEPT, *headers)
    assert (reply.status, reply.error["code"]) == (400, -32020)


def test_what_was_authorized_is_what_is_sent(front: Face, client: MakeClient) -> None:
    raw = b'{"server_id":"legacy","method":"tools/call","x":{"name":"drop"},"id":1,'
    raw += b'"Params":{"name":"drop"},"params":{"n\\u0061me":"re\\u0061d","say":"\\"result\\":{}"}}'
    assert posted(front, b"/mcp", raw)["result"] == {}
    sent = json.loads(last_heard(client, front)[0])
    assert sent["params"] == {"name": "read", "say": '"result":{}'}
    assert sent.keys() == {"jsonrpc", "id", "method", "params"}


def test_the_same_calls_of_a_key_that_is_not_narrowed(front: Face, client: MakeClient) -> None:
    session = client(front, "legacy").initialize()
    for method, params, _ in REFUSED:
        said = {"say": f'"result":{json.dumps(SAID)}'}
        assert session.ask(method, params | said).result == SAID
        assert client(front, "modern").modern(method, params | said).result == SAID
