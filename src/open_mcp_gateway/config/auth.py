"""The ``auth`` block: whether a key must be there, and where keys made at run time are kept."""

from __future__ import annotations

from collections.abc import Mapping as Environ
from pathlib import Path
from urllib.parse import urlsplit

from msgspec import Struct

from open_mcp_gateway.config import fields
from open_mcp_gateway.config.model import StoreLocation
from open_mcp_gateway.config.words import read_word
from open_mcp_gateway.document.convert import Reader
from open_mcp_gateway.document.paths import absolute
from open_mcp_gateway.document.tree import Mapping, Tree

_LATER = ("pepper", "trusted_proxies", "max_staleness")
_SQLITE = "sqlite:///"
_POSTGRES = "postgresql://"
_FORMS = "write a path, sqlite:///absolute/path or postgresql://…"


class AuthBlock(Struct, frozen=True):
    """What the block says, as far as it is right."""

    store: StoreLocation | None = None


def read_auth(root: Mapping, reader: Reader, base: Path, *, configured: bool) -> AuthBlock:
    """``configured`` says that there is a way to authenticate without a store."""
    node = root.entries.get("auth")
    if not isinstance(node, Mapping):
        if node is not None:
            reader.wrong(node, "a mapping")
        return AuthBlock()
    reader.unknown(fields.supported(node, _LATER, reader.problems), ["require", "store"])
    place = node.entries.get("store")
    store = None if place is None else _store(place, reader, base)
    require = node.entries.get("require")
    answer = reader.value(require, fields.BOOL) if require is not None else None
    demanded = answer is not None and answer.real
    if require is not None and demanded and not configured and place is None:
        message = "is true, but no key is configured; set api_key or api_key_file"
        reader.problem(require, message)
    return AuthBlock(store)


def _store(node: Tree, reader: Reader, base: Path) -> StoreLocation | None:
    text = read_word(node, reader)
    if text is None:
        return None
    found = store_location(text, base, reader.environ)
    if isinstance(found, str):  # which never quotes the text: it may hold a password
        reader.problem(node, found)
        return None
    return found


def store_location(text: str, base: Path, environ: Environ[str, str]) -> StoreLocation | str:
    """The place that ``text`` means, seen from the folder ``base``; a text says what is wrong."""
    if text.startswith(_POSTGRES):
        return _database(text)
    scheme = text.partition(":")[0].lower()
    if text.startswith(_SQLITE):
        text = text.removeprefix("sqlite://")
        if "?" in text or "#" in text:
            return "holds '?' or '#', which the address of a file cannot have; remove it"
    elif "://" in text or scheme in {"sqlite", "postgres", "postgresql"}:
        return f"is the address of no store that is known; {_FORMS}"
    path = absolute(text, base, environ)
    if path is None:
        return "'~' leads to no home folder; write the whole path"
    if text.endswith("/") or path.is_dir():
        return "is a folder; name the file in it"
    return StoreLocation(kind="sqlite", url=f"sqlite://{path}", path=path)


def _database(text: str) -> StoreLocation | str:
    try:
        port_is_right = urlsplit(text).port != 0
    except ValueError:
        port_is_right = False
    if not port_is_right:
        return "is no valid address; write postgresql://user:password@host:port/database"
    return StoreLocation(kind="postgres", url=text)
