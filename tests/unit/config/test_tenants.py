"""Tenants, their keys and roles, row by row: no mistake gives anybody more than was written."""

# ruff: noqa: E501  a row of a table is one line

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from msgspec.structs import replace

from open_mcp_gateway.access.policy import ROLES, platform_admin
from open_mcp_gateway.auth.principal import Permission
from open_mcp_gateway.auth.records import KeyRecord, TenantRecord
from open_mcp_gateway.auth.scope import ScopeText
from open_mcp_gateway.config.load import LoadedConfig, Overrides, load_config
from open_mcp_gateway.config.model import StoreLocation
from open_mcp_gateway.config.secrets import FoundKey
from open_mcp_gateway.config.tenants import NAMED_KEY_FIELDS, Grant
from open_mcp_gateway.errors import InvalidConfig
from open_mcp_gateway.names import KeyId, Namespace, TenantId

ONE = "test-key-0123456789-one"
TWO = "test-key-0123456789-two"
ENVIRON = {
    "HOME": "/home/me",
    "ONE": ONE,
    "TWO": TWO,
    "EMPTY": "",
    "BLANK": "  ",
    "PADDED": f" {ONE}",
    "UMLAUT": "test-key-0123456789-ü",
    "BARE": "$MCP_KEY",
    "SPACE": "production ",
    "SERVER": "postgres",
}


def load(folder: Path, text: str) -> LoadedConfig:
    path = folder / "config.yaml"
    path.write_text(text)
    return load_config(path, Overrides(), ENVIRON)


def problems_of(folder: Path, text: str) -> list[str]:
    with pytest.raises(InvalidConfig) as caught:
        load(folder, text)
    prefix = f"{folder / 'config.yaml'}:"
    return [str(problem).replace(prefix, "") for problem in caught.value.problems]


def digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


HASH = f"sha256:{hashlib.sha256(ONE.encode()).hexdigest()}"


def tenant(id: str, *namespaces: str, name: str = "") -> TenantRecord:
    given = tuple(Namespace(one) for one in namespaces)
    return TenantRecord(id=TenantId(id), namespaces=given, name=name)


def own(id: str, key: str = ONE, role: str = "operator") -> KeyRecord:
    """The own key of a tenant."""
    return KeyRecord(
        id=KeyId(f"config:{id}"),
        holder=TenantId(id),
        name="api_key",
        role=role,
        digests=(digest(key),),
    )


CI = KeyRecord(
    id=KeyId("config:a:ci"),
    holder=TenantId("a"),
    name="ci",
    role="caller",
    digests=(digest(ONE),),
)


def a(members: str) -> str:
    """A file with one tenant."""
    return f"tenants: [{{id: a, namespaces: [n], {members}}}]"


def ci(members: str) -> str:
    """A file with one named key."""
    return a(f"keys: [{{name: ci, api_key: '${{ONE}}', {members}}}]")


def scoped(**lists: tuple[str, ...]) -> KeyRecord:
    return replace(CI, scope=ScopeText(**lists))


CONTRACT = """
tenants:
- id: tenant-a
  api_key: "${ONE}"
  namespaces: [production]
- id: tenant-b
  api_key: "${TWO}"
  namespaces: [staging, development]
"""


@pytest.mark.parametrize(
    ("text", "tenants", "keys"),
    [
        (CONTRACT, [tenant("tenant-a", "production"), tenant("tenant-b", "staging", "development")], [own("tenant-a"), own("tenant-b", TWO)]),
        (f"api_key: {TWO}{CONTRACT.replace('TWO', 'ONE').replace('ONE', 'EMPTY:-' + 'k3y-of-the-file-01', 1).replace('namespaces: [production]', 'namespaces: []')}",
         [tenant("tenant-a"), tenant("tenant-b", "staging", "development")],
         [platform_admin(digest(TWO)), own("tenant-a", "k3y-of-the-file-01"), own("tenant-b", ONE)]),
        ("tenants: []", [], []),
        ("tenants: [{id: a, namespaces: []}]", [tenant("a")], []),
        ("tenants: [{id: a, namespaces: [n, n]}]", [tenant("a", "n")], []),
        (a("name: The first"), [tenant("a", "n", name="The first")], []),
        (a("api_key: '${ONE}', role: viewer"), [tenant("a", "n")], [own("a", role="viewer")]),
        (a(f"api_key_hash: '{HASH}'"), [tenant("a", "n")], [own("a")]),
        (a("api_key_file: key"), [tenant("a", "n")], [own("a")]),
        (a("api_key: '${ONE:?set it}', keys: []"), [tenant("a", "n")], [own("a")]),
        (a("api_key: '${ONE}', role: own") + "\nroles: {own: []}", [tenant("a", "n")], [own("a", role="own")]),
        (a("api_key: '${TWO}', keys: [{name: ci, api_key: '${ONE}'}]"), [tenant("a", "n")], [own("a", TWO), CI]),
        (ci("role: tenant-admin"), [tenant("a", "n")], [replace(CI, role="tenant-admin")]),
        (a(f"keys: [{{name: ci, api_key_hash: '{HASH}'}}]"), [tenant("a", "n")], [CI]),
        (a("keys: [{name: ci, api_key_file: key}]"), [tenant("a", "n")], [CI]),
        (ci("tools: []"), [tenant("a", "n")], [scoped(tools=())]),
        (ci("tools: '*'"), [tenant("a", "n")], [scoped(tools=("*",))]),
        (ci("tools: ['*']"), [tenant("a", "n")], [scoped(tools=("*",))]),
        (ci("tools: [postgres/query, 'github/search_*', '${SERVER}/x']"), [tenant("a", "n")], [scoped(tools=("postgres/query", "github/search_*", "postgres/x"))]),
        (ci("deny_tools: ['postgres/drop*']"), [tenant("a", "n")], [scoped(deny_tools=("postgres/drop*",))]),
        (ci("resources: ['postgres/file:///a$$b'], prompts: [x/y]"), [tenant("a", "n")], [scoped(resources=("postgres/file:///a$b",), prompts=("x/y",))]),
        (ci("servers: [postgres, 'git*'], namespaces: [n]"), [tenant("a", "n")], [scoped(servers=("postgres", "git*"), namespaces=("n",))]),
        (ci("permissions: ['servers:*', 'mcp:call']"), [tenant("a", "n")], [scoped(permissions=("servers:*", "mcp:call"))]),
        (ci("expires_at: 2030-12-31"), [tenant("a", "n")], [replace(CI, expires_at=1924905600.0)]),
        (ci("expires_at: '2030-12-31T01:00:00'"), [tenant("a", "n")], [replace(CI, expires_at=1924909200.0)]),
        (ci("expires_at: 2030-12-31 01:00:00.5 +01:00"), [tenant("a", "n")], [replace(CI, expires_at=1924905600.5)]),
        (ci("not_before: 2030-12-31t00:00:00z, expires_at: 2031-01-01"), [tenant("a", "n")], [replace(CI, not_before=1924905600.0, expires_at=1924992000.0)]),
        (ci("expires_at: '0001-01-01T00:00:00.123456789+14:00'"), [tenant("a", "n")], [replace(CI, expires_at=-62135647199.876544)]),
        (ci("ip_allow: []"), [tenant("a", "n")], [replace(CI, ip_allow=())]),
        (ci("ip_allow: [10.0.0.0/8, 192.0.2.7, '2001:db8::/32', '::1']"), [tenant("a", "n")], [replace(CI, ip_allow=("10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "::1"))]),
    ],
)  # fmt: skip
def test_what_is_written_is_what_holds(
    tmp_path: Path, text: str, tenants: list[TenantRecord], keys: list[KeyRecord]
) -> None:
    (tmp_path / "key").touch(0o600)
    (tmp_path / "key").write_text(ONE + "\n")
    loaded = load(tmp_path, text)
    assert loaded.config.auth_enabled
    assert list(loaded.config.tenants) == tenants
    assert list(loaded.config.keys) == keys
    assert loaded.config.key_files == ((tmp_path / "key",) if "file: key" in text else ())
    assert ONE not in repr(loaded)


BLANK = "is empty or blank; write a key or remove the line"
STRIP = "is empty, or has white space at an end or a control character; remove it"
LEFT = "holds '$NAME' or '${' that was not replaced; write ${NAME} with the variable set"
CHARACTERS = "holds a space, a control character or a non-ASCII one; use visible ASCII only"
NAME = (
    "is no valid name; use 1 to 64 letters, digits, '.', '_' and '-', the first a letter or digit"
)
NAMESPACE = "is not a valid namespace; use 1 to 63 lower-case letters, digits and '-'"
QUOTE = "to YAML, not text; quote it"
LATER = "is not supported by this version of the gateway yet; remove the block"
STAR = "has a '*' that is not at its end; write a name, or a beginning and one '*'"
ITEM = "can fit nothing; write server/name, server/beginning* or server/*"
NETWORK = "is no network or address; write e.g. 10.0.0.0/8, 192.0.2.7 or 2001:db8::/32"
MOMENT = "is no moment; write e.g. 2030-12-31 or 2030-12-31T18:00:00Z"
VALUE = "is empty; write a value or remove the line"
LIST = "write [] for none"
STAR_LIST = 'write [] for none, or ["*"] for all'
UNSET = "environment variable UNSET is not set; set it"
EMPTY = "environment variable EMPTY is empty; set it"

OWN_KEY = [
    ("api_key: ''", f"api_key: {BLANK}"),
    ("api_key: ", "api_key: is empty; write a key or remove the line"),
    ("api_key: null", "api_key: is empty; write a key or remove the line"),
    ("api_key: '${BLANK}'", f"api_key: {BLANK} (the value comes from BLANK)"),
    ("api_key: '${UNSET}'", f"api_key: {UNSET}"),
    ("api_key: '${EMPTY}'", f"api_key: {EMPTY}"),
    ("api_key: '${EMPTY:-}'", f"api_key: {EMPTY}"),
    ("api_key: '${UNSET:?ask for it}'", "api_key: ask for it (environment variable UNSET is not set)"),
    ("api_key: '${PADDED}'", "api_key: starts or ends with white space; remove it (the value comes from PADDED)"),
    ("api_key: '${UMLAUT}'", f"api_key: {CHARACTERS} (the value comes from UMLAUT)"),
    ("api_key: '${BARE}'", f"api_key: {LEFT} (the value comes from BARE)"),
    ("api_key: $ONE", f"api_key: {LEFT}"),
    ("api_key: \"a\\x07b\"", f"api_key: {CHARACTERS}"),
    ("api_key: 12345678", f"api_key: is a whole number {QUOTE}"),
    ("api_key: yes", f"api_key: is true or false {QUOTE}"),
    ("api_key: [x]", "api_key: must be text, but is a list; write one value"),
    ("api_key_hash: md5", "api_key_hash: must be 'sha256:' and 64 hexadecimal digits"),
    ("api_key_file: none", "api_key_file: the file does not exist; create it, or mend the path"),
    ("api_key_file: blank", "api_key_file: the file is empty or blank; write the key into it"),
    (f"api_key: '${{ONE}}', api_key_hash: '{HASH}'", "api_key_hash: 'api_key' and 'api_key_hash' are both there; keep one of them"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        *((a(text), f"tenants[0].{message}") for text, message in OWN_KEY),
        *((a(f"keys: [{{name: ci, {text}}}]"), f"tenants[0].keys[0].{message}") for text, message in OWN_KEY),
        ("tenants:", f"tenants: must be a list, but is empty; {LIST}"),
        ("tenants: {a: []}", f"tenants: must be a list, but is a mapping; {LIST}"),
        ("tenants: '${UNSET}'", f"tenants: must be a list, but is text; {LIST}"),
        ("tenants: [a]", "tenants[0]: must be a mapping, but is text; write a mapping"),
        ("tenants: [{namespaces: []}]", "tenants[0]: missing required field 'id'; add it"),
        ("tenants: [{id: , namespaces: []}]", f"tenants[0].id: {VALUE}"),
        ("tenants: [{id: a b, namespaces: []}]", f"tenants[0].id: {NAME}"),
        ("tenants: [{id: '${EMPTY}', namespaces: []}]", f"tenants[0].id: {EMPTY}"),
        ("tenants: [{id: 5, namespaces: []}]", "tenants[0].id: is a whole number, not text; quote it"),
        ("tenants: [{id: api_key, namespaces: []}]", "tenants[0].id: would give its key the id of the platform's own; choose another"),
        ("tenants: [{id: a, namespaces: []}, {id: a, namespaces: []}]", "tenants[1].id: is that of 1 tenants[0] as well; choose another"),
        ("tenants: [&t {id: a, namespaces: []}, *t]", "tenants[0].id: is that of 1 tenants[0] as well; choose another"),
        ("tenants: [{id: a}]", "tenants[0]: missing required field 'namespaces'; add it"),
        ("tenants: [{id: a, keys: [{name: ci, api_key: '${ONE}', namespaces: [m]}]}]", "tenants[0]: missing required field 'namespaces'; add it"),
        ("tenants: [{id: a, namespaces: }]", f"tenants[0].namespaces: must be a list, but is empty; {LIST}"),
        ("tenants: [{id: a, namespaces: '*'}]", f"tenants[0].namespaces: must be a list, but is text; {LIST}"),
        ("tenants: [{id: a, namespaces: ['*']}]", f"tenants[0].namespaces[0]: {NAMESPACE}"),
        ("tenants: [{id: a, namespaces: ['${EMPTY}']}]", f"tenants[0].namespaces[0]: {EMPTY}"),
        ("tenants: [{id: a, namespaces: ['${SPACE}']}]", f"tenants[0].namespaces[0]: {STRIP}"),
        ("tenants: [{id: a, namespaces: [n, Prod]}]", f"tenants[0].namespaces[1]: {NAMESPACE}"),
        ("tenants: [{id: a, namespaces: [~]}]", f"tenants[0].namespaces[0]: {VALUE}"),
        (a("namespace: x"), "tenants[0].namespace: unknown field 'namespace'; did you mean 'namespaces'?"),
        (a("limit: {}"), "tenants[0].limit: unknown field 'limit'; known are id, api_key, api_key_file, api_key_hash, namespaces, role, name, keys"),
        (a("limits: {rpm: 1}"), f"tenants[0].limits: 'tenants[0].limits' {LATER}"),
        (a("role: opertor"), "tenants[0].role: is no role; did you mean 'operator'?"),
        (a("role: ''"), f"tenants[0].role: {STRIP}"),
        (a("role: "), f"tenants[0].role: {VALUE}"),
        (a("role: xyz"), "tenants[0].role: is no role; known are viewer, caller, operator, tenant-admin, auditor"),
        ("tenants: [{id: a, namespaces: [n], role: admin}]", "tenants[0].role: is for keys of the platform alone; write tenant-admin"),
        (a("name: ''"), f"tenants[0].name: {STRIP}"),
        (a('name: "a\\tb"'), f"tenants[0].name: {STRIP}"),
        (a('name: "a\\u202Eb"'), f"tenants[0].name: {STRIP}"),
        (a("keys: "), f"tenants[0].keys: must be a list, but is empty; {LIST}"),
        (a("keys: [x]"), "tenants[0].keys[0]: must be a mapping, but is text; write a mapping"),
        (a("keys: [{name: ci}]"), "tenants[0].keys[0]: has no key; add one of api_key, api_key_file, api_key_hash"),
        (a("keys: [{api_key: '${ONE}'}]"), "tenants[0].keys[0]: missing required field 'name'; add it"),
        (a("keys: [{name: -ci, api_key: '${ONE}'}]"), f"tenants[0].keys[0].name: {NAME}"),
        (a("keys: [{name: ci, api_key: '${ONE}'}, {name: ci, api_key: '${TWO}'}]"), "tenants[0].keys[1].name: is that of 1 tenants[0].keys[0] as well, whatever the case; choose another"),
        (a("keys: [{name: ci, api_key: '${ONE}'}, {name: CI, api_key: '${TWO}'}]"), "tenants[0].keys[1].name: is that of 1 tenants[0].keys[0] as well, whatever the case; choose another"),
        (a("api_key: '${TWO}', keys: [{name: api_key, api_key: '${ONE}'}]"), "tenants[0].keys[0].name: is that of 1 tenants[0] as well, whatever the case; choose another"),
        (a("api_key: '${TWO}', keys: [{name: Api_Key, api_key: '${ONE}'}]"), "tenants[0].keys[0].name: is that of 1 tenants[0] as well, whatever the case; choose another"),
        (ci("limit: {}"), f"tenants[0].keys[0].limit: unknown field 'limit'; known are {', '.join(NAMED_KEY_FIELDS)}"),
        (ci("limits: {}"), f"tenants[0].keys[0].limits: 'tenants[0].keys[0].limits' {LATER}"),
        (ci("tool: [x/y]"), "tenants[0].keys[0].tool: unknown field 'tool'; did you mean 'tools'?"),
        (ci("role: callr"), "tenants[0].keys[0].role: is no role; did you mean 'caller'?"),
        *((ci(f"{field}: "), f"tenants[0].keys[0].{field}: must be a list, but is empty; {STAR_LIST}")
          for field in ("permissions", "namespaces", "servers", "tools", "deny_tools", "resources", "prompts")),
        (ci("tools: x/y"), f"tenants[0].keys[0].tools: must be a list, but is text; {STAR_LIST}"),
        (ci("tools: ['']"), f"tenants[0].keys[0].tools[0]: {STRIP}"),
        (ci("tools: ['${EMPTY}*']"), f"tenants[0].keys[0].tools[0]: {EMPTY}"),
        (ci("tools: ['${UNSET:-}*']"), "tenants[0].keys[0].tools[0]: environment variable UNSET is empty; set it"),
        (ci("tools: [$SERVER/x]"), "tenants[0].keys[0].tools[0]: holds '$NAME', which is not replaced; write ${NAME}, or '$$' for a '$'"),
        (ci("tools: ['a/*b']"), f"tenants[0].keys[0].tools[0]: {STAR}"),
        (ci("tools: [query]"), f"tenants[0].keys[0].tools[0]: {ITEM}"),
        (ci("deny_tools: [drop]"), f"tenants[0].keys[0].deny_tools[0]: {ITEM}"),
        (ci("deny_tools: [' a/drop']"), f"tenants[0].keys[0].deny_tools[0]: {STRIP}"),
        (ci("servers: ['**']"), f"tenants[0].keys[0].servers[0]: {STAR}"),
        (ci("servers: [5]"), "tenants[0].keys[0].servers[0]: is a whole number, not text; quote it"),
        (ci("permissions: [mcp.call]"), "tenants[0].keys[0].permissions[0]: is no permission; did you mean 'mcp:call'?"),
        (ci("permissions: ['server:*']"), "tenants[0].keys[0].permissions[0]: is no permission; did you mean 'servers:stop'?"),
        (ci("permissions: ['a*b']"), f"tenants[0].keys[0].permissions[0]: {STAR}"),
        (ci("expires_at: "), f"tenants[0].keys[0].expires_at: {VALUE}"),
        (ci("expires_at: '${EMPTY}'"), f"tenants[0].keys[0].expires_at: {EMPTY}"),
        (ci("expires_at: 2030"), f"tenants[0].keys[0].expires_at: {MOMENT}"),
        (ci("expires_at: 90d"), f"tenants[0].keys[0].expires_at: {MOMENT}"),
        (ci("expires_at: 2030-02-30"), f"tenants[0].keys[0].expires_at: {MOMENT}"),
        (ci("expires_at: [2030-02-01]"), "tenants[0].keys[0].expires_at: must be text, but is a list; write text"),
        (ci("not_before: 2030-01-01, expires_at: 2030-01-01"), "tenants[0].keys[0].expires_at: is not after not_before; mend one"),
        (ci("ip_allow: "), f"tenants[0].keys[0].ip_allow: must be a list, but is empty; {LIST}"),
        (ci("ip_allow: '*'"), f"tenants[0].keys[0].ip_allow: must be a list, but is text; {LIST}"),
        (ci("ip_allow: ['*']"), f"tenants[0].keys[0].ip_allow[0]: {NETWORK}"),
        (ci("ip_allow: [10.0.0.0/33]"), f"tenants[0].keys[0].ip_allow[0]: {NETWORK}"),
        (ci("ip_allow: [10.0.0.0/255.0.0.0]"), f"tenants[0].keys[0].ip_allow[0]: {NETWORK}"),
        (ci("ip_allow: [10.1.0.0/8]"), "tenants[0].keys[0].ip_allow[0]: has bits set beyond its prefix; write 10.0.0.0/8"),
        (ci("ip_allow: ['::ffff:10.0.0.0/104']"), "tenants[0].keys[0].ip_allow[0]: is IPv4 written as IPv6, which fits no caller; write it as IPv4"),
        (ci("expires_at: '0000-01-01'"), f"tenants[0].keys[0].expires_at: {MOMENT}"),
        (ci("expires_at: '2030-01-01T00:00:60Z'"), f"tenants[0].keys[0].expires_at: {MOMENT}"),
        (ci("expires_at: '2030-01-01T00:00:00+24:00'"), f"tenants[0].keys[0].expires_at: {MOMENT}"),
        ("roles:", "roles: must be a mapping, but is empty; write a value or remove the line"),
        ("roles: []\n" + ci("role: caller"), "roles: must be a mapping, but is a list; write a mapping"),
        ("roles: {admin: []}", "roles.admin: is a built-in role, which cannot be redefined; choose another name"),
        ("roles: {Viewer: []}", "roles.Viewer: is a built-in role, which cannot be redefined; choose another name"),
        ("roles: {'a b': []}", f'roles["a b"]: {NAME}'),
        ("roles: {x: }", f"roles.x: must be a list, but is empty; {LIST}"),
        ("roles: {x: '*'}", f"roles.x: must be a list, but is text; {LIST}"),
        ("roles: {x: ['*']}", f"roles.x[0]: is no permission; known are {', '.join(Permission)}"),
        ("roles: {x: [mcp-call]}", "roles.x[0]: is no permission; did you mean 'mcp:call'?"),
        ("roles: {x: [mcp-call]}\n" + ci("role: x"), "roles.x[0]: is no permission; did you mean 'mcp:call'?"),
        ("auth: {store: }", f"auth.store: {VALUE}"),
        ("auth: {store: '', require: true}", f"auth.store: {STRIP}"),
        ("auth: {store: '${EMPTY}'}", f"auth.store: {EMPTY}"),
        ("auth: {store: true}", "auth.store: is true or false, not text; quote it"),
        ("auth: {store: [x]}", "auth.store: must be text, but is a list; write text"),
        *((f"auth: {{store: '{text}'}}", "auth.store: is the address of no store that is known; write a path, sqlite:///absolute/path or postgresql://…")
          for text in ("mysql://h/d", "sqlite://keys.db", "sqlite::memory:", "postgres://h/d", "postgres:h", "postgresql:h", "sqlite:keys.db", "POSTGRESQL://h/d")),
        ("auth: {store: 'sqlite:///a?mode=ro'}", "auth.store: holds '?' or '#', which the address of a file cannot have; remove it"),
        ("auth: {store: 'sqlite:///a#b'}", "auth.store: holds '?' or '#', which the address of a file cannot have; remove it"),
        ("auth: {store: '~nobody-of-that-name/x'}", "auth.store: '~' leads to no home folder; write the whole path"),
        ("auth: {store: .}", "auth.store: is a folder; name the file in it"),
        ("auth: {store: new/}", "auth.store: is a folder; name the file in it"),
        ("auth: {store: 'postgresql://h:99999/d'}", "auth.store: is no valid address; write postgresql://user:password@host:port/database"),
        ("auth: {store: 'postgresql://[h/d'}", "auth.store: is no valid address; write postgresql://user:password@host:port/database"),
        ("auth: {store: 'postgresql://h:0/d'}", "auth.store: is no valid address; write postgresql://user:password@host:port/database"),
    ],
)  # fmt: skip
def test_an_error_and_nothing_in_force(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "blank").write_text(" \n")
    (tmp_path / "blank").chmod(0o600)
    [problem] = problems_of(tmp_path, text)
    assert problem == f"1 {message}"
    assert "0123456789" not in problem


SAME = "is the same key as that of "


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("api_key: ${ONE}\n" + a("api_key: '${ONE}'"), f"2 tenants[0].api_key: {SAME}1 api_key; give each its own"),
        ("api_key: ${ONE}\n" + a(f"api_key_hash: '{HASH}'"), f"2 tenants[0].api_key_hash: {SAME}1 api_key; give each its own"),
        ("api_key_file: key\n" + ci("role: viewer"), f"2 tenants[0].keys[0].api_key: {SAME}1 api_key_file; give each its own"),
        (a("api_key: '${ONE}', keys: [{name: ci, api_key_file: key}]"), f"1 tenants[0].keys[0].api_key_file: {SAME}1 tenants[0].api_key; give each its own"),
        ("tenants:\n- &t {id: a, namespaces: [], api_key: '${ONE}'}\n- {<<: *t, id: b}", f"2 tenants[1].api_key: {SAME}2 tenants[0].api_key; give each its own"),
    ],
)  # fmt: skip
def test_the_same_key_twice(tmp_path: Path, text: str, where: str) -> None:
    (tmp_path / "key").touch(0o600)
    (tmp_path / "key").write_text(ONE + "\n")
    assert problems_of(tmp_path, text) == [where]


def test_all_mistakes_at_once(tmp_path: Path) -> None:
    problems = problems_of(
        tmp_path,
        "tenants:\n"
        "- id: a\n"
        "  api_key: ''\n"
        "  namespace: [x]\n"
        "  keys:\n"
        "  - {name: ci, role: x, tools: y}\n"
        "- 5\n"
        "roles: {admin: [], x: y}\n"
        "auth: {store: '', pepper: x}\n",
    )
    assert [problem.split(": ")[0] for problem in problems] == [
        "8 roles.admin",
        "8 roles.x",
        "7 tenants[1]",
        "4 tenants[0].namespace",
        "2 tenants[0]",
        "3 tenants[0].api_key",
        "6 tenants[0].keys[0]",
        "6 tenants[0].keys[0].tools",
        "9 auth.pepper",
        "9 auth.store",
    ]


@pytest.mark.parametrize(
    ("text", "place", "message"),
    [
        (a("api_key: short-k3y"), "tenants[0].api_key", "is shorter than 16 characters and can be guessed; use a long random one"),
        (a("api_key: '${UNSET:-test-key-0123456789}'"), "tenants[0].api_key", "UNSET is not set, so the default in this file is the key; set UNSET"),
        (a("keys: [{name: ci, api_key: abababababababababab}]"), "tenants[0].keys[0].api_key", "repeats a few characters and can be guessed; use a long random one"),
        (a("api_key_file: open"), "tenants[0].api_key_file", "other users can read the file; run chmod 600 on it"),
        (ci("namespaces: [n, '*', m]"), "tenants[0].keys[0].namespaces", "'m' fits none of the namespaces of the tenant"),
        (ci("namespaces: ['m*']"), "tenants[0].keys[0].namespaces", "'m*' fits none of the namespaces of the tenant"),
        ("tenants: []", "tenants", "no key is configured, so every request is refused; give the tenants keys"),
        (a("name: x"), "tenants", "no key is configured, so every request is refused; give the tenants keys"),
    ],
)  # fmt: skip
def test_a_warning(tmp_path: Path, text: str, place: str, message: str) -> None:
    (tmp_path / "open").write_text(ONE)
    (tmp_path / "open").chmod(0o644)
    [warning] = load(tmp_path, text).warnings
    assert str(warning) == f"{tmp_path / 'config.yaml'}:1 {place}: {message}"


def test_a_key_for_all_namespaces_of_a_tenant_that_has_none(tmp_path: Path) -> None:
    text = (
        "tenants: [{id: a, namespaces: [], keys: [{name: ci, api_key: '${ONE}', namespaces: '*'}]}]"
    )
    assert load(tmp_path, text).warnings == ()


def test_every_key_file_is_watched_once(tmp_path: Path) -> None:
    for name, key in (("x", ONE), ("y", TWO)):
        (tmp_path / name).touch(0o600)
        (tmp_path / name).write_text(key)
    text = a("api_key_file: x, keys: [{name: ci, api_key_file: y}]")
    assert load(tmp_path, text).config.key_files == (tmp_path / "x", tmp_path / "y")


def test_own_roles_beside_the_built_in_ones(tmp_path: Path) -> None:
    roles = load(tmp_path, "roles: {none: [], caller-only: ['mcp:call', 'mcp:call']}").config.roles
    own_roles = {"none": frozenset[Permission](), "caller-only": frozenset({Permission.MCP_CALL})}
    assert roles == {**ROLES, **own_roles}


def test_roles_alone_ask_nobody_for_a_key(tmp_path: Path) -> None:
    assert not load(tmp_path, "roles: {}").config.auth_enabled


@pytest.mark.parametrize("text", [CONTRACT, "tenants: []", "auth: {store: keys.db}"])
def test_a_required_way_to_authenticate(tmp_path: Path, text: str) -> None:
    text = text if text.startswith("auth") else f"{text}\nauth: {{}}\n"
    required = text.replace("auth: {", "auth: {require: true, ").replace(", }", "}")
    assert load(tmp_path, required).config.auth_enabled


def test_the_places_of_what_is_granted(tmp_path: Path) -> None:
    place = f"{tmp_path / 'config.yaml'}:1 tenants[0].namespaces"
    assert load(tmp_path, a("name: x")).grants == (Grant(place, Namespace("n")),)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("sqlite:////var/lib/keys.db", "/var/lib/keys.db"),
        ("sqlite:///var/lib/keys.db", "/var/lib/keys.db"),
        ("/var/lib/keys.db", "/var/lib/keys.db"),
        ("~/keys.db", "/home/me/keys.db"),
    ],
)
def test_a_store_in_a_file(tmp_path: Path, text: str, path: str) -> None:
    config = load(tmp_path, f"auth: {{store: '{text}'}}").config
    assert config.auth_enabled
    assert config.store is not None
    assert config.store == StoreLocation(
        kind="sqlite", path=config.store.path, url=f"sqlite://{config.store.path}"
    )
    assert config.store.path is not None
    assert config.store.path.resolve() == Path(path)


def test_a_store_beside_the_file(tmp_path: Path) -> None:
    store = load(tmp_path, "auth: {store: keys.db}").config.store
    assert store is not None
    assert store.path == tmp_path / "keys.db"
    assert str(tmp_path / "keys.db") in repr(store)


def test_a_store_in_a_database(tmp_path: Path) -> None:
    url = f"postgresql://me:{ONE}@db:5432/keys"
    loaded = load(tmp_path, "auth: {store: 'postgresql://me:${ONE}@db:5432/keys'}")
    assert loaded.config.store == StoreLocation(kind="postgres", url=url)
    assert loaded.warnings == ()
    assert ONE not in repr(loaded)


def test_what_was_found_of_a_key_shows_no_digest(tmp_path: Path) -> None:
    assert repr(load(tmp_path, CONTRACT).config.keys) == (
        "(<KeyRecord config:tenant-a>, <KeyRecord config:tenant-b>)"
    )


def test_a_found_key_shows_no_digest() -> None:
    assert repr(FoundKey(True, digest(ONE))) == "<FoundKey configured=True>"
