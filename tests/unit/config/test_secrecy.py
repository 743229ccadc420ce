"""Nothing of a running gateway shows a secret when it is printed, nor can be written with one."""

from __future__ import annotations

import gc
import pickle
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, Final
from urllib.parse import quote

import pytest

from open_mcp_gateway.access.policy import platform_admin
from open_mcp_gateway.app import running
from open_mcp_gateway.auth.keyformat import make_key
from open_mcp_gateway.catalog.load import load_catalog
from open_mcp_gateway.clock import SystemClock
from open_mcp_gateway.config.load import Overrides, load_config
from open_mcp_gateway.operations.keys import Created
from open_mcp_gateway.operations.requests import KeyCreate, KeyImport, KeyVerify, read_body
from tests.canaries import canary, digest, found
from tests.wire.surface import no_reload

pytestmark = pytest.mark.anyio

SLOTS: Final = ("root", "file", "tenant", "named", "env", "header", "url", "argument", "database")
SECRETS: Final = {slot: canary(slot) for slot in SLOTS}

CONFIG: Final = f"""
api_key: "{SECRETS["root"]}"
catalog_path: catalog.yaml
auth: {{store: "postgresql://u:{quote(SECRETS["database"], safe="")}@localhost/x"}}
tenants:
- {{id: a, namespaces: [n], api_key: "{SECRETS["tenant"]}"}}
- id: b
  namespaces: []
  api_key_file: key
  keys: [{{name: k, api_key: "{SECRETS["named"]}"}}]
"""
CATALOG: Final = f"""
servers:
- id: x
  runtime: {{type: local-process, command: x, args: ["{SECRETS["argument"]}", "${{ARGUMENT}}"]}}
  env: {{TOKEN: "{SECRETS["env"]}"}}
- id: y
  runtime:
    type: remote-http
    url: "https://host.example/x?token={quote(SECRETS["url"], safe="")}"
    headers: {{X-Token: "{SECRETS["header"]}"}}
"""


def reachable(roots: list[object]) -> Iterator[object]:
    """Every object of ours that leads from one to another, however it is kept."""
    seen: set[int] = set()
    waiting = list(roots)
    while waiting:
        one = waiting.pop()
        if id(one) in seen or isinstance(one, type | ModuleType | FunctionType):
            continue
        seen.add(id(one))
        kind = type(one)
        if kind.__module__.startswith("open_mcp_gateway"):
            yield one
        elif kind.__module__ not in {"builtins", "types", "functools", "collections"}:
            continue
        waiting += gc.get_referents(one)
        for name in getattr(kind, "__struct_fields__", ()):
            waiting.append(getattr(one, name))


def check(one: object, where: str) -> None:
    """No way of writing ``one`` shows a secret; it may well refuse to be written."""
    said = [repr(one), str(one), f"{one}", "".join(_traceback_of(one))]
    raw = "\n".join(said).encode()
    writers: tuple[Callable[[Any], bytes], ...] = (pickle.dumps, lambda it: pickle.dumps(it, 0))
    for write in writers:
        try:
            raw += write(one)
        except (TypeError, AttributeError, NotImplementedError, pickle.PicklingError):
            continue
    for slot, secret in SECRETS.items():
        assert found(secret, raw) == [], (where, slot, type(one))


def _traceback_of(value: object) -> Iterator[str]:
    """Of a failure that has ``value`` at hand, as tools print it that show local variables."""
    try:
        raise ValueError("something else")
    except ValueError as error:
        told = traceback.TracebackException.from_exception(error, capture_locals=True)
        yield from told.format()
    del value


async def test_a_whole_gateway(tmp_path: Path) -> None:
    (tmp_path / "key").write_text(SECRETS["file"])
    (tmp_path / "key").chmod(0o600)
    (tmp_path / "config.yaml").write_text(CONFIG)
    (tmp_path / "catalog.yaml").write_text(CATALOG)
    environ = {"ARGUMENT": SECRETS["argument"]}
    loaded = load_config(tmp_path / "config.yaml", Overrides(), environ)
    catalog = load_catalog(tmp_path / "catalog.yaml", environ)
    async with running(
        loaded.config, catalog.snapshot, environ={}, clock=SystemClock(), reload=no_reload
    ) as gateway:
        everything = [*reachable([gateway, loaded, catalog])]
        kinds = {type(one).__name__ for one in everything}
        # The walk got to where the secrets are.
        assert kinds >= {"KeyRecord", "Identifier", "ServerSpec", "StoreLocation", "Remote"}
        for one in everything:
            check(one, type(one).__name__)


def test_what_is_made_and_asked() -> None:
    made = make_key(lambda bits: (1 << bits) - 1)
    secret, kept = made.text, digest(SECRETS["named"]).hex()
    texts: dict[type[Any], str] = {
        KeyVerify: f'{{"key": "{secret}"}}',
        KeyCreate: f'{{"name": "k", "hash": "sha256:{kept}"}}',
        KeyImport: f'{{"keys": [{{"name": "k", "hash": "sha256:{kept}"}}]}}',
    }
    asked: list[Any] = [read_body(text.encode(), form) for form, text in texts.items()]
    record = platform_admin(digest(SECRETS["named"]))
    for one in (made, record, Created(record=record, secret=secret), *asked):
        shown = f"{one!r}{one}{''.join(_traceback_of(one))}"
        assert secret not in shown
        assert kept not in shown
        with pytest.raises(TypeError, match="not to be written anywhere"):
            pickle.dumps(one)
