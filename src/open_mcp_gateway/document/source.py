"""A file on disk to the tree of its top-level mapping."""

from __future__ import annotations

import codecs
import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Final

from open_mcp_gateway.document.files import NotRegular, open_regular
from open_mcp_gateway.document.json_tree import parse_json
from open_mcp_gateway.document.tree import Broken, Mapping, Tree
from open_mcp_gateway.document.yaml_tree import parse_yaml
from open_mcp_gateway.errors import InvalidConfig, Problem

MAX_FILE_BYTES = 8 * 1024 * 1024

_noted: Final[ContextVar[dict[Path, bytes] | None]] = ContextVar("noted", default=None)


@contextmanager
def noting_digests() -> Iterator[dict[Path, bytes]]:
    """Gives the SHA-256 of every file that is read within, under the path it was read by; of more
    than ``MAX_FILE_BYTES`` that of as much and one byte."""
    digests: dict[Path, bytes] = {}
    token = _noted.set(digests)
    try:
        yield digests
    finally:
        _noted.reset(token)


def read_document(path: Path) -> tuple[Mapping, list[Problem]]:
    """The top level of a YAML or JSON file, with the mistakes that did not stop the reading.

    Raises:
        InvalidConfig: there is nothing to go on with.
    """
    file = str(path)
    return parse_document(read_bytes(path, MAX_FILE_BYTES), file)


def parse_document(data: bytes, file: str) -> tuple[Mapping, list[Problem]]:
    """Like ``read_document``, from bytes at hand; ``file`` names them in problems.

    Raises:
        InvalidConfig: there is nothing to go on with.
    """
    problems: list[Problem] = []
    try:
        tree = _parse(_decode(data, file), file, problems)
    except Broken as broken:
        raise InvalidConfig([*problems, broken.problem]) from broken
    if tree is None:
        raise InvalidConfig([*problems, Problem(file, "is empty; write at least one setting")])
    if not isinstance(tree, Mapping):
        message = f"the top level must be a mapping, but is {tree.called}; start with 'name: value'"
        raise InvalidConfig([*problems, Problem(tree.where, message)])
    return tree, problems


def read_bytes(path: Path, limit_bytes: int) -> bytes:
    """The content of a file that a person named.

    Raises:
        InvalidConfig: it is missing, unreadable, no regular file or over the limit.
    """
    data, _ = read_with_mode(path, limit_bytes)
    return data


def read_with_mode(path: Path, limit_bytes: int) -> tuple[bytes, int]:
    """Like ``read_bytes``, with the mode of the very file that was read, as in ``st_mode``."""
    try:
        with open_regular(path) as stream:
            data = stream.read(limit_bytes + 1)
            mode = os.fstat(stream.fileno()).st_mode
            noted = _noted.get()
            if noted is not None:
                # Also what is over the limit and refused: whoever watches the file compares that.
                rest = (
                    stream.read(MAX_FILE_BYTES + 1 - len(data)) if len(data) > limit_bytes else b""
                )
                noted[path] = hashlib.sha256(data + rest).digest()
    except FileNotFoundError as error:
        message = "does not exist; create it, or mend the path"
        raise InvalidConfig([Problem(str(path), message)]) from error
    except IsADirectoryError as error:
        message = "is a folder; name the file in it"
        raise InvalidConfig([Problem(str(path), message)]) from error
    except NotRegular as error:
        message = "is a pipe, a device or a socket, which a reload cannot read again; name a file"
        raise InvalidConfig([Problem(str(path), message)]) from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        message = f"cannot be read ({reason}); check the path and its permissions"
        raise InvalidConfig([Problem(str(path), message)]) from error
    if len(data) > limit_bytes:
        message = f"is larger than {limit_bytes} bytes; is it the right file?"
        raise InvalidConfig([Problem(str(path), message)])
    return data, mode


def _decode(data: bytes, file: str) -> str:
    try:
        return data.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        where = f"{file}:{line}"
        raise Broken(Problem(where, "is not UTF-8 text; save the file as UTF-8")) from error


def _parse(text: str, file: str, problems: list[Problem]) -> Tree | None:
    """JSON when it reads as JSON, else YAML; by content, whatever the file is called."""
    start = text.lstrip()
    if not start.startswith(("{", "[")):
        return parse_yaml(text, file, problems)
    found: list[Problem] = []
    try:
        tree = parse_json(text, file, found)
    except Broken as as_json:
        return _parse_flow(text, file, problems, as_json)
    problems.extend(found)
    return tree


def _parse_flow(text: str, file: str, problems: list[Problem], as_json: Broken) -> Tree | None:
    """YAML that starts with a bracket; if neither, tells the mistake of what it looks like."""
    found: list[Problem] = []
    try:
        tree = parse_yaml(text, file, found)
    except Broken:
        looks_like_json = text.lstrip()[1:].lstrip().startswith(('"', "{", "["))
        if looks_like_json or file.endswith(".json"):
            raise as_json from None
        raise
    problems.extend(found)
    return tree
