"""The rungs of the ladder, in order: the first that fails is the answer."""

import base64
import json

import pytest
from msgspec import Raw

from open_mcp_gateway.errors import (
    GatewayError,
    HeaderMismatch,
    InvalidParams,
    UnknownMethod,
    UnsupportedVersion,
)
from open_mcp_gateway.protocol.jsonrpc import Call
from open_mcp_gateway.protocol.ladder import REMOVED, climb
from open_mcp_gateway.protocol.routing import Routing, routing_of

VERSION = "io.modelcontextprotocol/protocolVersion"
CAPABILITIES = "io.modelcontextprotocol/clientCapabilities"
LEVEL = "io.modelcontextprotocol/logLevel"
META: dict[str, object] = {VERSION: "2026-07-28", CAPABILITIES: {"sampling": {}}}
Pairs = list[tuple[bytes, bytes]]


def call(method: str = "tools/call", meta: object = META, **params: object) -> Call:
    members = {name: Raw(json.dumps(value).encode()) for name, value in params.items()}
    if meta is not None:
        members["_meta"] = Raw(json.dumps(meta).encode())
    return Call(method, b"1", members)


def headers(
    method: str = "tools/call", name: str | None = "echo", version: str = "2026-07-28"
) -> Pairs:
    pairs = [
        (b"mcp-protocol-version", version.encode()),
        (b"mcp-method", method.encode()),
    ]
    return pairs if name is None else [*pairs, (b"mcp-name", name.encode())]


def headed(
    method: str = "tools/call", name: str | None = "echo", version: str = "2026-07-28"
) -> Routing:
    return routing_of(headers(method, name, version))


def test_what_passes_is_stripped_of_what_belongs_to_the_connection() -> None:
    meta = {**META, "progressToken": "t", LEVEL: "debug", "acme/x": 1}
    sent = climb(call(meta=meta, name="echo"), headed())
    assert json.loads(bytes(sent.params["_meta"])) == {"acme/x": 1}  # type: ignore[index]
    assert bytes(sent.progress_token or b"") == b'"t"'
    assert json.loads(bytes(sent.capabilities or b"")) == {"sampling": {}}
    assert bytes(sent.log_level or b"") == b'"debug"'


def test_without_headers_there_is_nothing_to_compare() -> None:
    assert climb(call(name="echo"), None).method == "tools/call"


@pytest.mark.parametrize(
    "meta",
    [
        None,
        7,
        {},
        {VERSION: "2026-07-28"},
        {CAPABILITIES: {}},
        {VERSION: 1, CAPABILITIES: {}},
        {VERSION: "2026-07-28", CAPABILITIES: []},
        {**META, LEVEL: "loud"},
        {**META, LEVEL: 3},
    ],
)
def test_rung_1_the_meta(meta: object) -> None:
    with pytest.raises(InvalidParams):
        climb(call(meta=meta, name="echo"), headed())


@pytest.mark.parametrize(
    "sent",
    [
        [],
        headers()[1:],
        headers()[:1] + headers()[2:],
        headers(name=None),
        headers(name="other"),
        headers(name="Echo"),
        headers(method="tools/list"),
        headers(version="2025-11-25"),
        [*headers(), (b"mcp-name", b"echo")],
        [*headers(name=None), (b"mcp-name", b"=?base64?%%%?=")],
        [*headers(name=None), (b"mcp-name", b"=?base64?ZWNobw?=")],
    ],
)
def test_rung_2_the_headers(sent: Pairs) -> None:
    with pytest.raises(HeaderMismatch):
        climb(call(name="echo"), routing_of(sent))


def test_rung_2_reads_encoded_names_and_trims_blanks() -> None:
    packed = base64.b64encode("größe".encode()).decode()
    assert climb(call(name="größe"), headed(name=f" =?base64?{packed}?= ")).method


def test_rung_2_a_name_header_without_a_name() -> None:
    with pytest.raises(HeaderMismatch):
        climb(call(), headed())
    with pytest.raises(InvalidParams):
        climb(call(name=7), headed())
    assert climb(call(), headed(name=None)).method == "tools/call"
    assert climb(call("tools/list"), headed("tools/list", name=None)).method == "tools/list"


def test_rung_3_the_version_comes_after_the_headers() -> None:
    meta = {**META, VERSION: "2099-01-01"}
    with pytest.raises(HeaderMismatch):
        climb(call(meta=meta, name="echo"), headed())
    with pytest.raises(UnsupportedVersion) as refusal:
        climb(call(meta=meta, name="echo"), headed(version="2099-01-01"))
    assert refusal.value.data == {"supported": ["2026-07-28"], "requested": "2099-01-01"}


@pytest.mark.parametrize("method", sorted(REMOVED))
def test_rung_4_methods_of_the_other_era(method: str) -> None:
    with pytest.raises(UnknownMethod):
        climb(call(method), headed(method, name=None))


def test_unknown_methods_of_extensions_are_the_servers_business() -> None:
    assert climb(call("skills/list"), headed("skills/list", name=None)).method


@pytest.mark.parametrize("error", [InvalidParams("x"), HeaderMismatch("x"), UnknownMethod("x")])
def test_refusals_carry_no_data_of_their_own(error: GatewayError) -> None:
    assert error.data is None
