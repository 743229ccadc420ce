"""Reading configuration and catalog again while the gateway runs: all of it or nothing."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

import anyio
from msgspec.structs import replace

from open_mcp_gateway.app import Gateway
from open_mcp_gateway.aside import Aside, StillHanging
from open_mcp_gateway.catalog.diff import diff
from open_mcp_gateway.catalog.load import LoadedCatalog, load_catalog
from open_mcp_gateway.config.load import LoadedConfig, Overrides, find_catalog, load_config
from open_mcp_gateway.config.model import Config
from open_mcp_gateway.document.convert import suggestion
from open_mcp_gateway.document.source import noting_digests
from open_mcp_gateway.errors import InvalidConfig, Problem, ReloadFailed
from open_mcp_gateway.inbound.management import ReloadReport

log = logging.getLogger(__name__)

_AT_START_ONLY = ("listen_addr", "tls", "hot_reload", "log_format", "store")
"""Settings that a running gateway keeps; changing one is noted, not an error."""


READ_S = 10.0
"""How long a reload waits for its files; those on a network that is gone never come."""


class Sources:
    """Where configuration and catalog come from; reading them is repeatable."""

    def __init__(
        self, config_path: Path | None, overrides: Overrides, environ: Mapping[str, str]
    ) -> None:
        self.config_path = config_path
        self.overrides = overrides
        self.environ = environ
        self.digests: dict[Path, bytes] = {}
        """Of each file as it was read last (SHA-256), whoever asked for that."""

    def read(self) -> tuple[LoadedConfig, LoadedCatalog]:
        """Both files, checked.

        Raises:
            InvalidConfig: with every mistake of both.
        """
        with noting_digests() as noted:
            try:
                return self._read()
            finally:
                self.digests = self.digests | noted

    def _read(self) -> tuple[LoadedConfig, LoadedCatalog]:
        try:
            loaded = load_config(self.config_path, self.overrides, self.environ)
        except InvalidConfig as error:
            raise InvalidConfig([*error.problems, *self._catalog_problems()]) from error
        catalog = load_catalog(loaded.config.catalog_path, self.environ)
        unknown = _unknown_namespaces(loaded, catalog)
        return replace(loaded, warnings=(*loaded.warnings, *unknown)), catalog

    def _catalog_problems(self) -> list[Problem]:
        """What is wrong with the catalog that a faulty configuration still names."""
        path = find_catalog(self.config_path, self.overrides, self.environ)
        try:
            if path is not None:
                load_catalog(path, self.environ)
        except InvalidConfig as error:
            return error.problems
        return []

    def watched(self, config: Config) -> Iterable[Path]:
        """The files whose change means a reload."""
        yield config.catalog_path
        if self.config_path is not None:
            yield self.config_path
        yield from config.key_files


class Reloader:
    """Brings a gateway up to date with its files, one reload at a time."""

    def __init__(self, sources: Sources) -> None:
        self.sources = sources
        self.read_s = READ_S
        self.gateway: Gateway | None = None
        """Set as soon as there is one."""

        self._one_at_a_time = anyio.Lock()
        self._aside = Aside()

    async def reload(self) -> ReloadReport:
        """Read the files again and put them in force.

        Raises:
            ReloadFailed: they have mistakes, or cannot be read; everything stays as it was.
        """
        async with self._one_at_a_time:
            if self.gateway is None:
                raise ReloadFailed("the gateway is not up yet", retry_after_s=1)
            config, catalog = await self._read()
            return self._apply(self.gateway, config, catalog)

    async def _read(self) -> tuple[LoadedConfig, LoadedCatalog]:
        try:
            with anyio.fail_after(self.read_s):
                return await self._aside.run(self.sources.read)
        except InvalidConfig as error:
            problems, text = _lines(error), error.public
        except (TimeoutError, StillHanging):
            text = f"the files could not be read within {self.read_s:g} s; is a network drive gone?"
            problems = [text]
        log.error("reload refused", extra={"problems": problems})
        raise ReloadFailed(text)

    def _apply(
        self, gateway: Gateway, loaded: LoadedConfig, catalog: LoadedCatalog
    ) -> ReloadReport:
        old, new = gateway.config, loaded.config
        if old.auth_enabled and not new.auth_enabled:
            text = "a reload may not switch authentication off; restart the gateway to do that"
            log.error("reload refused", extra={"problems": [text]})
            raise ReloadFailed(text)
        for name in _AT_START_ONLY:
            if getattr(old, name) != getattr(new, name):
                log.warning("setting takes effect at the next start", extra={"setting": name})
        for problem in (*loaded.warnings, *catalog.warnings):
            log.warning("configuration", extra={"where": problem.where, "note": problem.message})
        report = ReloadReport(before=gateway.snapshot, after=catalog.snapshot)
        changes = diff(report.before, report.after)
        gateway.apply(new, report.after, changes)
        log.info(
            "reloaded",
            extra={
                "servers": len(report.after.entries),
                "added": len(changes.added),
                "removed": len(changes.removed),
                "modified": len(changes.modified),
            },
        )
        return report

    async def reload_changed(self) -> None:
        """A reload that nobody waits for: a failure is in the log, and ends nothing."""
        try:
            await self.reload()
        except ReloadFailed:
            return  # is in the log already
        except Exception:  # a defect in one reload must not end the gateway
            log.exception("reload failed")


def _unknown_namespaces(loaded: LoadedConfig, catalog: LoadedCatalog) -> Iterable[Problem]:
    """Rights on namespaces that no server is in: allowed, since servers come and go."""
    known = {entry.spec.namespace for entry in catalog.snapshot.entries.values()}
    for grant in loaded.grants:
        if grant.namespace not in known:
            text = f"no server of the catalog is in the namespace '{grant.namespace}'"
            yield Problem(grant.where, text + suggestion(grant.namespace, known))


def _lines(error: InvalidConfig) -> list[str]:
    return [str(problem) for problem in error.problems]
