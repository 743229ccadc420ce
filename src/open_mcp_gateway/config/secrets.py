"""A key of the configuration: written out, from a file, or as a digest.

Every doubtful value is an error. The rule behind all of them: something that was meant to be a key
never turns into an empty one, nor into none.
"""

from __future__ import annotations

import re
from collections.abc import Mapping as Environ
from pathlib import Path

from open_mcp_gateway.auth.apikeys import MAX_KEY_BYTES, digest_of, is_well_formed
from open_mcp_gateway.document.convert import is_null
from open_mcp_gateway.document.paths import absolute
from open_mcp_gateway.document.source import read_with_mode
from open_mcp_gateway.document.substitute import Text, substitute
from open_mcp_gateway.document.tree import Kind, Mapping, Node, Scalar, Tree
from open_mcp_gateway.errors import InvalidConfig, Problem
from open_mcp_gateway.secrecy import Secretive

FIELDS = ("api_key", "api_key_file", "api_key_hash")
"""At most one of them."""

_MAX_FILE_BYTES = 4096
_SHORT_CHARACTERS = 16
_FEW_CHARACTERS = 6
_HASH = re.compile(r"sha256:([0-9A-Fa-f]{64})")
_UNREPLACED = re.compile(r"\$\{|^\$[A-Za-z_][A-Za-z0-9_]*$")
_READABLE_BY_OTHERS = 0o044


class FoundKey(Secretive, frozen=True):
    """What one mapping of the file says about its key."""

    configured: bool
    """True as soon as a key was meant, also where it cannot be used."""

    digest: bytes | None = None
    file: Path | None = None
    """Where it is read from, to be watched."""

    def __repr__(self) -> str:
        # A weak key can be found from its digest by trying, so the digest is not shown.
        return f"<FoundKey configured={self.configured}>"


class KeyReader:
    """Reads all key fields of one configuration file, and sees when two are the same key."""

    def __init__(
        self,
        environ: Environ[str, str],
        base: Path,
        problems: list[Problem],
        warnings: list[Problem],
    ) -> None:
        self._environ = environ
        self._base = base
        self._problems = problems
        self._warnings = warnings
        self._file: Path | None = None
        self._places: dict[bytes, str] = {}

    def read(self, node: Mapping) -> FoundKey:
        """The key of ``node`` alone, not of what stands in it."""
        self._file = None
        written = {name: node.entries[name] for name in FIELDS if name in node.entries}
        for value in written.values():
            if is_null(value):  # somebody meant a key to be here; no key would leave the door open
                self._problem(value, "is empty; write a key or remove the line")
        meant = {name: value for name, value in written.items() if not is_null(value)}
        if len(meant) > 1:
            second = list(meant.values())[1]
            names = " and ".join(f"'{name}'" for name in meant)
            self._problem(second, f"{names} are both there; keep one of them")
        digests = [self._digest(name, value) for name, value in meant.items()]
        digest = digests[0] if len(digests) == 1 else None
        if digest is not None:
            self._once(digest, node.key_where(next(iter(meant))))
        return FoundKey(bool(meant), digest, self._file)

    def _once(self, digest: bytes, where: str) -> None:
        """One key opens one door: whose request it is could not be told otherwise."""
        if digest in self._places:
            message = f"is the same key as that of {self._places[digest]}; give each its own"
            self._problems.append(Problem(where, message))
        self._places.setdefault(digest, where)

    def _digest(self, name: str, node: Tree) -> bytes | None:
        found = self._text(node)
        if found is None:
            return None
        if name == "api_key_hash":
            return self._from_hash(node, found)
        if name == "api_key_file":
            key = self._from_file(node, found.real)
            return digest_of(key) if key and self._usable(node, found, key) else None
        key = found.real.encode("utf-8", "surrogatepass")
        if found.defaulted:
            names = ", ".join(found.defaulted)
            message = f"{names} is not set, so the default in this file is the key; set {names}"
            self._warnings.append(Problem(node.where, message))
        return digest_of(key) if self._usable(node, found, key) else None

    def _text(self, node: Tree) -> Text | None:
        """What stands in the file after substitution; never empty, nothing left unreplaced."""
        if not isinstance(node, Scalar):
            self._problem(node, f"must be text, but is {node.called}; write one value")
            return None
        if node.kind is not Kind.TEXT:
            self._problem(node, f"is {node.called} to YAML, not text; quote it")
            return None
        found = substitute(node.text, self._environ)
        if isinstance(found, list):
            for message in found:
                self._problem(node, message)
            return None
        if found.empty:
            names = ", ".join(found.empty)
            self._problem(node, f"environment variable {names} is empty; set it")
            return None
        if found.bare or _UNREPLACED.search(found.real):
            self._refuse(node, found, _LEFT_OVER)
            return None
        if not found.real.strip():
            self._refuse(node, found, "is empty or blank; write a key or remove the line")
            return None
        return found

    def _from_hash(self, node: Tree, found: Text) -> bytes | None:
        match = _HASH.fullmatch(found.real)
        if match is None:
            self._refuse(node, found, "must be 'sha256:' and 64 hexadecimal digits")
            return None
        digest = bytes.fromhex(match[1])
        if digest in {digest_of(b""), digest_of(b"\n")}:
            self._refuse(node, found, "is the hash of an empty key; hash the key itself")
            return None
        return digest

    def _from_file(self, node: Tree, text: str) -> bytes | None:
        path = absolute(text, self._base, self._environ)
        if path is None:
            self._problem(node, "'~' leads to no home folder; write the whole path")
            return None
        self._file = path
        try:
            data, mode = read_with_mode(path, _MAX_FILE_BYTES)
        except InvalidConfig as error:
            self._problem(node, f"the file {error.problems[0].message}")
            return None
        if mode & _READABLE_BY_OTHERS:
            message = "other users can read the file; run chmod 600 on it"
            self._warnings.append(Problem(node.where, message))
        key = data.removesuffix(b"\n").removesuffix(b"\r") if data.endswith(b"\n") else data
        if not key.strip():
            self._problem(node, "the file is empty or blank; write the key into it")
            return None
        if _UNREPLACED.search(key.decode("latin-1")):
            self._problem(node, f"the file's content {_LEFT_OVER}")
            return None
        return key

    def _usable(self, node: Node, found: Text, key: bytes) -> bool:
        if not is_well_formed(key):
            self._refuse(node, found, _malformed(key))
            return False
        if len(key) < _SHORT_CHARACTERS:
            message = f"is shorter than {_SHORT_CHARACTERS} characters and can be guessed"
            self._warnings.append(Problem(node.where, f"{message}; use a long random one"))
        elif len(set(key)) < _FEW_CHARACTERS:
            message = "repeats a few characters and can be guessed; use a long random one"
            self._warnings.append(Problem(node.where, message))
        return True

    def _refuse(self, node: Node, found: Text, message: str) -> None:
        """The same with the variables that gave the value, which the file does not show."""
        if found.substituted:
            message += f" (the value comes from {', '.join(found.variables)})"
        self._problem(node, message)

    def _problem(self, node: Node, message: str) -> None:
        self._problems.append(Problem(node.where, message))


_LEFT_OVER = "holds '$NAME' or '${' that was not replaced; write ${NAME} with the variable set"


def _malformed(key: bytes) -> str:
    if key != key.strip():
        return "starts or ends with white space; remove it"
    if len(key) > MAX_KEY_BYTES:
        return f"is longer than {MAX_KEY_BYTES} bytes; use a shorter key"
    return "holds a space, a control character or a non-ASCII one; use visible ASCII only"
