"""A catalog file to a Snapshot, or every mistake in it."""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Mapping as Environ
from pathlib import Path

from msgspec import Struct

from open_mcp_gateway.catalog import mcp_servers_json
from open_mcp_gateway.catalog.entry import EntryReader, Surroundings
from open_mcp_gateway.catalog.model import CatalogEntry, Snapshot
from open_mcp_gateway.document.convert import suggest
from open_mcp_gateway.document.source import read_document
from open_mcp_gateway.document.tree import Mapping, Sequence, Tree, printable
from open_mcp_gateway.errors import InvalidConfig, Problem
from open_mcp_gateway.names import ServerId


class LoadedCatalog(Struct, frozen=True):
    """A catalog that can be put in force."""

    snapshot: Snapshot
    warnings: tuple[Problem, ...] = ()
    """What is allowed and yet likely a mistake."""


def load_catalog(path: Path, environ: Environ[str, str]) -> LoadedCatalog:
    """The catalog in ``path``, with ``${VAR}`` taken from ``environ``.

    Raises:
        InvalidConfig: with every problem found.
    """
    root, problems = read_document(path)
    around = Surroundings(path.absolute().parent, environ, problems, [])
    if mcp_servers_json.KEY in root.entries:
        trees = list(mcp_servers_json.servers(root, problems, around.warnings))
    else:
        trees = _listed(root, problems)
    entries = _read_all(trees, around)
    if problems:
        # One mistake in something that aliases share is one problem.
        raise InvalidConfig(list(dict.fromkeys(problems)))
    return LoadedCatalog(Snapshot(entries), tuple(dict.fromkeys(around.warnings)))


def _listed(root: Mapping, problems: list[Problem]) -> list[Tree]:
    for key in root.key_lines:
        if key != "servers":
            message = f"unknown field '{printable(key)}'; {suggest(key, ['servers'])}"
            problems.append(Problem(root.key_where(key), message))
    servers = root.entries.get("servers")
    if servers is None:
        problems.append(Problem(root.where, "missing required field 'servers'; add it"))
        return []
    if not isinstance(servers, Sequence):
        message = f"must be a list, but is {servers.called}; write [] for none"
        problems.append(Problem(servers.where, message))
        return []
    return servers.items


def _read_all(trees: Iterable[Tree], around: Surroundings) -> dict[ServerId, CatalogEntry]:
    entries: dict[ServerId, CatalogEntry] = {}
    first_line: dict[ServerId, int] = {}
    for index, tree in enumerate(trees):
        reader = EntryReader(tree, index, around)
        entry = reader.read()
        if reader.id is None:
            continue
        if reader.id in first_line:
            line = first_line[reader.id]
            message = f"Duplicate server ID: {reader.id} (first on line {line}); rename one of them"
            around.problems.append(Problem(reader.id_node.where, message))
            continue
        first_line[reader.id] = reader.id_node.line
        if entry is not None:
            entries[reader.id] = entry
    return entries
