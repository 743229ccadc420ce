"""``docs/http-api.md`` about keys and tenants: every route, member, filter and code is there."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from open_mcp_gateway.access.authorize import Code
from open_mcp_gateway.access.explain import NOT_LIVE
from open_mcp_gateway.auth.identify import Reason
from open_mcp_gateway.auth.records import Status
from open_mcp_gateway.auth.scope import ScopeText
from open_mcp_gateway.operations.listing import FILTERS
from open_mcp_gateway.operations.requests import KeyCreate, KeyPatch, TenantCreate, TenantPatch
from open_mcp_gateway.operations.views import KeyView, TenantView

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/http-api.md").read_text()
SOURCE = ROOT / "src/open_mcp_gateway"


def part(title: str) -> str:
    return re.split(r"^## ", PAGE, flags=re.MULTILINE)[
        1 + re.findall(r"^## (.*)$", PAGE, re.MULTILINE).index(title)
    ]


def example(title: str, member: str) -> dict[str, Any]:
    """The JSON block that has this member."""
    blocks = re.findall(r"^```json\n(.*?)^```$", part(title), re.MULTILINE | re.DOTALL)
    found: list[dict[str, Any]] = [json.loads(block) for block in blocks]
    return next(one for one in found if member in one)


def missing(names: Iterable[object], text: str) -> set[str]:
    return {str(name) for name in names if not re.search(rf"[`/]{name}[`=\[]", text)}


@pytest.mark.parametrize(
    ("title", "form"), [("Keys", KeyView), ("Tenants", TenantView)], ids=["key", "tenant"]
)
def test_what_is_shown_is_what_the_page_shows(
    title: str, form: type[KeyView] | type[TenantView]
) -> None:
    assert list(example(title, "source")) == list(form.__struct_fields__)


def test_every_member_and_filter_is_named() -> None:
    keys, tenants = part("Keys"), part("Tenants")
    members = (*KeyCreate.__struct_fields__, *KeyPatch.__struct_fields__)
    assert missing((*members, *ScopeText.__struct_fields__, *FILTERS), keys) == set()
    assert missing(Status, keys) == set()
    for form in (TenantCreate, TenantPatch):
        assert all(name in tenants for name in form.__struct_fields__)


def test_every_outcome_is_named() -> None:
    assert missing(Reason, part("Authentication")) == set()
    assert missing((*Code, NOT_LIVE), part("Explain")) == set()


def test_every_code_of_a_refused_change_is_named() -> None:
    texts = [path.read_text() for path in (SOURCE / "operations").glob("*.py")]
    codes = set(re.findall(r'code ?= ?"([a-z_]+)"', "\n".join(texts))) - {"not_found", "valid"}
    assert {"last_admin", "bad_cursor", "store_not_configured"} <= codes
    assert missing(codes, part("Errors")) == set()


def test_every_route_is_named() -> None:
    texts = [path.read_text() for path in (SOURCE / "inbound").glob("*.py")]
    paths = set(re.findall(r'(?<!f)"(/(?:admin|auth|whoami|openapi)[^"]*[^"/])"', "\n".join(texts)))
    assert {"/admin/keys/{key}", "/openapi.json", "/auth/explain"} <= paths
    assert {path for path in paths if f"{path}`" not in PAGE and f"{path}[" not in PAGE} == set()
