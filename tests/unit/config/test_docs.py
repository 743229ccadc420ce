"""The pages about configuration and catalog: every block loads, every key is there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from msgspec.structs import fields as fields_of

from open_mcp_gateway.access.policy import ROLES
from open_mcp_gateway.catalog.check import BOUNDS_S
from open_mcp_gateway.catalog.load import load_catalog
from open_mcp_gateway.catalog.model import LocalProcess, Remote, ServerSpec
from open_mcp_gateway.catalog.runtime import KINDS
from open_mcp_gateway.config import tenants
from open_mcp_gateway.config.fields import Plain
from open_mcp_gateway.config.load import Overrides, load_config
from open_mcp_gateway.config.model import Config
from open_mcp_gateway.config.secrets import FIELDS as KEY_FIELDS

DOCS = Path(__file__).parents[3] / "docs"
CONFIGURATION = (DOCS / "configuration.md").read_text()
CATALOG = (DOCS / "catalog.md").read_text()


def blocks(page: str) -> list[str]:
    return re.findall(r"^```(?:yaml|json)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def environ(text: str) -> dict[str, str]:
    """A value of its own for every variable that has no default."""
    names = set(re.findall(r"\$\{([A-Z_]+)(?!:-)", text)) - set(
        re.findall(r"\$\{([A-Z_]+):-", text)
    )
    return {"HOME": "/home/me"} | {name: f"test-value-0123456789-{name}" for name in names}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Has every file that the blocks name."""
    made = tmp_path_factory.mktemp("docs")
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1",
         "-nodes", "-subj", "/CN=localhost", "-days", "1",
         "-keyout", made / "gateway.key", "-out", made / "gateway.pem"],
        check=True, capture_output=True,
    )  # fmt: skip
    (made / "company-ca.pem").write_text("x")
    (made / "secrets").mkdir()
    (made / "secrets" / "api-key").write_text("test-key-0123456789-abcdef\n")
    (made / "secrets" / "api-key").chmod(0o600)
    return made


@pytest.mark.parametrize("block", blocks(CONFIGURATION))
def test_each_block_of_the_configuration_page(folder: Path, block: str) -> None:
    path = folder / "config.yaml"
    path.write_text(block)
    assert load_config(path, Overrides(), environ(block)).warnings == ()


@pytest.mark.parametrize("block", blocks(CATALOG))
def test_each_block_of_the_catalog_page(folder: Path, block: str) -> None:
    path = folder / "catalog.yaml"
    path.write_text(block)
    assert load_catalog(path, environ(block)).snapshot.entries


def test_the_blocks_of_the_readme(tmp_path: Path) -> None:
    """Its catalog, its configuration, and the tenants that go with both."""
    catalog, config, tenants_of_it = blocks((DOCS.parent / "README.md").read_text())[:3]
    (tmp_path / "catalog.yaml").write_text(catalog)
    assert load_catalog(tmp_path / "catalog.yaml", environ(catalog)).snapshot.entries
    (tmp_path / "config.yaml").write_text(config + tenants_of_it)
    loaded = load_config(tmp_path / "config.yaml", Overrides(), environ(config + tenants_of_it))
    assert loaded.warnings == ()
    assert [one.id for one in loaded.config.tenants] == ["tenant-a", "tenant-b"]


def test_there_are_blocks() -> None:
    assert len(blocks(CONFIGURATION)) >= 4
    assert len(blocks(CATALOG)) >= 6


def rows(page: str) -> dict[str, list[str]]:
    """The first table row of each key: its cells after the key."""
    found: dict[str, list[str]] = {}
    for line in page.splitlines():
        if match := re.match(r"\| `([a-z_]+)` \|(.*)\|$", line):
            found.setdefault(match[1], [cell.strip() for cell in match[2].split("|")])
    return found


def written(value: object) -> str:
    if value is None:
        return "none"
    return f"`{str(value).lower()}`"


def test_every_setting_is_in_the_table_with_its_default() -> None:
    table = rows(CONFIGURATION)
    for field in fields_of(Plain):
        assert table[field.name][0] == written(field.default), field.name
    for name in ("listen_addr", "catalog_path", "cors_origins", "allowed_hosts", "public_url"):
        assert table[name][0] == written(getattr(Config(), name)), name
    assert {"tls", "auth", "tenants", "roles", "workers", *KEY_FIELDS} <= table.keys()


def test_the_bounds_in_the_tables_are_those_in_force() -> None:
    for name, (low, high) in BOUNDS_S.items():
        assert rows(CONFIGURATION)[name][1] == f"{low} – {high}"  # noqa: RUF001  as printed
        assert rows(CATALOG)[name][1] == f"{low} – {high}"  # noqa: RUF001  as printed


def test_every_member_of_tenants_and_keys_is_in_a_table() -> None:
    for name in {*tenants.TENANT_FIELDS, *tenants.NAMED_KEY_FIELDS}:
        assert re.search(rf"^\|[^|]*`{name}`", CONFIGURATION, re.MULTILINE), name


def test_the_table_of_roles_is_what_they_grant() -> None:
    for name, permissions in ROLES.items():
        ((_, cell),) = re.findall(rf"^(\| `{name}` \|) (.*) \|$", CONFIGURATION, re.MULTILINE)
        named = set(re.findall(r"`([a-z:-]+)`", cell))
        base = named & ROLES.keys()
        granted = {str(one) for role in base for one in ROLES[role]}
        assert (named - base) | granted == permissions


def test_every_member_of_a_server_is_in_a_table() -> None:
    table = rows(CATALOG)
    for struct in (ServerSpec, LocalProcess, Remote):
        assert {field.name for field in fields_of(struct)} <= table.keys()
    for kind in KINDS:
        for field in fields_of(KINDS[kind]):
            assert f"`{field.name}`" in CATALOG
        assert f"`{kind}`" in CATALOG
