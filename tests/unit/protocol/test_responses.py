"""What a response has to be."""

from __future__ import annotations

import json

import pytest

from open_mcp_gateway.protocol.jsonrpc import decode_incoming
from open_mcp_gateway.protocol.responses import Unsound, sound


def passed(message: bytes, upstream_id: int = 5) -> bytes:
    return sound(decode_incoming(message), message, upstream_id)


@pytest.mark.parametrize(
    ("message", "upstream_id"),
    [
        (b'{"jsonrpc":"2.0","id":5,"result":{}}', 5),
        (b'{"result":{"id":1,"jsonrpc":2},"id":123456789012,"jsonrpc":"2.0"}', 123456789012),
        (b'{"jsonrpc": "2.0", "id": 5, "result": {"id": 5}}', 5),
        (b'{ "jsonrpc" : "2.0" ,\t"id" : 5 , "x" : {"id":5} , "result" : {"id":5} }', 5),
        (b'{"jsonrpc":"2.0","id":5,"error":{"code":-1,"message":"","data":[{"id":5}]}}', 5),
        (b'{"jsonrpc":"2.0","id":5,"error":{"code":-1,"message":"m"},"x":1,"x":2}', 5),
    ],
)
def test_a_response_passes_as_it_came(message: bytes, upstream_id: int) -> None:
    assert passed(message, upstream_id) is message


@pytest.mark.parametrize(
    "message",
    [
        b'{"jsonrpc":"2.0","id":5,"result":{},"id":5}',
        b'{"jsonrpc":"2.0","id":1,"id":5,"result":{}}',
        b'{"id":1,"jsonrpc":"2.0","result":{},"id":5}',
        b'{"jsonrpc":"2.0","id":5,"result":{}, "i\\u0064": 5 }',
        b'{"jsonrpc":"2.0","result":0,"id":5,"result":{}}',
        b'{"jsonrpc":"2.0","id":5,"id":5,"error":{"code":1,"message":"m"}}',
    ],
)
def test_what_is_there_twice_is_written_once(message: bytes) -> None:
    names = [name for name, _ in json.loads(passed(message), object_pairs_hook=list)]
    assert len(names) == len(set(names)) == 3
    assert json.loads(passed(message)) == json.loads(message)


@pytest.mark.parametrize("digits", range(1, 16))
def test_an_id_of_any_length_may_be_there_twice(digits: int) -> None:
    upstream_id = int("1" * digits)
    text = b'{"jsonrpc":"2.0","id":%d,"result":{},"id":%d}' % (upstream_id, upstream_id)
    assert passed(text, upstream_id).count(b'"id"') == 1
    text = b'{"id":1,"jsonrpc":"2.0","id":%d,"result":{}}' % upstream_id
    assert passed(text, upstream_id).count(b'"id"') == 1


@pytest.mark.parametrize(
    "error", [b'"boom"', b"null", b"[]", b"{}", b'{"code":"1","message":"m"}', b'{"code":1}']
)
def test_an_error_has_a_code_and_a_message(error: bytes) -> None:
    with pytest.raises(Unsound, match="error"):
        passed(b'{"jsonrpc":"2.0","id":5,"error":%b}' % error)
