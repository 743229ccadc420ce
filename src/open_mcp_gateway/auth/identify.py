"""From a request's headers to the Principal it acts for.

Two separate types stand for authentication on and off, and the one who wires the gateway picks one
by name: no table of keys, however empty, turns into the other.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterable
from typing import Final, NoReturn, final

from open_mcp_gateway.auth.apikeys import DIGEST_BYTES, KeyDigest, digest_of
from open_mcp_gateway.auth.credential import RawHeaders, credential_of
from open_mcp_gateway.auth.principal import EVERYTHING, Permission, Principal
from open_mcp_gateway.errors import WrongKey
from open_mcp_gateway.names import KeyId

ANONYMOUS_ROLE: Final = "anonymous"
"""Not a role that a key can have."""

_ANONYMOUS_PERMISSIONS: Final = frozenset(
    {
        Permission.SERVERS_LIST,
        Permission.SERVERS_READ,
        Permission.SERVERS_START,
        Permission.SERVERS_STOP,
        Permission.SERVERS_RESTART,
        Permission.STATS_READ,
        Permission.MCP_CALL,
        Permission.CATALOG_RELOAD,
    }
)
"""Written out, so that a new permission is not given to everybody by being added."""


@final
class Identifier:
    """Authentication on: knows the digests of the configured keys, and refuses everything else.

    Without a single key it refuses everybody. Immutable: other keys are another Identifier.
    """

    __slots__ = ("_principals",)

    def __init__(
        self,
        keys: Iterable[KeyDigest],
        principal_of: Callable[[KeyDigest], Principal],
        *,
        earlier: Identifier | None = None,
    ) -> None:
        """Keys that ``earlier`` knew too keep the very principals they had there."""
        self._principals = _table(keys, principal_of)
        for digest, (_, principal) in tuple(self._principals.items()):
            known = None if earlier is None else earlier._principals.get(digest)  # noqa: SLF001
            if known is not None and known[1] == principal:
                self._principals[digest] = known

    def __repr__(self) -> str:
        return f"Identifier({len(self._principals)} keys)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an Identifier is not to be written anywhere")

    def authenticate(self, headers: RawHeaders) -> Principal:
        """Who sends these headers. Raises as ``credential_of`` and ``identify`` do."""
        return self.identify(credential_of(headers))

    def holds(self, principal: Principal) -> bool:
        """Whether ``principal``, once given out here or earlier, still has its key."""
        return any(known is principal for _, known in self._principals.values())

    def identify(self, credential: bytes) -> Principal:
        """Whose key this is.

        Raises:
            WrongKey: nobody's.
        """
        digest = digest_of(credential)
        found = self._principals.get(digest)
        if found is None or not hmac.compare_digest(found[0], digest):
            raise WrongKey("Invalid API key")
        return found[1]


@final
class NoAuthentication:
    """Authentication off: everybody is the anonymous principal, whatever the headers say."""

    __slots__ = ("_anonymous",)

    def __init__(self) -> None:
        self._anonymous = anonymous()

    def authenticate(self, headers: RawHeaders) -> Principal:  # noqa: ARG002 - as Identifier's
        """The anonymous principal."""
        return self._anonymous

    def holds(self, principal: Principal) -> bool:
        """Whether this is the anonymous principal: keys mean nothing here."""
        return principal == self._anonymous


def anonymous() -> Principal:
    """The caller while authentication is off. May use every server, never manage keys."""
    return Principal(
        key_id=KeyId("anonymous"),
        role=ANONYMOUS_ROLE,
        permissions=_ANONYMOUS_PERMISSIONS,
        namespaces=EVERYTHING,
    )


def _table(
    keys: Iterable[KeyDigest], principal_of: Callable[[KeyDigest], Principal]
) -> dict[bytes, tuple[bytes, Principal]]:
    """Digest to itself and its owner. ValueError if a digest is not one, or has two owners."""
    table: dict[bytes, tuple[bytes, Principal]] = {}
    for key in keys:
        if len(key.digest) != DIGEST_BYTES:
            raise ValueError(f"the digest of key {key.key_id!r} is not {DIGEST_BYTES} bytes long")
        if key.digest in table:
            owner = table[key.digest][1].key_id
            raise ValueError(f"keys {owner!r} and {key.key_id!r} are the same key")
        table[key.digest] = (key.digest, principal_of(key))
    return table
