"""The ``runtime`` of a catalog entry: how its server is started or reached."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

from msgspec import inspect
from msgspec.structs import replace

from open_mcp_gateway.catalog import check
from open_mcp_gateway.catalog.model import (
    ClientTls,
    Docker,
    K8sJob,
    K8sService,
    LocalProcess,
    Remote,
    Runtime,
)
from open_mcp_gateway.document.convert import Reader, Special, is_null
from open_mcp_gateway.document.paths import absolute, unreadable
from open_mcp_gateway.document.texts import Pair
from open_mcp_gateway.document.tree import Mapping, Tree
from open_mcp_gateway.errors import Problem

KINDS: dict[str, type[Runtime]] = {
    "local-process": LocalProcess,
    "remote-http": Remote,
    "remote-sse": Remote,
    "docker": Docker,
    "k8s-job": K8sJob,
    "k8s-service": K8sService,
}

_PORT = inspect.IntType(ge=1, le=65_535)
_CPUS = inspect.UnionType((inspect.FloatType(ge=0.001, le=10_000), inspect.NoneType()))


class RuntimeReader:
    """Reads one runtime with the rules of its kind."""

    def __init__(self, reader: Reader, folder: Path, warnings: list[Problem]) -> None:
        self._reader = reader
        self._folder = folder
        self._warnings = warnings

    def read(self, node: Mapping, kind: str) -> Pair | None:
        wanted = KINDS[kind]
        special: dict[str, Special] = {"type": lambda _node, _around: None}
        pair = self._reader.struct(node, wanted, special | self._special(wanted))
        if pair is None:
            return None
        if wanted is LocalProcess:
            return self._process(pair)
        if wanted is Remote:
            self._check_remote(node, pair.real)
        return pair

    def _special(self, wanted: type[Runtime]) -> dict[str, Special]:
        if wanted is LocalProcess:
            return {"command": self._ruled("command", check.blank), "working_dir": self._path}
        if wanted is Remote:
            return {
                "url": self._ruled("url", check.wrong_url),
                "headers": self._headers,
                "tls": self._tls,
            }
        if wanted is Docker:
            return {
                "image": self._ruled("image", check.blank),
                "cpus": lambda node, _: self._reader.value(node, _CPUS) if node else _NONE,
            }
        if wanted is K8sJob:
            names = ("namespace", "image")
            return {name: self._ruled(name, check.blank) for name in names}
        return {
            "namespace": self._ruled("namespace", check.blank),
            "service_name": self._ruled("service_name", check.blank),
            "port": self._port,
        }

    def _ruled(self, name: str, rule: Callable[[str], str | None]) -> Special:
        """A required text with a rule."""

        def read(node: Tree | None, around: Mapping) -> Pair | None:
            if node is None:
                return self._reader.missing(around, name)
            return self._reader.ruled(node, rule)

        return read

    def _port(self, node: Tree | None, around: Mapping) -> Pair | None:
        if node is None:
            return self._reader.missing(around, "port")
        return self._reader.value(node, _PORT)

    def _path(self, node: Tree | None, _: Mapping) -> Pair | None:
        if node is None or is_null(node):
            return _NONE
        return self._reader.path(node, self._folder)

    def _process(self, pair: Pair) -> Pair:
        """A command given as a path is looked for where the process runs; a bare name on PATH."""
        process: LocalProcess = pair.real
        if not process.command.startswith("~") and "/" not in process.command:
            return pair
        base = Path(process.working_dir) if process.working_dir else self._folder
        found = absolute(process.command, base, self._reader.environ)
        if found is None:
            return pair
        command = str(found)
        as_written = pair.shown.command == process.command
        shown = replace(pair.shown, command=command) if as_written else pair.shown
        return Pair(replace(process, command=command), shown)

    def _headers(self, node: Tree | None, _: Mapping) -> Pair | None:
        if node is None or is_null(node):
            return Pair({}, {})
        if not isinstance(node, Mapping):
            self._reader.wrong(node, "a mapping")
            return None
        real: dict[str, str] = {}
        seen: set[str] = set()
        for name, child in node.entries.items():
            mistake = check.wrong_header_name(name)
            if mistake is None and name.lower() in seen:
                mistake = "is there twice, in different case; remove one of them"
            seen.add(name.lower())
            if mistake is not None:
                self._reader.problems.append(Problem(node.key_where(name), mistake))
            value = self._header_value(child)
            if value is not None:
                real[name] = value
        return Pair(real, real)

    def _header_value(self, node: Tree) -> str | None:
        found = self._reader.text(node)
        if found is None:
            return None
        if found.empty:
            names = ", ".join(found.empty)
            self._reader.problem(node, f"environment variable {names} is empty; set it")
            return None
        mistake = check.wrong_header_value(found.real)
        if mistake is not None:
            self._reader.problem(node, mistake)
        return found.real

    def _tls(self, node: Tree | None, _: Mapping) -> Pair | None:
        if node is None:
            return _NONE
        special: dict[str, Special] = dict.fromkeys(("ca", "cert", "key"), self._file)
        pair = self._reader.struct(node, ClientTls, special)
        if pair is None:
            return None
        tls: ClientTls = pair.real
        if tls.cert and not tls.key:
            self._reader.problem(node, "'cert' without 'key'; add the key file of the certificate")
        if tls.key and not tls.cert:
            self._reader.problem(node, "'key' without 'cert'; add the certificate file of the key")
        return pair

    def _file(self, node: Tree | None, around: Mapping) -> Pair | None:
        pair = self._path(node, around)
        if pair is None or pair.real is None or node is None:
            return pair
        reason = unreadable(Path(pair.real))
        if reason is not None:
            self._reader.problem(node, f"the file {reason}; mend the path or its permissions")
            return None
        return pair

    def _check_remote(self, node: Mapping, remote: Remote) -> None:
        """Rules between the members."""
        url = urlsplit(remote.url)
        authorized = "authorization" in {name.lower() for name in remote.headers}
        if url.username is not None and authorized:
            message = "holds a user while 'headers' has Authorization; keep one of the two"
            self._reader.problem(node.entries["url"], message)
        if url.scheme != "http":
            return
        if remote.tls is not None:
            message = "has no effect on an http:// URL; remove it, or write https://"
            self._reader.problem(node.entries["tls"], message)
        if (url.username is not None or remote.headers) and not _is_loopback(url.hostname or ""):
            message = "sends its credentials unencrypted; write https:// if the server has it"
            self._warnings.append(Problem(node.entries["url"].where, message))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


_NONE = Pair(None, None)
