"""One server of a catalog: from its tree to a CatalogEntry."""

from __future__ import annotations

from collections.abc import Mapping as Environ
from pathlib import Path

from msgspec import Struct, inspect

from open_mcp_gateway.catalog import check
from open_mcp_gateway.catalog.masking import masked, secrets
from open_mcp_gateway.catalog.model import CatalogEntry, ServerSpec
from open_mcp_gateway.catalog.runtime import KINDS, RuntimeReader
from open_mcp_gateway.document.convert import Reader, Special, is_null, suggestion
from open_mcp_gateway.document.texts import Pair
from open_mcp_gateway.document.tree import Mapping, Node, Sequence, Tree, printable
from open_mcp_gateway.errors import Problem
from open_mcp_gateway.names import DEFAULT_NAMESPACE, ServerId

_NOTHING = inspect.NoneType()


class Surroundings(Struct, frozen=True):
    """What every entry of one file is read with."""

    folder: Path
    """The catalog's own, absolute."""

    environ: Environ[str, str]
    problems: list[Problem]
    warnings: list[Problem]


class EntryReader:
    """Reads one entry; ``id`` is known afterwards even where the rest is wrong."""

    def __init__(self, tree: Tree, index: int, around: Surroundings) -> None:
        self._tree = tree
        self._around = around
        self._reader = Reader(around.environ, around.problems)
        self._label = f"Server at index {index}"
        self._type = ""
        self.id: ServerId | None = None
        self.id_node: Node = tree

    def read(self) -> CatalogEntry | None:
        """The entry; None when a problem was reported."""
        tree = self._tree
        if not isinstance(tree, Mapping):
            message = f"{self._label} must be a mapping, but is {tree.called}; write its fields"
            self._reader.problem(tree, message)
            return None
        before = len(self._around.problems)
        self._read_id(tree)
        pair = self._reader.struct(tree, ServerSpec, self._special())
        if pair is None or len(self._around.problems) > before:
            return None
        spec: ServerSpec = pair.real
        return CatalogEntry(
            spec=spec,
            shown=masked(pair.shown, spec),
            runtime_type=self._type,
            secrets=secrets(spec, self._reader.parts),
        )

    def _read_id(self, tree: Mapping) -> None:
        """Sets the id and, from then on, names the server by it in messages."""
        node = tree.entries.get("id")
        if node is None or is_null(node):
            self._reader.problem(tree, f"{self._label} missing required field: id")
            return
        self.id_node = node
        # A reader of its own: an id is public, so what was substituted in it is no secret.
        found = Reader(self._around.environ, self._around.problems).text(node)
        if found is None:
            return
        mistake = check.wrong_id(found.real, found.shown)
        # A wrong id may be a secret in the wrong place; what was substituted is not quoted.
        self._label = f"Server '{printable(found.shown if mistake else found.real)}'"
        if mistake:
            self._reader.problem(node, mistake)
        else:
            self.id = ServerId(found.real)

    def _special(self) -> dict[str, Special]:
        special: dict[str, Special] = {
            "id": lambda _node, _around: Pair(self.id, self.id) if self.id else None,
            "display_name": self._display_name,
            "namespace": self._namespace,
            "tags": self._tags,
            "runtime": self._runtime,
            "env": self._env,
        }
        for name, (low, high) in check.BOUNDS_S.items():
            special[name] = self._bounded(low, high)
        return special

    def _display_name(self, node: Tree | None, _: Mapping) -> Pair | None:
        if node is None or is_null(node):
            return Pair(self.id, self.id)
        return self._reader.ruled(node, check.blank)

    def _namespace(self, node: Tree | None, _: Mapping) -> Pair | None:
        if node is None:
            return Pair(DEFAULT_NAMESPACE, DEFAULT_NAMESPACE)
        return self._reader.ruled(node, check.wrong_namespace)

    def _tags(self, node: Tree | None, _: Mapping) -> Pair | None:
        if node is None or is_null(node):
            return Pair((), ())
        if not isinstance(node, Sequence):
            self._reader.wrong(node, "a list")
            return None
        pairs = [self._reader.ruled(item, check.blank) for item in node.items]
        good = [pair for pair in pairs if pair is not None]
        if len(good) < len(pairs):
            return None
        return Pair(tuple(pair.real for pair in good), tuple(pair.shown for pair in good))

    def _bounded(self, low: int, high: int) -> Special:
        wanted = inspect.UnionType((inspect.IntType(ge=low, le=high), _NOTHING))

        def read(node: Tree | None, _: Mapping) -> Pair | None:
            return self._reader.value(node, wanted) if node is not None else Pair(None, None)

        return read

    def _env(self, node: Tree | None, around: Mapping) -> Pair | None:
        if node is None or is_null(node):
            return Pair({}, {})
        if not isinstance(node, Mapping):
            self._reader.wrong(node, "a mapping")
            return None
        if node.entries and self._type in {"remote-http", "remote-sse"}:
            message = "has no effect on a remote server, which is not started here; remove it"
            self._around.problems.append(Problem(around.key_where("env"), message))
        real: dict[str, str] = {}
        for name, child in node.entries.items():
            if mistake := check.wrong_env_name(name):
                self._around.problems.append(Problem(node.key_where(name), mistake))
            found = self._reader.text(child)
            if found is None:
                continue
            real[name] = found.real
            for variable in found.empty:
                message = f"environment variable {variable} is empty; is it meant to be?"
                self._around.warnings.append(Problem(child.where, message))
        return Pair(real, real)

    def _runtime(self, node: Tree | None, around: Mapping) -> Pair | None:
        if node is None or is_null(node):
            self._reader.problem(around, f"{self._label} missing required field: runtime")
            return None
        if not isinstance(node, Mapping):
            self._reader.wrong(node, "a mapping")
            return None
        self._type = self._runtime_type(node) or ""
        if not self._type:
            return None
        reader = RuntimeReader(self._reader, self._around.folder, self._around.warnings)
        return reader.read(node, self._type)

    def _runtime_type(self, node: Mapping) -> str | None:
        given = node.entries.get("type")
        known = ", ".join(KINDS)
        if given is None or is_null(given):
            message = f"{self._label} missing required field: runtime.type; known are {known}"
            self._reader.problem(node, message)
            return None
        found = Reader(self._around.environ, self._around.problems).text(given)
        if found is None or found.real in KINDS:
            return found.real if found else None
        hint = suggestion(found.shown, KINDS) or f"; known are {known}"
        message = f"{self._label} has unknown runtime type: {printable(found.shown)}{hint}"
        self._reader.problem(given, message)
        return None
