"""A sealed state comes back only from the caller and for the request it was given to."""

import json
from datetime import UTC, datetime

import pytest
from msgspec import Raw

from open_mcp_gateway.errors import InvalidParams
from open_mcp_gateway.names import KeyId, ServerId
from open_mcp_gateway.pipeline.states import VALID_S, StateSeal
from open_mcp_gateway.protocol.jsonrpc import Call

ALICE, SERVER = KeyId("alice"), ServerId("s")


class Hands:
    """A clock moved by hand."""

    def __init__(self) -> None:
        self.at_s = 1000.0

    def monotonic(self) -> float:
        return self.at_s

    def now(self) -> datetime:
        return datetime.now(UTC)

    def wall(self) -> float:
        return self.now().timestamp()


def call(state: str | None = None, *, method: str = "tools/call", arguments: object = 1) -> Call:
    params: dict[str, object] = {"name": "x", "arguments": arguments}
    if state is not None:
        params |= {"requestState": state, "inputResponses": {"a": {}}}
    return Call(
        method, b"1", {name: Raw(json.dumps(value).encode()) for name, value in params.items()}
    )


ASKED = json.dumps(
    {
        "jsonrpc": "2.0",
        "id": 1,
        "result": {"resultType": "input_required", "requestState": "up.st.ream"},
    }
).encode()


def sealed(seal: StateSeal) -> str:
    message = json.loads(seal.sealed(ALICE, SERVER, call(), ASKED))
    assert message["result"]["resultType"] == "input_required"
    state: str = message["result"]["requestState"]
    return state


def test_the_servers_own_state_comes_back() -> None:
    seal = StateSeal(Hands())
    opened = seal.opened(ALICE, SERVER, call(sealed(seal)))
    assert opened.params is not None
    assert json.loads(bytes(opened.params["requestState"])) == "up.st.ream"
    assert json.loads(bytes(opened.params["inputResponses"])) == {"a": {}}


def test_nobody_else_and_nothing_else_can_use_it() -> None:
    seal = StateSeal(Hands())
    state = sealed(seal)
    foreign = [
        (KeyId("bob"), SERVER, call(state)),
        (ALICE, ServerId("t"), call(state)),
        (ALICE, SERVER, call(state, method="prompts/get")),
        (ALICE, SERVER, call(state, arguments=2)),
        (ALICE, SERVER, call(state[:-1] + "X")),
        (ALICE, SERVER, call("up.st.ream")),
        (ALICE, SERVER, call("")),
        (ALICE, SERVER, call("gw1.x.y.z")),
    ]
    for caller, server, request in foreign:
        with pytest.raises(InvalidParams, match="invalid or expired"):
            seal.opened(caller, server, request)
    with pytest.raises(InvalidParams):
        StateSeal(Hands()).opened(ALICE, SERVER, call(state))


def test_a_state_that_is_no_text_is_refused() -> None:
    request = Call("tools/call", b"1", {"requestState": Raw(b"7")})
    with pytest.raises(InvalidParams):
        StateSeal(Hands()).opened(ALICE, SERVER, request)


def test_it_expires() -> None:
    clock = Hands()
    seal = StateSeal(clock)
    state = sealed(seal)
    clock.at_s += VALID_S - 1
    seal.opened(ALICE, SERVER, call(state))
    clock.at_s += 2
    with pytest.raises(InvalidParams):
        seal.opened(ALICE, SERVER, call(state))


@pytest.mark.parametrize(
    "message",
    [
        b'{"jsonrpc":"2.0","id":1,"result":{ "a" : 1.0 }}',
        b'{"jsonrpc":"2.0","id":1,"result":{"text":"\\"requestState\\""}}',
        b'{"jsonrpc":"2.0","id":1,"error":{"requestState":"x"}}',
        b'{"jsonrpc":"2.0","id":1,"result":{"requestState":7}}',
    ],
)
def test_answers_without_a_state_pass_byte_for_byte(message: bytes) -> None:
    assert StateSeal(Hands()).sealed(ALICE, SERVER, call(), message) == message


def test_requests_without_a_state_pass() -> None:
    for request in (call(), Call("tools/list", b"1")):
        assert StateSeal(Hands()).opened(ALICE, SERVER, request) is request


@pytest.mark.parametrize(
    "name", ["RequestState", "requeststate", "request_state", "reque\u017ftState"]
)
def test_no_other_spelling_gets_past_the_seal(name: str) -> None:
    seal = StateSeal(Hands())
    for request in (call(), call(sealed(seal))):
        assert request.params is not None
        sly = Call("tools/call", b"1", {**request.params, name: Raw(b'"up.st.ream"')})
        with pytest.raises(InvalidParams, match="'requestState' must be there once"):
            seal.opened(ALICE, SERVER, sly)
