"""The keys of the configuration: that of the platform, and the ``tenants`` block with its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from msgspec import Struct

from open_mcp_gateway.access.policy import (
    ADMIN_ROLE,
    API_KEY_ID,
    KEY_ROLE,
    TENANT_ROLE,
    Roles,
    may_have,
    platform_admin,
)
from open_mcp_gateway.auth.network_text import wrong_network
from open_mcp_gateway.auth.patterns import SCOPE_RULES, Rule
from open_mcp_gateway.auth.records import KeyRecord, TenantRecord
from open_mcp_gateway.auth.scope import ScopeText, selection
from open_mcp_gateway.catalog.check import wrong_namespace
from open_mcp_gateway.config import fields, words
from open_mcp_gateway.config.roles import read_roles
from open_mcp_gateway.config.secrets import FIELDS as KEY_FIELDS
from open_mcp_gateway.config.secrets import FoundKey, KeyReader
from open_mcp_gateway.document.convert import Reader, suggestion
from open_mcp_gateway.document.tree import Mapping, Sequence, Tree
from open_mcp_gateway.errors import Problem
from open_mcp_gateway.names import TENANT_ID, KeyId, Namespace, TenantId, alike

TENANT_FIELDS = ("id", *KEY_FIELDS, "namespaces", "role", "name", "keys")
NAMED_KEY_FIELDS = (
    "name",
    *KEY_FIELDS,
    "role",
    *SCOPE_RULES,
    "expires_at",
    "not_before",
    "ip_allow",
)
_LATER = ("limits",)
_OWN_KEY = "api_key"
"""The name of a tenant's own key, however it is written."""

Value = TypeVar("Value")


def _wrong_id(text: str) -> str | None:
    if f"config:{text}" == API_KEY_ID:
        return "would give its key the id of the platform's own; choose another"
    return None if TENANT_ID.fullmatch(text) else words.WRONG_NAME


class Grant(Struct, frozen=True):
    """A namespace that a tenant is given, and where."""

    where: str
    namespace: Namespace


class Access(Struct, frozen=True, kw_only=True):
    """Everybody who may come in by the file."""

    configured: bool
    """True as soon as any key or tenant was meant, also where it cannot be used."""

    roles: Roles
    tenants: tuple[TenantRecord, ...]
    keys: tuple[KeyRecord, ...]
    files: tuple[Path, ...]
    """Where keys were read from, to be watched."""

    grants: tuple[Grant, ...]


def read_access(root: Mapping, reader: Reader, base: Path, warnings: list[Problem]) -> Access:
    """The keys, tenants and roles of the whole file; worth something if no problem was reported."""
    secrets = KeyReader(reader.environ, base, reader.problems, warnings)
    run = _Access(reader, secrets, read_roles(root, reader), warnings)
    configured = run.platform(root) or "tenants" in root.key_lines
    node = root.entries.get("tenants")
    if node is not None:
        run.tenants(node)
    return Access(
        configured=configured,
        roles=run.roles,
        tenants=tuple(run.found_tenants),
        keys=tuple(run.found_keys),
        files=tuple(dict.fromkeys(run.files)),
        grants=tuple(run.grants),
    )


class _Access:
    """One pass over the keys of one file."""

    def __init__(
        self, reader: Reader, secrets: KeyReader, roles: Roles, warnings: list[Problem]
    ) -> None:
        self._reader = reader
        self._secrets = secrets
        self.roles = roles
        self._warnings = warnings
        self.found_tenants: list[TenantRecord] = []
        self.found_keys: list[KeyRecord] = []
        self.files: list[Path] = []
        self.grants: list[Grant] = []

    def platform(self, root: Mapping) -> bool:
        """Whether a key of the platform was meant."""
        key = self._key(root)
        if key.digest is not None:
            self.found_keys.append(platform_admin(key.digest))
        return key.configured

    def tenants(self, node: Tree) -> None:
        ids: dict[str, str] = {}
        for item in self._items(node):
            self._tenant(item, ids)

    def _tenant(self, node: Mapping, ids: dict[str, str]) -> None:
        self._known(node, TENANT_FIELDS)
        tenant = TenantId(self._unique(node, "id", _wrong_id, ids) or "")
        namespaces = self._namespaces(node)
        name = self._word(node, "name", None)
        role = self._role(node, TENANT_ROLE)
        own = self._key(node)
        names: dict[str, str] = {}
        if own.configured:
            names[alike(_OWN_KEY)] = node.where
        if own.digest is not None:
            self.found_keys.append(
                KeyRecord(
                    id=KeyId(f"config:{tenant}"),
                    holder=tenant,
                    name=_OWN_KEY,
                    role=role,
                    digests=(own.digest,),
                )
            )
        if "keys" in node.entries:
            for item in self._items(node.entries["keys"]):
                record = self._named(item, tenant, names)
                self._note_pointless(item, record, namespaces)
                self.found_keys.append(record)
        self.found_tenants.append(TenantRecord(id=tenant, namespaces=namespaces, name=name or ""))

    def _namespaces(self, node: Mapping) -> tuple[Namespace, ...]:
        child = node.entries.get("namespaces")
        if child is None:
            self._reader.missing(node, "namespaces")
            return ()
        found = words.read_words(child, self._reader, wrong_namespace) or ()
        namespaces = tuple(Namespace(one) for one in found)
        self.grants += [Grant(child.where, one) for one in namespaces]
        return namespaces

    def _note_pointless(
        self, node: Mapping, record: KeyRecord, given: tuple[Namespace, ...]
    ) -> None:
        """Patterns of a key that fit nothing its tenant has: harmless, and likely misspelt."""
        for pattern in record.scope.namespaces or ():
            if pattern != "*" and not any(one in selection([pattern]) for one in given):
                text = f"'{pattern}' fits none of the namespaces of the tenant"
                where = node.entries["namespaces"].where
                self._warnings.append(Problem(where, text + suggestion(pattern, given)))

    def _named(self, node: Mapping, tenant: TenantId, names: dict[str, str]) -> KeyRecord:
        self._known(node, NAMED_KEY_FIELDS)
        name = self._unique(node, "name", words.wrong_name, names, alike) or ""
        key = self._key(node)
        if not any(field in node.entries for field in KEY_FIELDS):
            self._reader.problem(node, f"has no key; add one of {', '.join(KEY_FIELDS)}")
        record = KeyRecord(
            id=KeyId(f"config:{tenant}:{name}"),
            holder=tenant,
            name=name,
            role=self._role(node, KEY_ROLE),
            scope=ScopeText(**{field: self._patterns(node, field) for field in SCOPE_RULES}),
            digests=(key.digest,) if key.digest is not None else (),
            ip_allow=self._optional(
                node,
                "ip_allow",
                lambda one: words.read_words(one, self._reader, wrong_network),
            ),
            not_before=self._moment(node, "not_before"),
            expires_at=self._moment(node, "expires_at"),
        )
        start, end = record.not_before, record.expires_at
        if start is not None and end is not None and end <= start:
            self._reader.problem(node.entries["expires_at"], "is not after not_before; mend one")
        return record

    def _known(self, node: Mapping, names: tuple[str, ...]) -> None:
        """A problem for every field that is none of ``names``."""
        self._reader.unknown(fields.supported(node, _LATER, self._reader.problems), names)

    def _key(self, node: Mapping) -> FoundKey:
        key = self._secrets.read(node)
        if key.file is not None:
            self.files.append(key.file)
        return key

    def _role(self, node: Mapping, default: str) -> str:
        def rule(text: str) -> str | None:
            if text == ADMIN_ROLE:
                return "is for keys of the platform alone; write tenant-admin"
            known = [one for one in self.roles if may_have(TenantId(""), one)]
            return words.wrong_choice(text, known, "role")

        return self._word(node, "role", rule) or default

    def _patterns(self, node: Mapping, field: str) -> tuple[str, ...] | None:
        return self._optional(
            node,
            field,
            lambda child: words.read_words(child, self._reader, SCOPE_RULES[field], star=True),
        )

    def _moment(self, node: Mapping, field: str) -> float | None:
        return self._optional(node, field, lambda child: words.read_moment(child, self._reader))

    def _word(self, node: Mapping, field: str, rule: Rule | None) -> str | None:
        return self._optional(node, field, lambda child: words.read_word(child, self._reader, rule))

    def _optional(
        self, node: Mapping, field: str, read: Callable[[Tree], Value | None]
    ) -> Value | None:
        """None where the field is absent. Where it is wrong as well, but that is a problem."""
        child = node.entries.get(field)
        return None if child is None else read(child)

    def _unique(
        self,
        node: Mapping,
        field: str,
        rule: Rule,
        seen: dict[str, str],
        same: Callable[[str], str] | None = None,
    ) -> str | None:
        """``seen`` has the place of what was there before; ``same`` gives what is compared."""
        child = node.entries.get(field)
        if child is None:
            self._reader.missing(node, field)
            return None
        text = words.read_word(child, self._reader, rule)
        if text is not None:
            compared = text if same is None else same(text)
            if compared in seen:
                how = "" if same is None else ", whatever the case"
                message = f"is that of {seen[compared]} as well{how}; choose another"
                self._reader.problem(child, message)
            seen.setdefault(compared, node.where)
        return text

    def _items(self, node: Tree) -> list[Mapping]:
        """The mappings of a list; whatever is not one is a problem."""
        if not isinstance(node, Sequence):
            self._reader.problem(node, f"must be a list, but is {node.called}; write [] for none")
            return []
        for item in node.items:
            if not isinstance(item, Mapping):
                self._reader.wrong(item, "a mapping")
        return [item for item in node.items if isinstance(item, Mapping)]
