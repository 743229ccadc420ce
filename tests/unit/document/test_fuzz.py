"""Whatever a file holds: the loaders answer or refuse it, and do nothing else."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from open_mcp_gateway.catalog.load import load_catalog
from open_mcp_gateway.config.load import Overrides, load_config
from open_mcp_gateway.document.source import parse_document
from open_mcp_gateway.errors import InvalidConfig

ENVIRON = {"A": "test-hidden", "E": "", "N": "5", "HOME": "/h", "S": "\udc80\ud800"}

WORDS = st.sampled_from(
    """servers id runtime type command args env url headers tls cert key ca tags namespace
    mcpServers serverUrl disabled cwd api_key api_key_file api_key_hash listen_addr catalog_path
    cors_origins allowed_hosts public_url auth require tenants workers local-process remote-sse
    remote-http docker k8s-job k8s-service image port service_name cpus volumes resources
    idle_timeout_seconds log_level hot_reload era isolation display_name https://u:p@h/x?k=v
    http://[::1]:80 [::1]:4444 127.0.0.1:1 ${A} ${E} ${N} ${S} ${NO} ${NO:-d} ${NO:?m} ${ $$ $A
    *a &a << | > ! !!int !x true null ~ 1 0x1 1.5 .nan 99999999999999999999 - : , [ ] { } ? # % @
    \" ' \\ \\ud800 --- ... . .. / ~/x ~nobody é 😀 a""".split()  # noqa: SIM905  a list of this length reads worse
)
GLUE = st.sampled_from(
    ["", " ", "\n", "\n  ", "\n- ", ": ", ", ", "\t", "\r\n", "\n    ", "\x85", "\u2028"]
)
YAMLISH = st.lists(st.tuples(WORDS, GLUE), max_size=60).map(
    lambda parts: "".join(word + glue for word, glue in parts)
)
LEAVES = st.one_of(WORDS, st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8))
TREES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS | st.text(max_size=8), inner),
    max_leaves=20,
)


def flow(value: object) -> str:
    """Any value in flow notation, strings now quoted, now plain."""
    if isinstance(value, dict):
        return "{" + ", ".join(f'"{key}": {flow(item)}' for key, item in value.items()) + "}"
    if isinstance(value, list):
        return "[" + ", ".join(flow(item) for item in value) + "]"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return "null" if value is None else str(value).lower()


ENTRIES = st.dictionaries(WORDS, TREES, max_size=6)
CATALOGS = ENTRIES.map(lambda entry: flow({"servers": [{"id": "a", **entry}]}))
RUNTIMES = st.tuples(
    st.sampled_from(["local-process", "remote-sse", "docker", "k8s-job", "k8s-service"]), ENTRIES
).map(lambda pair: flow({"servers": [{"id": "a", "runtime": {**pair[1], "type": pair[0]}}]}))
CLIENTS = ENTRIES.map(lambda entry: flow({"mcpServers": {"a": entry}}))
CONFIGS = ENTRIES.map(flow)
TEXTS = st.one_of(YAMLISH, CATALOGS, RUNTIMES, CLIENTS, CONFIGS, st.text(max_size=200))


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path / "file"


def refusal(load: Callable[[], object]) -> InvalidConfig | None:
    try:
        load()
    except InvalidConfig as error:
        return error
    return None


def load_all(file: Path, data: bytes) -> None:
    file.write_bytes(data)
    for load in (
        lambda: load_catalog(file, ENVIRON),
        lambda: load_config(file, Overrides(), ENVIRON),
    ):
        refused = refusal(load)
        assert refused is None or refused.problems
        # No value out of the environment; texts of the file may be quoted.
        assert refused is None or "test-hidden" not in refused.public


FUZZ = settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@FUZZ
@given(text=TEXTS)
@example(text="a: &a [*a]")
@example(text='{"servers": [{"id": "a", "runtime": {"type": "docker", "image": "${S}"}}]}')
@example(text='{"api_key": "${S}"}')
@example(text='{"api_key_file": "a\\u0000b"}')
@example(text='{"catalog_path": "~${S}/x"}')
@example(text='{"tls": {"cert": "${S}", "key": "${S}"}}')
def test_any_text(file: Path, text: str) -> None:
    load_all(file, text.encode("utf-8", "surrogatepass"))


@FUZZ
@given(data=st.binary(max_size=100))
def test_any_bytes(file: Path, data: bytes) -> None:
    load_all(file, data)


@FUZZ
@given(text=TEXTS, cut=st.integers(0, 200))
def test_a_file_that_breaks_off(text: str, cut: int) -> None:
    with contextlib.suppress(InvalidConfig):
        parse_document(text.encode("utf-8", "replace")[:cut], "f")
