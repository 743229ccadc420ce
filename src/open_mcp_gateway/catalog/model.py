"""What a catalog says about one server."""

from __future__ import annotations

import enum
from typing import TypeAlias

from msgspec import Struct, field

from open_mcp_gateway.names import DEFAULT_NAMESPACE, Namespace, ServerId
from open_mcp_gateway.secrecy import Secretive


class Isolation(enum.StrEnum):
    """Who may share one process or remote session of a server."""

    SHARED = "shared"
    TENANT = "tenant"
    KEY = "key"
    SESSION = "session"


class EraChoice(enum.StrEnum):
    """Which protocol era to speak to a server; ``auto`` finds out by asking it."""

    AUTO = "auto"
    MODERN = "modern"
    LEGACY = "legacy"


class Definition(Secretive, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Common to every struct that a file is read into: immutable, unknown fields refused, and any
    value may hold a secret."""


class ClientTls(Definition, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How to prove and check identity on a TLS connection to a server; paths to PEM files."""

    ca: str | None = None
    """Trust only this bundle instead of the system's."""

    cert: str | None = None
    key: str | None = None


class LocalProcess(
    Definition,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="type",
    tag="local-process",
):
    """A child process spoken to over stdin and stdout."""

    command: str
    args: tuple[str, ...] = ()
    working_dir: str | None = None
    """Absolute after loading; None is the gateway's own working directory."""


class Remote(
    Definition,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="type",
    tag="remote-http",
):
    """A server reached over HTTP; ``remote-sse`` is another name for it."""

    url: str
    headers: dict[str, str] = field(default_factory=dict)
    tls: ClientTls | None = None


class Docker(
    Definition,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="type",
    tag="docker",
):
    """A container that speaks MCP on its stdin and stdout. Known, not startable in this version."""

    image: str
    container_name: str | None = None
    volumes: tuple[str, ...] = ()
    network: str | None = None
    env_file: str | None = None
    cpus: float | None = None
    memory: str | None = None


class K8sJob(
    Definition,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="type",
    tag="k8s-job",
):
    """A Kubernetes Job spoken to by attaching. Known, not startable in this version."""

    namespace: str
    image: str
    service_account: str | None = None
    resources: dict[str, dict[str, str]] = field(default_factory=dict)


class K8sService(
    Definition,
    frozen=True,
    kw_only=True,
    forbid_unknown_fields=True,
    tag_field="type",
    tag="k8s-service",
):
    """A Kubernetes Service that speaks MCP over HTTP. Known, not startable in this version."""

    namespace: str
    service_name: str
    port: int


Runtime: TypeAlias = LocalProcess | Remote | Docker | K8sJob | K8sService


class ServerSpec(Definition, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One server of the catalog, defaults filled in, every ``${VAR}`` replaced."""

    id: ServerId
    runtime: Runtime
    display_name: str = ""
    """The id when the catalog gives none; never empty after loading."""

    description: str | None = None
    namespace: Namespace = DEFAULT_NAMESPACE
    tags: tuple[str, ...] = ()
    env: dict[str, str] = field(default_factory=dict)
    era: EraChoice = EraChoice.AUTO
    isolation: Isolation | None = None
    """None takes the gateway's default."""

    interactive: bool = True
    idle_timeout_seconds: int | None = None
    """None takes the gateway's setting, for this and the three below; 0 never stops."""

    request_timeout_seconds: int | None = None
    start_timeout_seconds: int | None = None
    health_check_interval_seconds: int | None = None

    def __repr__(self) -> str:
        """The id alone: the rest may hold secrets."""
        return f"<ServerSpec {self.id}>"


class CatalogEntry(Secretive, frozen=True, kw_only=True):
    """A server with what must never be shown of it."""

    spec: ServerSpec
    shown: ServerSpec
    """As callers may see it: ``***`` for every secret and every replaced ``${VAR}``."""

    runtime_type: str
    """The name the catalog used, e.g. ``remote-sse`` where ``spec.runtime`` is a ``Remote``."""

    secrets: tuple[str, ...] = ()
    """Longest first: texts to replace by ``***`` in anything quoted from the server."""

    def __repr__(self) -> str:
        """The id alone: the rest holds secrets."""
        return f"<CatalogEntry {self.spec.id}>"

    def scrub(self, text: str) -> str:
        """``text`` with every secret of this server replaced by ``***``."""
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text


class Snapshot(Struct, frozen=True):
    """One catalog as loaded: immutable, in file order."""

    entries: dict[ServerId, CatalogEntry] = field(default_factory=dict)
