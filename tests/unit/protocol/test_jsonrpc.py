"""Reading and writing JSON-RPC without looking into payloads."""

import contextlib
import json
import timeit
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET, Raw

from open_mcp_gateway.errors import InvalidRequest, MalformedMessage
from open_mcp_gateway.protocol import jsonrpc
from open_mcp_gateway.protocol.jsonrpc import (
    decode_incoming,
    encode_params,
    error_response,
    notification,
    request,
    response,
    restore_id,
)
from open_mcp_gateway.protocol.messages import (
    MAX_DEPTH,
    call_of,
    decode_message,
    raw_id_of,
    text_of,
)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def call(body: bytes) -> jsonrpc.Call:
    return call_of(decode_message(body), enveloped=True)


def test_a_call_keeps_id_and_arguments_as_they_were_written() -> None:
    read = call(b'{"id": "\\u0061b", "method":"tools/call","params":{"arguments": { "x" : 1.0 }}}')
    assert read.id == b'"\\u0061b"'
    assert encode_params(read.params) == b'{"arguments":{ "x" : 1.0 }}'


def test_a_request_without_id_gets_one_of_its_own() -> None:
    first, second = call(b'{"method":"ping"}'), call(b'{"method":"ping"}')
    assert first.id is not None
    assert first.id != second.id


@pytest.mark.parametrize(
    "body", [b'{"method":"notifications/x"}', b'{"id":1,"method":"notifications/x"}']
)
def test_notifications_are_known_by_their_method(body: bytes) -> None:
    assert call(body).id is None


def test_null_params_are_no_params() -> None:
    assert call(b'{"method":"a","params":null}').params is None


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"[]", "one JSON object"),
        (b"1", "one JSON object"),
        (b'{"method":"a","params":[1]}', "'params' must be a JSON object"),
        (b'{"method":"a","params":"x"}', "'params' must be a JSON object"),
        (b'{"method":1}', "'method' must be a non-empty string"),
        (b'{"method":""}', "'method' must be a non-empty string"),
        (b'{"params":{}}', "'method' is missing"),
        (b'{"jsonrpc":"1.0","method":"a"}', "'jsonrpc' must be"),
        (b'{"id":null,"method":"a"}', "'id' must be"),
        (b'{"id":1.0,"method":"a"}', "'id' must be"),
        (b'{"id":1e3,"method":"a"}', "'id' must be"),
        (b'{"id":true,"method":"a"}', "'id' must be"),
        (b'{"id":{},"method":"a"}', "'id' must be"),
        (b'{"id":1,"id":2,"method":"a"}', "member 'id' appears twice"),
        (b'{"id":1,"i\\u0064":2,"method":"a"}', "member 'id' appears twice"),
        (b'{"method":"a","params":{"name":"x","name":"y"}}', "'params.name' appears twice"),
        (b'{"method":"a","params":{"name":"x", "name":"y"}}', "'params.name' appears twice"),
        (b'{"id":1,"method":"a","method":"b"}', "member 'method' appears twice"),
        (b'{ "method" : "a" , "params" : {} , "params" : {} }', "member 'params' appears twice"),
        (b'{"method":"a","params":{"_meta":{},"n":1,"_meta":{"x":1}}}', "'params._meta'"),
        (b'{"method":"a","params":{"name":"x","n\\u0061me":"y"}}', "'params.name' appears twice"),
    ],
)
def test_what_is_json_but_no_message_is_an_invalid_request(body: bytes, text: str) -> None:
    with pytest.raises(InvalidRequest, match=text):
        call(body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"method":"a"} x',
        b"\xef\xbb\xbf{}",
        b'{"method":"a","params":{"x":"\xff"}}',
        b"\x00",
        b'{"params":' + b"[" * 100_000,
        b'{"method":"a","params":' + b'{"a":' * 5_000 + b"1" + b"}" * 5_001,
        b'{"x":NaN}',
    ],
)
def test_what_is_no_json_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedMessage):
        decode_message(body)


def test_deep_nesting_found_by_the_slow_duplicate_check_is_malformed() -> None:
    deep = b'{"id":1,"a":{"id":2},"b":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    with pytest.raises(MalformedMessage, match="deep"):
        decode_message(deep)


@pytest.mark.parametrize("front", [b"", b'"s":"\\u0041", '], ids=["plain", "escape"])
def test_how_deep_a_message_may_be_nested(front: bytes) -> None:
    def nested(levels: int) -> bytes:
        inner = levels - 2  # the message itself and params
        value = b"[" * inner + b"]" * inner
        return b'{%b"id":1,"method":"a","params":{"a":%b}}' % (front, value)

    assert call(nested(MAX_DEPTH)).method == "a"
    with pytest.raises(MalformedMessage, match="deep"):
        decode_message(nested(MAX_DEPTH + 1))


def test_numbers_of_any_length_pass_the_duplicate_check() -> None:
    digits = b"1" * 5_000
    body = b'{"method":"a","params":{"arguments":{"n":%b,"s":"\\u0041"} }}' % digits
    params = call(body).params
    assert params is not None
    assert digits in bytes(params["arguments"])


def test_the_duplicate_check_does_not_build_what_the_message_holds() -> None:
    items = b",".join([b'{"a":1}'] * 100_000)
    compact = b'{"id":1,"method":"a","params":{"arguments":{"s":"\\u0041","x":[%b]}}}' % items
    other = compact[:-2] + b" }}"

    def cost_s(body: bytes) -> float:
        return min(timeit.repeat(lambda: call(body), timer=process_time, number=1, repeat=5))

    assert cost_s(other) < 15 * cost_s(compact)


@pytest.mark.parametrize("name", [b"id", b"name"])
def test_the_same_name_at_another_depth_is_no_duplicate(name: bytes) -> None:
    body = b'{"id":1,"method":"a","params":{"arguments":{"%b":3,"in":{"%b":4}}}}' % (name, name)
    assert call(body).method == "a"


def test_params_that_are_no_object_are_passed_over_by_the_duplicate_check() -> None:
    message = decode_message(b'{"id":1,"params":[{"id":2}]}')
    assert message.method is UNSET


@given(
    st.dictionaries(st.sampled_from(["name", "uri", "_meta", "x", "é"]), JSON, max_size=4),
    st.sampled_from([(",", ":"), (", ", ": "), (" , ", " :")]),
    st.booleans(),
)
def test_no_way_of_writing_a_message_is_taken_for_a_duplicate(
    params: dict[str, object], separators: tuple[str, str], ascii_only: bool
) -> None:
    members = {"server_id": "s", "id": 1, "method": "m", "params": params, "other": {"id": 2}}
    text = json.dumps(members, separators=separators, ensure_ascii=ascii_only)
    assert call(text.encode("utf-8", "surrogatepass")).method == "m"


@pytest.mark.parametrize(
    ("body", "raw_id"), [(b'{"id":7}', b"7"), (b'{"id":null}', None), (b"{}", None)]
)
def test_the_id_to_answer_with(body: bytes, raw_id: bytes | None) -> None:
    assert raw_id_of(decode_message(body)) == raw_id
    assert raw_id_of(None) is None


def test_text_of_names_the_member() -> None:
    with pytest.raises(InvalidRequest, match="'server_id'"):
        text_of(Raw(b"7"), "server_id")


@given(JSON, st.integers(0, 2**53), st.text())
def test_restoring_an_id_changes_nothing_else(result: object, upstream_id: int, name: str) -> None:
    raw_id = json.dumps(name).encode()
    shapes: list[dict[str, object]] = [
        {"jsonrpc": "2.0", "id": upstream_id, "result": result},
        {"result": result, "jsonrpc": "2.0", "id": upstream_id},
        {"id": upstream_id, "vendor": result, "result": {"id": upstream_id}},
    ]
    for shape in shapes:
        for separators in ((",", ":"), (", ", ": ")):
            line = json.dumps(shape, separators=separators).encode()
            restored = json.loads(restore_id(line, upstream_id, raw_id))
            assert restored == shape | {"id": name}


def test_restoring_an_id_leaves_bytes_alone() -> None:
    line = b'{"jsonrpc":"2.0","id":5,"result":{ "a" : 1.50 }}'
    assert restore_id(line, 5, b'"x"') == b'{"jsonrpc":"2.0","id":"x","result":{ "a" : 1.50 }}'
    line = b'{"result":{ "a" : 1.50 },"jsonrpc":"2.0","id":5}'
    assert restore_id(line, 5, b"1") == b'{"result":{ "a" : 1.50 },"jsonrpc":"2.0","id":1}'


def test_an_id_that_only_begins_like_ours_is_not_ours() -> None:
    line = b'{"jsonrpc":"2.0","id":55,"result":{}}'
    assert json.loads(restore_id(line, 5, b"1"))["result"] == {}


def test_frames() -> None:
    assert request(1, "a", None) == b'{"jsonrpc":"2.0","id":1,"method":"a"}'
    assert request(1, "a", b"{}") == b'{"jsonrpc":"2.0","id":1,"method":"a","params":{}}'
    assert notification('"', None) == b'{"jsonrpc":"2.0","method":"\\""}'
    assert notification("a", b"{}") == b'{"jsonrpc":"2.0","method":"a","params":{}}'
    assert response(b'"x"', b"{}") == b'{"jsonrpc":"2.0","id":"x","result":{}}'
    plain = b'{"jsonrpc":"2.0","id":null,"error":{"code":-1,"message":"m"}}'
    assert error_response(None, -1, "m") == plain
    assert json.loads(error_response(b"1", -1, "m", {"a": 1}))["error"]["data"] == {"a": 1}
    assert encode_params(None) is None


@pytest.mark.parametrize("line", [b"", b"[]", b"x", b'{"id":1.5}', b"[" * 50_000])
def test_a_server_line_that_is_no_message_is_malformed(line: bytes) -> None:
    with pytest.raises(MalformedMessage):
        decode_incoming(line)


def test_a_server_line_is_read_by_its_members() -> None:
    read = decode_incoming(b'{"jsonrpc":"2.0","id":null,"result":{"a":1}}')
    assert read.id is None
    assert read.method is UNSET
    assert bytes(read.result) == b'{"a":1}'  # type: ignore[arg-type]
    with pytest.raises(MalformedMessage, match="deep"):
        decode_incoming(b'{"result":' + b"[" * 50_000)


@given(st.binary(max_size=60))
def test_no_body_raises_anything_else(body: bytes) -> None:
    with contextlib.suppress(InvalidRequest, MalformedMessage):
        call(body)
