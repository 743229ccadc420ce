"""The ``mcpServers`` file of desktop clients, rewritten into the shape of a catalog entry.

Nodes keep their places, so a mistake is told where the person wrote it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from open_mcp_gateway.catalog.model import ServerSpec
from open_mcp_gateway.document.tree import Kind, Mapping, Node, Scalar, Tree, printable
from open_mcp_gateway.errors import Problem

KEY = "mcpServers"

_LOCAL_TYPES = {"stdio"}
_HTTP_TYPES = {"http", "streamable-http", "streamableHttp", "streamable_http"}
_SSE_TYPES = {"sse"}
_LOCAL = {"command": "command", "args": "args", "cwd": "working_dir"}
_REMOTE = {"url": "url", "serverUrl": "url", "headers": "headers", "tls": "tls"}
_OURS = set(ServerSpec.__struct_fields__) - {"id", "runtime"}
"""What a catalog can say of a server it can say here as well."""


def servers(root: Mapping, problems: list[Problem], warnings: list[Problem]) -> Iterator[Tree]:
    """Each enabled server as a tree of the shape under ``servers:``."""
    for key in root.key_lines:
        if key == "servers":
            message = f"'servers' beside '{KEY}'; keep one of the two"
            problems.append(Problem(root.key_where(key), message))
        elif key != KEY:
            warnings.append(_ignored(root, key))
    listed = root.entries[KEY]
    if not isinstance(listed, Mapping):
        message = f"must be a mapping from name to server, but is {listed.called}"
        problems.append(Problem(listed.where, f"{message}; write {{}} for none"))
        return
    for name, entry in listed.entries.items():
        if not isinstance(entry, Mapping):
            message = f"Server '{printable(name)}' must be a mapping, but is {entry.called}"
            problems.append(Problem(entry.where, f"{message}; write its command or url"))
        elif not _disabled(entry, problems):
            line = listed.key_lines[name]
            yield _Translation(name, line, entry, problems, warnings).tree()


class _Translation:
    """One entry."""

    def __init__(
        self,
        name: str,
        line: int,
        entry: Mapping,
        problems: list[Problem],
        warnings: list[Problem],
    ) -> None:
        self._name = name
        self._line = line
        self._entry = entry
        self._problems = problems
        self._warnings = warnings

    def tree(self) -> Mapping:
        entry = self._entry
        # '$' doubled: a name is a key, and keys are not substituted.
        name = self._name.replace("$", "$$")
        tree = self._mapping({"id": self._scalar(name, self._line)})
        for key, node in entry.entries.items():
            if key in _OURS:
                self._put(tree, key, node)
        runtime = self._runtime()
        if runtime is not None:
            self._put(tree, "runtime", runtime)
        self._warn_unknown()
        return tree

    def _runtime(self) -> Mapping | None:
        """None when nothing says how to reach it; the caller tells that the runtime is missing."""
        kind = self._kind()
        if kind is None:
            return None
        runtime = self._mapping({"type": self._scalar(kind, self._entry.line)})
        wanted, other = (_LOCAL, _REMOTE) if kind == "local-process" else (_REMOTE, _LOCAL)
        for key, node in self._entry.entries.items():
            target = wanted.get(key)
            if target in runtime.entries:
                self._problem(key, "'url' and 'serverUrl' are the same; keep one of them")
            elif target:
                self._put(runtime, target, node)
            elif key in other:
                self._problem(
                    key, f"'{key}' does not belong to a server of this kind ({kind}); remove it"
                )
        return runtime

    def _kind(self) -> str | None:
        """The runtime type: what ``type`` says, else what the members tell."""
        given = self._entry.entries.get("type")
        if given is None or (isinstance(given, Scalar) and given.kind is Kind.NULL):
            if "command" in self._entry.entries:
                return "local-process"
            remote = {"url", "serverUrl"} & self._entry.entries.keys()
            return "remote-http" if remote else None
        said = given.text if isinstance(given, Scalar) else ""
        if said in _LOCAL_TYPES:
            return "local-process"
        if said in _HTTP_TYPES:
            return "remote-http"
        return "remote-sse" if said in _SSE_TYPES else said.replace("$", "$$")

    def _warn_unknown(self) -> None:
        known = {*_OURS, *_LOCAL, *_REMOTE, "type", "disabled"}
        for key in self._entry.key_lines:
            if key not in known:
                self._warnings.append(_ignored(self._entry, key))

    def _problem(self, key: str, message: str) -> None:
        self._problems.append(Problem(self._entry.key_where(key), message))

    def _scalar(self, text: str, line: int) -> Scalar:
        return Scalar(**_spot(self._entry, line), text=text, kind=Kind.TEXT)

    def _mapping(self, entries: dict[str, Tree]) -> Mapping:
        lines = dict.fromkeys(entries, self._entry.line)
        return Mapping(**_spot(self._entry, self._entry.line), entries=entries, key_lines=lines)

    def _put(self, mapping: Mapping, key: str, node: Tree) -> None:
        mapping.entries[key] = node
        mapping.key_lines[key] = node.line


def _spot(entry: Node, line: int) -> dict[str, Any]:
    return {"file": entry.file, "line": line, "parent": entry.parent, "key": entry.key}


def _disabled(entry: Mapping, problems: list[Problem]) -> bool:
    flag = entry.entries.get("disabled")
    if flag is None:
        return False
    if isinstance(flag, Scalar) and flag.kind is Kind.BOOL:
        return flag.text.lower() in {"true", "yes", "on"}
    problems.append(Problem(flag.where, f"must be true or false, but is {flag.called}"))
    return False


def _ignored(mapping: Mapping, key: str) -> Problem:
    message = f"'{printable(key)}' is not known to the gateway and has no effect here"
    return Problem(mapping.key_where(key), message)
