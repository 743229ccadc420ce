"""``config.yaml``, options and environment to a Config, or every mistake in them."""

from __future__ import annotations

from collections.abc import Mapping as Environ
from pathlib import Path

from msgspec import Struct
from msgspec.structs import asdict, replace

from open_mcp_gateway.config import fields
from open_mcp_gateway.config.auth import read_auth
from open_mcp_gateway.config.model import Config, LogLevel
from open_mcp_gateway.config.secrets import FIELDS as KEY_FIELDS
from open_mcp_gateway.config.tenants import Grant, read_access
from open_mcp_gateway.document.convert import Reader, Special, is_null, suggestion
from open_mcp_gateway.document.paths import absolute
from open_mcp_gateway.document.source import read_document
from open_mcp_gateway.document.tree import Mapping
from open_mcp_gateway.errors import InvalidConfig, Problem

FILE_NAME = "config.yaml"
CATALOG_NAME = "catalog.yaml"
USER_FOLDER = ".config/mcp-gateway"
SYSTEM_FOLDER = Path("/etc/mcp-gateway")

_LATER = ("oauth", "aggregate")
_OWN_WAY = (
    "listen_addr",
    "catalog_path",
    *KEY_FIELDS,
    "cors_origins",
    "allowed_hosts",
    "public_url",
    "tls",
    "auth",
    "tenants",
    "roles",
    "workers",
)


class Overrides(Struct, frozen=True):
    """What the command line says instead of the file; None says nothing."""

    listen_addr: str | None = None
    catalog_path: str | None = None
    """Relative to the folder the command runs in."""

    log_level: str | None = None


class LoadedConfig(Struct, frozen=True):
    """A configuration that can be put in force."""

    config: Config
    warnings: tuple[Problem, ...] = ()
    """What is allowed and yet likely a mistake."""

    grants: tuple[Grant, ...] = ()
    """The namespaces that tenants are given, each with its place."""


def find_config(explicit: Path | None, environ: Environ[str, str], cwd: Path) -> Path | None:
    """The file to read: the one named, else the first there is; None when there is none.

    Raises:
        InvalidConfig: the named one does not exist.
    """
    if explicit is not None:
        if not _is_there(cwd / explicit):
            message = "does not exist; create it, or mend the path"
            raise InvalidConfig([Problem(f"--config {explicit}", message)])
        return cwd / explicit
    return next((path for path in config_files(environ, cwd) if _is_there(path)), None)


def config_files(environ: Environ[str, str], cwd: Path) -> list[Path]:
    """Where the file may be when none is named; the first that is there counts."""
    home = environ.get("HOME")
    users = [Path(home) / USER_FOLDER] if home else []
    return [folder / FILE_NAME for folder in (cwd, *users, SYSTEM_FOLDER)]


def _is_there(path: Path) -> bool:
    """Also when it cannot be read: passing over it could leave the gateway without its key."""
    try:
        path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except (OSError, ValueError):
        return True
    return True


def load_config(
    path: Path | None, overrides: Overrides, environ: Environ[str, str]
) -> LoadedConfig:
    """The configuration in ``path``, or the defaults where there is no file.

    Raises:
        InvalidConfig: with every problem found.
    """
    problems: list[Problem] = []
    root = Mapping(file="", line=0)
    if path is not None:
        root, problems = read_document(path)
    base = Path.cwd() if path is None else path.absolute().parent
    run = _Load(root, base, environ, problems)
    config = run.config(path.absolute() if path else None, overrides)
    if config is None:
        raise InvalidConfig(list(dict.fromkeys(problems)))
    return LoadedConfig(config, tuple(dict.fromkeys(run.warnings)), run.grants)


def find_catalog(
    path: Path | None, overrides: Overrides, environ: Environ[str, str]
) -> Path | None:
    """Where the catalog is, also when other settings are wrong, so that both files can be checked.

    None when not even that can be told.
    """
    problems: list[Problem] = []
    root = Mapping(file="", line=0)
    try:
        if path is not None:
            root, _ = read_document(path)
    except InvalidConfig:
        if overrides.catalog_path is None:
            return None
    base = Path.cwd() if path is None else path.absolute().parent
    found = _Load(root, base, environ, problems).catalog_path(overrides)
    return None if problems else found


class _Load:
    """One pass over one file."""

    def __init__(
        self, root: Mapping, base: Path, environ: Environ[str, str], problems: list[Problem]
    ) -> None:
        self._root = root
        self._base = base
        self._environ = environ
        self._problems = problems
        self._reader = Reader(environ, problems)
        self.warnings: list[Problem] = []
        self.grants: tuple[Grant, ...] = ()

    def config(self, source: Path | None, overrides: Overrides) -> Config | None:
        """None when a problem was reported."""
        root = self._root
        known: dict[str, Special] = dict.fromkeys(_OWN_WAY, lambda _node, _around: None)
        plain = self._reader.struct(
            fields.supported(root, _LATER, self._problems), fields.Plain, known
        )
        access = read_access(root, self._reader, self._base, self.warnings)
        auth = read_auth(root, self._reader, self._base, configured=access.configured)
        self._workers()
        found = self._found()
        found["catalog_path"] = self.catalog_path(overrides)
        changed = self._overridden(overrides)
        if self._problems or plain is None:
            return None
        config = Config(
            source=source,
            tenants=access.tenants,
            keys=access.keys,
            roles=access.roles,
            key_files=access.files,
            store=auth.store,
            auth_enabled=access.configured or auth.store is not None,
            **{**asdict(plain.real), **found},
        )
        config = replace(config, **changed)
        self._compare(config)
        self.grants = access.grants
        return config

    def _found(self) -> dict[str, object]:
        """The settings with a form of their own, as far as they are there and right."""
        entries = self._root.entries
        reader = self._reader
        found: dict[str, object] = {}
        if node := entries.get("listen_addr"):
            found["listen_addr"] = fields.read_listen_address(node, reader)
        if node := entries.get("cors_origins"):
            found["cors_origins"] = fields.read_origins(node, reader)
        if node := entries.get("allowed_hosts"):
            found["allowed_hosts"] = fields.read_hosts(node, reader)
        if node := entries.get("tls"):
            found["tls"] = fields.read_tls(node, reader, self._base)
        node = entries.get("public_url")
        if node is not None and not is_null(node):
            pair = reader.ruled(node, fields.wrong_public_url)
            found["public_url"] = pair.real if pair else None
        return found

    def catalog_path(self, overrides: Overrides) -> Path | None:
        """What the option says, else the file, else the default; both are checked."""
        node = self._root.entries.get("catalog_path")
        pair = self._reader.path(node, self._base) if node is not None else None
        text = overrides.catalog_path
        if text is None:
            return Path(pair.real) if pair else self._base / CATALOG_NAME
        path = absolute(text, Path.cwd(), self._environ) if text.strip() else None
        if path is None:
            self._problems.append(Problem("--catalog", "is not a path; name the file"))
        return path

    def _workers(self) -> None:
        node = self._root.entries.get("workers")
        answer = self._reader.value(node, fields.COUNT) if node is not None else None
        if node is not None and answer is not None and answer.real != 1:
            self._reader.problem(
                node,
                "'workers' other than 1 is not supported by this version of the gateway yet; "
                "remove the line",
            )

    def _overridden(self, overrides: Overrides) -> dict[str, object]:
        """What the options change, checked like the values of the file."""
        changed: dict[str, object] = {}
        if overrides.listen_addr is not None:
            address = fields.listen_address(overrides.listen_addr)
            if isinstance(address, str):
                self._problems.append(Problem("--listen-addr", address))
            changed["listen_addr"] = address
        if overrides.log_level is not None:
            changed["log_level"] = self._log_level(overrides.log_level)
        return changed

    def _log_level(self, text: str) -> LogLevel | None:
        names = [str(level) for level in LogLevel]
        if text in names:
            return LogLevel(text)
        message = f"must be one of {', '.join(names)}{suggestion(text, names)}"
        self._problems.append(Problem("--log-level", message))
        return None

    def _compare(self, config: Config) -> None:
        """Settings that are right alone and odd together."""
        if config.auth_enabled and not config.keys and config.store is None:
            message = "no key is configured, so every request is refused; give the tenants keys"
            self.warnings.append(Problem(self._root.key_where("tenants"), message))
        if config.request_timeout_seconds > config.max_request_seconds:
            node = self._root.entries.get("request_timeout_seconds", self._root)
            message = (
                f"is above max_request_seconds ({config.max_request_seconds}), which ends a call "
                "first; raise that as well"
            )
            self.warnings.append(Problem(node.where, message))
