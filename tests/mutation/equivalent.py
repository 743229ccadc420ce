"""Mistakes that are none: the program does the same with them, so no test can tell."""

from __future__ import annotations

from typing import Final

_NEVER_READ: Final = "nothing looks at it"
_ONE_OF_MANY: Final = "only whether it is the resources is asked"
_NO_FILE: Final = "no problem has its place in a file that there is none of"
_REFUSED: Final = "a problem was reported, and nothing of that file comes into force"
_SIZE: Final = "how many are kept, which shows in memory and time alone"

EQUIVALENT: Final[dict[tuple[str, str, str], str]] = {
    ("access/authorize.py", "_MAX_KEPT: Final = 100_000", "100000 becomes 100001"): _SIZE,
    (
        "access/authorize.py",
        'id=ServerId("?"), namespace=Namespace("?"), runtime=LocalProcess(command="")',
        "'' is another text",
    ): _NEVER_READ,
    (
        "access/authorize.py",
        '_MISSING: Final = CatalogEntry(spec=_NO_SPEC, shown=_NO_SPEC, runtime_type="")',
        "'' is another text",
    ): _NEVER_READ,
    (
        "access/explain.py",
        "_, name, granted = min(fitting, key=lambda one: one[:2])",
        "2 becomes 3",
    ): "no two have the same name, so what comes after it is not compared",
    ("access/keyring.py", 'Id = TypeVar("Id")', "'Id' is another text"): _NEVER_READ,
    ("access/keyring.py", 'Record = TypeVar("Record")', "'Record' is another text"): _NEVER_READ,
    (
        "auth/identify.py",
        'address: IPv4Address | IPv6Address = ip_address(client.rpartition(":")[0].strip("[]"))',
        "'[]' is another text",
    ): "no address begins or ends with the letter",
    ("access/policy.py", 'Common = TypeVar("Common")', "'Common' is another text"): _NEVER_READ,
    ("access/policy.py", "_KEPT: Final = 4096", "4096 becomes 4097"): _SIZE,
    ("auth/scope.py", "_KEPT: Final = 4096", "4096 becomes 4097"): _SIZE,
    (
        "auth/scope.py",
        'permissions=common("permissions", one.permissions, other.permissions),',
        "'permissions' is another text",
    ): _ONE_OF_MANY,
    (
        "auth/scope.py",
        'namespaces=common("namespaces", one.namespaces, other.namespaces),',
        "'namespaces' is another text",
    ): _ONE_OF_MANY,
    (
        "auth/scope.py",
        'servers=common("servers", one.servers, other.servers),',
        "'servers' is another text",
    ): _ONE_OF_MANY,
    (
        "auth/scope.py",
        'tools=common("tools", one.tools, other.tools),',
        "'tools' is another text",
    ): _ONE_OF_MANY,
    (
        "auth/scope.py",
        'prompts=common("prompts", one.prompts, other.prompts),',
        "'prompts' is another text",
    ): _ONE_OF_MANY,
    ("config/load.py", 'root = Mapping(file="", line=0)', "'' is another text"): _NO_FILE,
    ("config/load.py", 'root = Mapping(file="", line=0)', "0 becomes 1"): _NO_FILE,
    ("config/tenants.py", 'Value = TypeVar("Value")', "'Value' is another text"): _NEVER_READ,
    (
        "config/tenants.py",
        'tenant = TenantId(self._unique(node, "id", _wrong_id, ids) or "")',
        "'' is another text",
    ): _REFUSED,
    (
        "config/tenants.py",
        'name = self._unique(node, "name", words.wrong_name, names, alike) or ""',
        "'' is another text",
    ): _REFUSED,
    (
        "config/tenants.py",
        'known = [one for one in self.roles if may_have(TenantId(""), one)]',
        "'' is another text",
    ): "what a tenant may have is the same for all of them",
    ("config/watch.py", "_GROUP_MS = 100", "100 becomes 101"): "a thousandth of a second",
    (
        "config/watch.py",
        "while (left_s := deadline - anyio.current_time()) > 0:",
        "Gt becomes GtE",
    ): "one look more, at the very end of the wait",
}
"""By module, the line as it stands there and what the mistake is: why it makes no difference."""
