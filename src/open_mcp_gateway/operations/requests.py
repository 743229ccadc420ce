"""What the management API is asked, as read from bodies: typed, with nothing accepted unnamed."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Final, TypeAlias, TypeVar

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field

from open_mcp_gateway.access.policy import KEY_ROLE
from open_mcp_gateway.auth.network_text import wrong_network
from open_mcp_gateway.auth.patterns import SCOPE_RULES, wrong_ends
from open_mcp_gateway.auth.scope import ScopeText
from open_mcp_gateway.errors import InvalidRequest, MalformedMessage
from open_mcp_gateway.names import NAMESPACE, TENANT_ID, TenantId
from open_mcp_gateway.protocol.unique import check_members
from open_mcp_gateway.secrecy import Secretive

MAX_IMPORTED: Final = 1000
MAX_IMPORT_BYTES: Final = 2 * 1024 * 1024
"""Of a whole import."""

_MAX_METADATA: Final = 50
_MAX_LISTED: Final = 1000
"""Of patterns or namespaces in one list: every key is kept in memory."""

_MAX_NETWORKS: Final = 100
_MAX_SCOPE_BYTES: Final = 64 * 1024
"""Of all that a key is narrowed to, as it is written: a page of a list has two hundred."""

_MAX_TEXT_CHARS: Final = 500
_SHOWN_CHARS: Final = 100
_MAX_PERIOD_S: Final = 100 * 365 * 86400
PERIOD: Final = re.compile(r"([1-9][0-9]{0,8})([smhd])", re.ASCII)
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}

_DIGEST: Final = r"^sha256:[0-9a-f]{64}$"
_PERIOD: Final = r"^[1-9][0-9]{0,8}[smhd]$"
_TENANT: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"

Moment: TypeAlias = Annotated[datetime, Meta(tz=True)]
"""RFC 3339 with its offset."""

Name: TypeAlias = Annotated[str, Meta(min_length=1, max_length=100)]
Digest: TypeAlias = Annotated[str, Meta(pattern=_DIGEST, max_length=71)]
Period: TypeAlias = Annotated[str, Meta(pattern=_PERIOD)]
TenantName: TypeAlias = Annotated[str, Meta(pattern=_TENANT)]
NamespaceName: TypeAlias = Annotated[
    str, Meta(extra_json_schema={"pattern": f"^{NAMESPACE.pattern}$"})
]
"""Checked by ``check_namespaces``, which says it better."""

NetworkTexts: TypeAlias = Annotated[
    tuple[str, ...], Meta(extra_json_schema={"maxItems": _MAX_NETWORKS})
]
"""Likewise, by ``check_networks``."""

_AT: Final = "2030-01-31T00:00:00Z"
_WORDS: Final = {
    f"`str` matching regex '{_DIGEST}'": "'sha256:' and 64 hexadecimal digits in lower case",
    f"`str` matching regex '{_PERIOD}'": "a period such as 90d, 12h or 30m",
    f"`str` matching regex '{_TENANT}'": "1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-'",
    "Invalid RFC3339 encoded datetime": f"Expected a moment such as {_AT}",
    "`datetime` with a timezone component": f"a moment with its offset, such as {_AT}",
}
"""What the decoder says, and the same for people."""

Body = TypeVar("Body")


class KeyCreate(Secretive, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key to be made."""

    name: Name
    tenant: str | UnsetType | None = UNSET
    """Absent: the caller's own. Null: the platform's."""

    role: str = KEY_ROLE
    scope: ScopeText = ScopeText()
    ip_allow: NetworkTexts | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    not_before: Moment | None = None
    expires_in: Period | None = None
    expires_at: Moment | None = None
    hash: Digest | None = None
    """Of a secret made elsewhere, which the gateway never sees."""

    def __repr__(self) -> str:
        # A weak key can be found from its digest by trying, so no digest is shown.
        return f"<KeyCreate {self.name!r}>"


class ScopePatch(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Changes to a scope (RFC 7396): absent keeps, null takes the narrowing away."""

    permissions: tuple[str, ...] | UnsetType | None = UNSET
    namespaces: tuple[str, ...] | UnsetType | None = UNSET
    servers: tuple[str, ...] | UnsetType | None = UNSET
    tools: tuple[str, ...] | UnsetType | None = UNSET
    deny_tools: tuple[str, ...] | UnsetType | None = UNSET
    resources: tuple[str, ...] | UnsetType | None = UNSET
    prompts: tuple[str, ...] | UnsetType | None = UNSET


class KeyPatch(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Changes to a key (RFC 7396). What is not named here cannot be changed."""

    name: Name | UnsetType = UNSET
    role: str | UnsetType = UNSET
    scope: ScopePatch | UnsetType | None = UNSET
    ip_allow: NetworkTexts | UnsetType | None = UNSET
    metadata: dict[str, str | None] | UnsetType | None = UNSET
    not_before: Moment | UnsetType | None = UNSET
    expires_at: Moment | UnsetType | None = UNSET
    disabled: bool | UnsetType | None = UNSET


class KeyVerify(Secretive, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key to be looked at."""

    key: str

    def __repr__(self) -> str:
        return "<KeyVerify ***>"


class KeyImport(Secretive, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Keys to be made from digests; each is read by itself, so that one mistake is one item's."""

    keys: Annotated[list[msgspec.Raw], Meta(min_length=1, max_length=MAX_IMPORTED)]

    def __repr__(self) -> str:
        return f"<KeyImport of {len(self.keys)}>"


class TenantCreate(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A tenant to be made. Its namespaces are always written."""

    id: TenantName
    namespaces: tuple[NamespaceName, ...]
    name: Annotated[str, Meta(max_length=100)] = ""


class TenantPatch(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Changes to a tenant (RFC 7396)."""

    name: Annotated[str, Meta(max_length=100)] | UnsetType | None = UNSET
    namespaces: tuple[NamespaceName, ...] | UnsetType = UNSET
    disabled: bool | UnsetType | None = UNSET


def read_body(body: bytes | msgspec.Raw, form: type[Body]) -> Body:
    """A body as ``form``.

    Raises:
        MalformedMessage: it is not JSON.
        InvalidRequest: it is not what is asked for, or has a member twice; says where. Of an
            import the items are left to be read by themselves.
    """
    try:
        found = msgspec.json.decode(body, type=form)
    except msgspec.ValidationError as error:
        text = str(error)
        for said, words in _WORDS.items():
            text = text.replace(said, words)
        if "unknown field `limits`" in text:
            text = "`limits` are not enforced by this version yet"
        raise InvalidRequest(text) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # Without the cause, which can hold a part of the body.
        raise MalformedMessage("the body is not JSON") from None
    check_members(bytes(body), deep=form is not KeyImport)
    return found


_UNSEEN: Final = re.compile(
    "  |[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0"
    "\U000e0100-\U000e01ef]"
)
"""What leaves no mark though it counts as printable: two blanks in a row, fillers and variation
selectors (Unicode's Default_Ignorable_Code_Point), and the empty Braille cell."""


def check_name(name: str) -> str:
    """``name`` if it can be the name of a key. Raises InvalidRequest."""
    if not name.strip():
        raise InvalidRequest("`name` must not be blank")
    if name != name.strip() or _UNSEEN.search(name) is not None:
        raise InvalidRequest("`name` must not differ from another by what nobody can see")
    return check_shown(name, "name")


def check_tenant_id(text: str) -> TenantId:
    """``text`` if it can be the id of a tenant. Raises InvalidRequest."""
    # Beside the pattern, whose end also matches before a final line feed.
    if not TENANT_ID.fullmatch(text):
        raise InvalidRequest("`id` must be 1 to 64 of A-Z, a-z, 0-9, '.', '_' and '-'")
    return TenantId(text)


def check_shown(text: str, member: str) -> str:
    """``text`` if it can be shown on one line. Raises InvalidRequest."""
    if not text.isprintable():
        raise InvalidRequest(f"`{member}` must be printable characters")
    return text


def check_scope(scope: ScopeText) -> ScopeText:
    """``scope`` if each of its patterns is one, and can fit something. Raises InvalidRequest."""
    if len(msgspec.json.encode(scope)) > _MAX_SCOPE_BYTES:
        raise InvalidRequest(f"`scope` has room for {_MAX_SCOPE_BYTES} bytes")
    for member, rule in SCOPE_RULES.items():
        patterns: tuple[str, ...] | None = getattr(scope, member)
        _check_list(patterns, f"scope.{member}")
        for one in patterns or ():
            mistake = wrong_ends(one) or rule(one)
            if mistake is not None:
                raise InvalidRequest(f"`scope.{member}`: {one[:_SHOWN_CHARS]!r} {mistake}")
    return scope


def _check_list(texts: tuple[str, ...] | None, member: str) -> None:
    found = texts or ()
    if len(found) > _MAX_LISTED or any(len(one) > _MAX_TEXT_CHARS for one in found):
        raise InvalidRequest(
            f"`{member}` has room for {_MAX_LISTED} entries of {_MAX_TEXT_CHARS} characters"
        )


def check_networks(networks: tuple[str, ...] | None) -> tuple[str, ...] | None:
    """``networks`` if each is one, and can fit somebody. Raises InvalidRequest."""
    found = networks or ()
    if len(found) > _MAX_NETWORKS:
        raise InvalidRequest(f"`ip_allow` has room for {_MAX_NETWORKS} networks")
    for one in found:
        mistake = wrong_network(one)
        if mistake is not None:
            raise InvalidRequest(f"`ip_allow`: {one[:_SHOWN_CHARS]!r} {mistake}")
    return networks


def check_metadata(metadata: dict[str, str]) -> dict[str, str]:
    """``metadata`` if it is short. Raises InvalidRequest."""
    texts = [*metadata, *metadata.values()]
    if len(metadata) > _MAX_METADATA or any(len(one) > _MAX_TEXT_CHARS for one in texts):
        raise InvalidRequest(
            f"`metadata` has room for {_MAX_METADATA} entries of {_MAX_TEXT_CHARS} characters"
        )
    return metadata


def check_namespaces(namespaces: tuple[str, ...]) -> tuple[str, ...]:
    """``namespaces`` if each can be one. Raises InvalidRequest."""
    _check_list(namespaces, "namespaces")
    if not all(NAMESPACE.fullmatch(one) for one in namespaces):
        raise InvalidRequest("`namespaces`: each must be 1 to 63 of a-z, 0-9 and '-'")
    return namespaces


def period_s(text: str, member: str) -> int:
    """The seconds that ``90d``, ``12h``, ``30m`` or ``10s`` mean. Raises InvalidRequest."""
    match = PERIOD.fullmatch(text)
    if match is None:
        raise InvalidRequest(f"`{member}` must be a period such as 90d, 12h or 30m")
    period = int(match[1]) * _SECONDS[match[2]]
    if period > _MAX_PERIOD_S:
        raise InvalidRequest(f"`{member}` is longer than a hundred years")
    return period


def end_s(expires_in: str | None, expires_at: datetime | None, now_s: float) -> float | None:
    """When something ends, by either way of saying it; None: never. Raises InvalidRequest."""
    if expires_in is not None and expires_at is not None:
        raise InvalidRequest("give one of `expires_in` and `expires_at`")
    if expires_in is not None:
        return now_s + period_s(expires_in, "expires_in")
    if expires_at is None:
        return None
    moment = expires_at.timestamp()
    if moment <= now_s:
        raise InvalidRequest("`expires_at` is in the past")
    return moment
