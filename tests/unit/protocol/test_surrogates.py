"""JSON with half a character in it: taken, and passed on byte for byte."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Raw, Struct

from open_mcp_gateway.errors import InvalidRequest, MalformedMessage
from open_mcp_gateway.inbound.batch import elements_of
from open_mcp_gateway.protocol.jsonrpc import decode_incoming, encode_params, restore_id
from open_mcp_gateway.protocol.messages import call_of, decode_message
from open_mcp_gateway.protocol.meta import read_meta
from open_mcp_gateway.protocol.mirrored import mirrored_fields
from open_mcp_gateway.protocol.surrogates import Lenient

HALVES = [
    r"\ud83d",
    r"\uDC00",
    r"\ud83d\ud83d",
    r"\udc00\ud83d",
    r"\ud83d\ude00\ud83d",
    r"\ud83d\ud83d\ude00",
    r"\\\ud83d",
    r"\\\\\udc00",
    r"\n\ud83d\u0041",
    r"\uD83D\uDE00\\ud83d\uDBFF",
    "\u0080\\ud83d\u0081",
]
"""What stands in a JSON string; msgspec refuses each."""

_any = Lenient(dict[str, Any])


class Told(Struct, frozen=True):
    text: str
    rest: Raw


@pytest.mark.parametrize("half", HALVES)
def test_messages_with_half_a_character_pass_as_they_are(half: str) -> None:
    arguments = f'{{"text":"{half}","{half}":[1,"{half}"]}}'
    params = f'{{"name":"x","arguments":{arguments},"_meta":{{"x":"{half}"}}}}'
    body = f'{{"jsonrpc":"2.0","id":7,"method":"tools/call","params":{params}}}'.encode()
    with pytest.raises(msgspec.DecodeError):
        msgspec.json.decode(body)
    for sent in (body, body.replace(b'"id"', b' "more":"\\ud83d","id"')):
        call = call_of(decode_message(sent))
        assert call.params is not None
        assert encode_params(call.params) == params.encode()
        assert bytes(read_meta(call.params)["x"]) == f'"{half}"'.encode()
        [(element, text)] = elements_of(b"[%b]" % sent)
        assert text == sent
        assert isinstance(element.params, dict)
        assert encode_params(element.params) == params.encode()
    answer = f'{{"id":3,"result":{params},"jsonrpc":"2.0"}}'.encode()
    result = decode_incoming(answer).result
    assert isinstance(result, Raw)
    assert bytes(result) == params.encode()
    assert restore_id(answer, 3, b'"a"') == answer.replace(b'"id":3', b'"id":"a"')


def test_an_id_comes_back_as_it_was_and_names_are_not_guessed() -> None:
    message = decode_message(b'{"id":"\\ud83d","method":"ping"}')
    assert call_of(message, enveloped=True).id == b'"\\ud83d"'
    with pytest.raises(InvalidRequest, match="'method' must be"):
        call_of(decode_message(b'{"id":1,"method":"ping\\ud83d"}'), enveloped=True)
    # Another name than the server's could be one that is allowed.
    with pytest.raises(InvalidRequest, match="'params' must be"):
        call_of(decode_message(b'{"id":1,"method":"ping","params":{"\\ud83d":1}}'), enveloped=True)
    with pytest.raises(InvalidRequest, match="appears twice"):
        decode_message(b'{"id":1,"method":"ping","\\u0069d":2,"x":"\\ud83d"}')


@pytest.mark.parametrize(
    "body",
    [
        rb'{"id":1,"method":"ping","x":"\ud83d}',
        rb'{"id":1,"method":"ping","x":"\ud83"}',
        rb'{"id":1,"method":"ping","x":"\ud83d\ud83x"}',
        rb'{"id":1,"method":"ping","x":\ud83d}',
        rb'{"id":1,"method":"ping","x":"\ud83dx",}',
        b'{"id":1,"method":"ping","x":"\\ud83d \xff"}',
    ],
)
def test_what_is_no_json_for_another_reason_is_still_refused(body: bytes) -> None:
    with pytest.raises(MalformedMessage, match="not valid JSON"):
        decode_message(body)


def test_text_has_the_replacement_character() -> None:
    told = Lenient(Told).decode(rb'{"text":"a\ud83db \\ud83d","rest":["\ud83d"]}')
    assert told.text == "a\N{REPLACEMENT CHARACTER}b \\ud83d"
    assert bytes(told.rest) == rb'["\ud83d"]'
    assert Lenient(tuple[str, ...]).decode(rb'["\ud83d","\\"]') == ("\ufffd", "\\")


def test_a_schema_with_half_a_character_is_read() -> None:
    fields = mirrored_fields(
        rb'{"description":"\ud83d","properties":{"a":{"type":"string","x-mcp-header":"Region"}}}'
    )
    assert isinstance(fields, tuple)
    assert [field.header for field in fields] == ["Region"]


def test_a_text_that_holds_every_mark_stays_refused() -> None:
    every = "".join(map(chr, range(0x80, 0x90)))
    with pytest.raises(msgspec.DecodeError):
        _any.decode(f'{{"a":"{every}\\ud83d"}}'.encode())
    almost = every.replace("\u0083", "").replace("\u0089", "")
    assert _any.decode(f'{{"a":"{almost}\\ud83d"}}'.encode())["a"] == almost + "\ufffd"


def test_names_with_whole_characters_are_read() -> None:
    body = rb'{"\\ud83d\ud83d\ude00":"\ud83d"}'
    assert _any.decode(body) == {"\\ud83d\N{GRINNING FACE}": "\ufffd"}


@given(st.text(st.sampled_from('\\"u\ud83d\ude00a\u0080\N{GRINNING FACE}'), max_size=30))
def test_any_text_is_read_as_the_standard_library_reads_it(text: str) -> None:
    written = json.dumps({"a": text})
    read = json.loads(written)["a"]
    expected = "".join("\ufffd" if "\ud800" <= one <= "\udfff" else one for one in read)
    assert _any.decode(written.encode()) == {"a": expected}
    raw = Lenient(dict[str, Raw]).decode(written.encode())["a"]
    assert bytes(raw) == json.dumps(text).encode()
