"""From a request's headers to the Principal it acts for.

Two separate types stand for authentication on and off, and the one who wires the gateway picks one
by name: no table of keys, however empty, turns into the other.
"""

from __future__ import annotations

import enum
import hmac
import math
from collections.abc import Callable, Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final, NoReturn, TypeAlias, final

from msgspec import Struct

from open_mcp_gateway.auth.apikeys import DIGEST_BYTES, digest_of
from open_mcp_gateway.auth.credential import RawHeaders, credential_of
from open_mcp_gateway.auth.networks import Network, covering
from open_mcp_gateway.auth.principal import PLATFORM, Permission, Principal
from open_mcp_gateway.auth.scope import EVERYTHING, UNNARROWED
from open_mcp_gateway.errors import RightsChanged, StoreUnavailable, WrongKey
from open_mcp_gateway.names import KeyId

ANONYMOUS_ROLE: Final = "anonymous"
"""Not a role that a key can have."""

ALWAYS_S: Final = math.inf

Networks: TypeAlias = tuple[Network, ...] | None
"""None: from anywhere. Empty: from nowhere."""

_WRONG: Final = "Invalid API key"

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


class SameSecret(ValueError):
    """Two keys share a secret, so that nobody could say who comes with it; names both."""


class Reason(enum.StrEnum):
    """Why a key of ours does not open."""

    EXPIRED = "expired"
    REVOKED = "revoked"
    DISABLED = "disabled"
    NOT_YET_VALID = "not_yet_valid"
    IP_NOT_ALLOWED = "ip_not_allowed"
    TENANT_DISABLED = "tenant_disabled"


class Holding(Struct, frozen=True, kw_only=True):
    """What one key opens, and when. Moments in seconds since the epoch (UTC)."""

    principal: Principal
    blocked: Reason | None = None
    """Set for keys that are kept only to say why they do not open."""

    opens_at_s: float = -math.inf
    closes_at_s: float = ALWAYS_S
    networks: Networks = None
    stored: bool = False
    """Kept in the key store, so that another process may have changed it."""

    def refusal(self, now_s: float, client: str) -> Reason | None:
        """Why it does not open at this moment to ``client`` (``host:port``); None: it does."""
        reason = self.not_live(now_s)
        if reason is None and self.networks is not None and not _within(client, self.networks):
            return Reason.IP_NOT_ALLOWED
        return reason

    def not_live(self, now_s: float) -> Reason | None:
        """Why it does not open to anybody at this moment; None: it does."""
        if self.blocked is not None:
            return self.blocked
        if now_s >= self.closes_at_s:
            return Reason.EXPIRED
        if now_s < self.opens_at_s:
            return Reason.NOT_YET_VALID
        return None


@final
class Identifier:
    """Authentication on: knows the digests of all keys, and refuses everything else.

    Without a single key it refuses everybody. Immutable: other keys are another Identifier.
    """

    __slots__ = ("_by_digest", "_by_id", "_now", "_store_lost")

    def __init__(self, holdings: Iterable[tuple[bytes, Holding]], now: Callable[[], float]) -> None:
        """``holdings`` are digests (32 bytes) with what they open; ``now`` is wall time.

        Raises:
            SameSecret: a digest has two owners.
            ValueError: a digest is not one.
        """
        self._now = now
        self._store_lost = False
        self._by_digest: dict[bytes, tuple[bytes, Holding]] = {}
        self._by_id: dict[KeyId, Holding] = {}
        for digest, holding in holdings:
            self._add(digest, holding)

    def _add(self, digest: bytes, holding: Holding) -> None:
        key_id = holding.principal.key_id
        if len(digest) != DIGEST_BYTES:
            raise ValueError(f"the digest of key {key_id!r} is not {DIGEST_BYTES} bytes long")
        if digest in self._by_digest:
            owner = self._by_digest[digest][1].principal.key_id
            raise SameSecret(f"keys {owner!r} and {key_id!r} are the same key")
        self._by_digest[digest] = (digest, holding)
        self._by_id[key_id] = holding

    def changed(
        self, gone: Iterable[bytes], holdings: Iterable[tuple[bytes, Holding]]
    ) -> Identifier:
        """Another one without the digests ``gone`` and with ``holdings``. Raises as above."""
        other = Identifier((), self._now)
        other._by_digest = self._by_digest.copy()
        other._by_id = self._by_id.copy()
        for digest in gone:
            owner = other._by_digest.pop(digest, None)
            if owner is not None:
                other._by_id.pop(owner[1].principal.key_id, None)
        for digest, holding in holdings:
            other._add(digest, holding)
        return other

    def store_lost(self) -> Identifier:
        """The same for as long as nobody can say what became of the keys of the store."""
        other = Identifier((), self._now)
        other._by_digest, other._by_id = self._by_digest, self._by_id
        other._store_lost = True
        return other

    def __len__(self) -> int:
        return len(self._by_digest)

    def __repr__(self) -> str:
        return f"Identifier({len(self)} keys)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("an Identifier is not to be written anywhere")

    def authenticate(self, headers: RawHeaders, client: str) -> Holding:
        """Who sends these headers from ``client``. Raises as ``credential_of`` and ``identify``."""
        return self.identify(credential_of(headers), client)

    def identify(self, credential: bytes, client: str) -> Holding:
        """Whose key this is, if it opens now. No waiting, no store.

        Raises:
            WrongKey: nobody's, or one that is not in force; then with the reason.
            StoreUnavailable: it may have been revoked, and nobody can say.
        """
        holding = self.find(credential)
        if holding is None:
            raise WrongKey(_WRONG)
        if holding.stored and self._store_lost:
            raise StoreUnavailable("the key store does not answer", retry_after_s=1)
        reason = holding.refusal(self._now(), client)
        if reason is not None:
            raise WrongKey(_WRONG, reason=reason, key_id=holding.principal.key_id)
        return holding

    def find(self, credential: bytes) -> Holding | None:
        """What this key would open if it were in force; None if it is nobody's."""
        digest = digest_of(credential)
        found = self._by_digest.get(digest)
        if found is None or not hmac.compare_digest(found[0], digest):
            return None
        return found[1]

    def loss(
        self, principal: Principal, client: str | None = None
    ) -> WrongKey | RightsChanged | None:
        """Why ``principal``, once given out, is no longer within what its key opens to ``client``
        (None: to anybody at all); None: it is."""
        holding = self._by_id.get(principal.key_id)
        if holding is None:
            return WrongKey(_WRONG)
        now_s = self._now()
        reason = holding.not_live(now_s) if client is None else holding.refusal(now_s, client)
        if reason is not None:
            return WrongKey(_WRONG, reason=reason)
        return None if holding.principal.includes(principal) else rights_changed()

    def holding(self, key_id: KeyId) -> Holding | None:
        """What the key of that id opens; None: there is none."""
        return self._by_id.get(key_id)

    def opens(self, key_id: KeyId) -> bool:
        """Whether the key of that id opens to anybody at this moment."""
        holding = self._by_id.get(key_id)
        return holding is not None and holding.not_live(self._now()) is None

    def next_end_s(self) -> float:
        """When the next of the keys that are in force expires; infinity if none does."""
        now_s = self._now()
        ends = (one.closes_at_s for one in self._by_id.values() if one.closes_at_s > now_s)
        return min(ends, default=math.inf)


@final
class NoAuthentication:
    """Authentication off: everybody is the anonymous principal, whatever the headers say."""

    __slots__ = ("_anonymous",)

    def __init__(self) -> None:
        self._anonymous = Holding(principal=anonymous())

    def authenticate(self, headers: RawHeaders, client: str) -> Holding:  # noqa: ARG002 - as above
        """The anonymous principal."""
        return self._anonymous

    def loss(
        self,
        principal: Principal,
        client: str | None = None,  # noqa: ARG002 - as above
    ) -> WrongKey | None:
        """Everybody but the anonymous principal is out: keys mean nothing here."""
        return None if principal == self._anonymous.principal else WrongKey(_WRONG)

    def holding(self, key_id: KeyId) -> Holding | None:
        """What everybody has, if this is how the anonymous principal is called."""
        return self._anonymous if self.opens(key_id) else None

    def opens(self, key_id: KeyId) -> bool:
        """Whether this is how the anonymous principal is called."""
        return key_id == self._anonymous.principal.key_id


def rights_changed() -> RightsChanged:
    """For who asked with rights that its key no longer has."""
    return RightsChanged("What this API key may do has changed; send the request again")


def within(inner: Networks, outer: Networks) -> bool:
    """Whether everybody of ``inner`` is in ``outer`` too. A network that only several of ``outer``
    cover together counts as outside."""
    if outer is None or inner == outer:
        return True
    return inner is not None and all(map(covering(outer), inner))


def shared(one: Networks, other: Networks) -> Networks:
    """From where both may be used."""
    if one is None or other is None:
        return other if one is None else one
    of_both = (*filter(covering(other), one), *filter(covering(one), other))
    return tuple(dict.fromkeys(of_both))


def anonymous() -> Principal:
    """The caller while authentication is off. May use every server, never manage keys."""
    return Principal(
        key_id=KeyId("anonymous"),
        holder=PLATFORM,
        role=ANONYMOUS_ROLE,
        permissions=_ANONYMOUS_PERMISSIONS,
        namespaces=EVERYTHING,
        scope=UNNARROWED,
    )


def _within(client: str, networks: tuple[Network, ...]) -> bool:
    try:
        address: IPv4Address | IPv6Address = ip_address(client.rpartition(":")[0].strip("[]"))
    except ValueError:
        return False
    # An IPv4 client on an IPv6 socket is the same client (RFC 4291 section 2.5.5.2).
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in network for network in networks)
