"""The id of an answer that cannot be read, and nothing that merely looks like one."""

from __future__ import annotations

import pytest

from open_mcp_gateway.outbound.salvage import id_from_ends, id_of_odd_message, members_of_batch


@pytest.mark.parametrize(
    "message",
    [
        b'{"jsonrpc":"2.0","id":7,"result":{"content":[',
        b'{ "jsonrpc" : "2.0", "id" : 7, "error" : ',
        b'{"id":7,"jsonrpc":"2.0","result":[',
        b'{"id":7,"result":{} garbage',
        b'{"jsonrpc":1,"id":7,"result":{}}',
        b'{"result":{"x":"\xff"}}}},"jsonrpc":"2.0","id":7}',
        b'{"jsonrpc":"2.0","result":' + b"[" * 100_000 + b"]" * 100_000 + b',"id":7}',
    ],
)
def test_the_id_is_found(message: bytes) -> None:
    assert id_of_odd_message(message) == 7


@pytest.mark.parametrize(
    "message",
    [
        b"Listening on port 7",
        b"7",
        b"{}",
        b'{"id":"7"}',
        b'{"id":7.5,"result":{}}',
        b'{"id":-7,"result":{}}',
        b'{"jsonrpc":2,"id":7,"method":"ping"}',
        b'{"jsonrpc":"2.0","id":7,"method":"sampling/createMessage","params":{',
        b'{"jsonrpc":"2.0","method":"x","params":{"a":1,"id":7}',
        b'{"result":{"id":7',
        b'{"id":' + b"9" * 5000 + b',"result":[',
        b'{"id":' + b"9" * 5000 + b"}",
    ],
)
def test_nothing_is_taken_for_an_id(message: bytes) -> None:
    assert id_of_odd_message(message) is None


def test_the_last_member_counts_only_at_the_end_of_the_outermost_object() -> None:
    front = b'{"result":{"content":["'
    assert id_from_ends(front, b'x"]},"jsonrpc":"2.0","id":12}') == 12
    assert id_from_ends(front, b'x"],"id":12}}') is None


def test_a_batch_is_taken_apart_one_level_deep() -> None:
    batch = b'[{"id":1,"result":{}}, [{"id":2}], 3, {"method":"x"}]'
    assert members_of_batch(batch) == [b'{"id":1,"result":{}}', b'{"method":"x"}']


@pytest.mark.parametrize("message", [b"[", b"[]", b"{}", b"[" * 100_000])
def test_what_is_no_batch_has_no_members(message: bytes) -> None:
    assert members_of_batch(message) == []
