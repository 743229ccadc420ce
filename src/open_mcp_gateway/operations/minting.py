"""No key gives more than it has: the one rule, over values. Pure.

What is compared are the written narrowings, not what they come to at the moment: a tenant that is
given another namespace later, or a role another permission, must not make a child wider than its
parent.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Final

from msgspec import Struct

from open_mcp_gateway.auth.principal import Principal
from open_mcp_gateway.auth.records import NEVER_S
from open_mcp_gateway.auth.scope import UNNARROWED, Scope, beyond, surplus
from open_mcp_gateway.errors import Escalation

_CALLS: Final = ("servers", "tools", "resources", "prompts")
"""What limits calls within a namespace, beside ``deny_tools``."""


class Rights(Struct, frozen=True, kw_only=True):
    """Everything that makes one key worth more or less than another."""

    principal: Principal
    expires_at: float | None
    """Seconds since the epoch; None is never."""

    ip_allow: tuple[str, ...] | None
    """None: from anywhere."""


def effective(principal: Principal) -> list[str]:
    """The permissions that role and key both grant, sorted."""
    return sorted(one for one in principal.permissions if principal.may(one))


def excess(giver: Rights, given: Rights) -> tuple[str, ...]:
    """What ``given`` has beyond ``giver``, each as ``member: value``; empty if nothing."""
    mine, theirs = giver.principal, given.principal
    over: list[str] = []
    if not mine.governs(theirs.holder):
        over.append("tenant: not the caller's own")
    over += [f"permissions: {one}" for one in effective(theirs) if one not in effective(mine)]
    over += _surplus(mine.scope, theirs.scope, ("permissions", "namespaces", *_CALLS))
    if _end_s(given) > _end_s(giver):
        over.append("expires_at: after the caller's own")
    over += [f"ip_allow: {one}" for one in outside(given.ip_allow, giver.ip_allow)]
    return tuple(dict.fromkeys(over))


def check_subset(
    giver: Rights, given: Rights, text: str = "A key cannot give more than it has"
) -> None:
    """Raises Escalation with ``text`` if ``given`` has anything that ``giver`` has not."""
    over = excess(giver, given)
    if over:
        raise Escalation(text, excess=over)


def check_below(giver: Rights, held: Rights) -> None:
    """Raises Escalation if a key that is to be changed or revoked has what ``giver`` has not: who
    is narrowed would shut out those who narrowed it."""
    over = excess(giver, held)
    if over:
        raise Escalation("A key cannot change one that has more than it", excess=over)


def calls_kept_from(giver: Principal) -> tuple[str, ...]:
    """What keys of a tenant may call in its namespaces beyond ``giver``, since no tenant can be
    narrowed as a key can; empty if ``giver`` may call everything there."""
    return tuple(_surplus(giver.scope, UNNARROWED, _CALLS))


def _surplus(mine: Scope, theirs: Scope, members: tuple[str, ...]) -> list[str]:
    over = [
        f"{member}: {one}"
        for member in members
        for one in surplus(member, getattr(theirs, member), getattr(mine, member))
    ]
    # Of what is denied the child must deny as much or more.
    missing = beyond(mine.deny_tools, theirs.deny_tools)
    return over + [f"deny_tools: {one} is not denied" for one in missing]


def _end_s(rights: Rights) -> float:
    return NEVER_S if rights.expires_at is None else rights.expires_at


def outside(inner: tuple[str, ...] | None, outer: tuple[str, ...] | None) -> list[str]:
    """The networks of ``inner`` that are not within one of ``outer``."""
    if outer is None:
        return []
    if inner is None:
        return ["anywhere"]
    allowed = [ip_network(one) for one in outer]
    return [one for one in inner if not any(_within(ip_network(one), net) for net in allowed)]


def _within(inner: IPv4Network | IPv6Network, outer: IPv4Network | IPv6Network) -> bool:
    if isinstance(inner, IPv4Network) and isinstance(outer, IPv4Network):
        return inner.subnet_of(outer)
    if isinstance(inner, IPv6Network) and isinstance(outer, IPv6Network):
        return inner.subnet_of(outer)
    return False
