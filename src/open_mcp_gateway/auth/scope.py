"""What a key is narrowed to: selections by name, each a written list or a written ``"*"``.

Pure. A scope can only take away: what it does not mention stays as the role and the tenant have it.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property, lru_cache
from typing import Final, TypeAlias, final

from msgspec import Struct

from open_mcp_gateway.auth.stepping import may_step_back


@final
class Everything:
    """The written ``"*"``: all of a kind. Never what an absent value means."""

    __slots__ = ()

    def __contains__(self, item: object) -> bool:
        return True

    def __repr__(self) -> str:
        return '"*"'


EVERYTHING: Final = Everything()

_ANY: Final = "*"
_KEPT: Final = 4096
"""Compiled scopes."""


class Patterns(Struct, frozen=True, cache_hash=True):
    """Texts that are meant: each as it is, or all that begin with what stands before a final ``*``.

    Compared code point by code point; there is one spelling of each name.
    """

    exact: frozenset[str] = frozenset()
    prefixes: tuple[str, ...] = ()
    """Sorted. Never the empty prefix: that is ``EVERYTHING``, which is written."""

    def __contains__(self, text: object) -> bool:
        return isinstance(text, str) and (text in self.exact or text.startswith(self.prefixes))


Selection: TypeAlias = Patterns | Everything

NOTHING: Final = Patterns()


def selection(patterns: Iterable[str]) -> Selection:
    """The selection that a list of patterns means; an empty list means nothing.

    Raises:
        ValueError: one of them is empty, or has a ``*`` anywhere but at its end.
    """
    exact: set[str] = set()
    prefixes: set[str] = set()
    for pattern in patterns:
        if not pattern or _ANY in pattern[:-1]:
            raise ValueError(f"{pattern!r} must be a name, or a beginning of names and one '*'")
        if pattern.endswith(_ANY):
            prefixes.add(pattern[:-1])
        else:
            exact.add(pattern)
    if "" in prefixes:
        return EVERYTHING
    return Patterns(frozenset(exact), tuple(sorted(prefixes)))


def matching(pattern: str, text: str) -> bool:
    """Whether ``text`` is meant by one pattern of a list; for those that ``selection`` takes."""
    return text.startswith(pattern[:-1]) if pattern.endswith(_ANY) else text == pattern


def written(chosen: Selection) -> list[str]:
    """The patterns of a selection, sorted."""
    if isinstance(chosen, Everything):
        return [_ANY]
    return sorted([*chosen.exact, *(prefix + _ANY for prefix in chosen.prefixes)])


def beyond(inner: Selection, outer: Selection) -> list[str]:
    """The patterns of ``inner`` that mean more than ``outer`` does; empty for a subset."""
    if isinstance(outer, Everything):
        return []
    if isinstance(inner, Everything):
        return [_ANY]
    over = [text for text in inner.exact if text not in outer]
    over += [prefix + _ANY for prefix in inner.prefixes if not prefix.startswith(outer.prefixes)]
    return sorted(over)


def surplus(member: str, inner: Selection, outer: Selection) -> list[str]:
    """``beyond`` for a member of a scope. A resource that steps back is in none that is named by
    its beginning only, so whoever names it in full means more than that."""
    over = beyond(inner, outer)
    if member != "resources" or isinstance(inner, Everything) or isinstance(outer, Everything):
        return over
    return sorted({*over, *(one for one in inner.exact - outer.exact if may_step_back(one))})


def common(member: str, one: Selection, other: Selection) -> Selection:
    """What both selections mean, as a member of a scope."""
    if isinstance(one, Everything) or isinstance(other, Everything):
        return other if isinstance(one, Everything) else one
    exact, prefixes = set(one.exact & other.exact), set[str]()
    for inner, outer in ((one, other), (other, one)):
        over = set(surplus(member, inner, outer))
        exact |= inner.exact - over
        prefixes |= {prefix for prefix in inner.prefixes if prefix + _ANY not in over}
    return Patterns(frozenset(exact), tuple(sorted(prefixes)))


def either(one: Selection, other: Selection) -> Selection:
    """What one of the selections means."""
    if isinstance(one, Everything) or isinstance(other, Everything):
        return EVERYTHING
    prefixes = tuple(sorted({*one.prefixes, *other.prefixes}))
    return Patterns(one.exact | other.exact, prefixes)


class Scope(Struct, frozen=True, kw_only=True, cache_hash=True, dict=True):
    """The narrowing of one key, with nothing left open. Names of tools, resources and prompts are
    ``server/name``."""

    permissions: Selection
    namespaces: Selection
    servers: Selection
    tools: Selection
    deny_tools: Selection
    resources: Selection
    prompts: Selection

    @cached_property
    def narrows_calls(self) -> bool:
        """Whether anything within a server may be out of reach."""
        return not (
            self.tools is EVERYTHING
            and self.resources is EVERYTHING
            and self.prompts is EVERYTHING
            and self.deny_tools == NOTHING
        )

    def includes(self, other: Scope) -> bool:
        """Whether no part of it takes away what ``other`` leaves."""
        return not (
            beyond(other.permissions, self.permissions)
            or beyond(other.namespaces, self.namespaces)
            or beyond(other.servers, self.servers)
            or beyond(other.tools, self.tools)
            or beyond(self.deny_tools, other.deny_tools)
            or surplus("resources", other.resources, self.resources)
            or beyond(other.prompts, self.prompts)
        )

    def within(self, other: Scope) -> Scope:
        """What both scopes leave."""
        return _within(self, other)


@lru_cache(_KEPT)
def _within(one: Scope, other: Scope) -> Scope:
    """Kept for the same reason as ``_compiled``."""
    if one == other:
        return one
    return Scope(
        permissions=common("permissions", one.permissions, other.permissions),
        namespaces=common("namespaces", one.namespaces, other.namespaces),
        servers=common("servers", one.servers, other.servers),
        tools=common("tools", one.tools, other.tools),
        deny_tools=either(one.deny_tools, other.deny_tools),
        resources=common("resources", one.resources, other.resources),
        prompts=common("prompts", one.prompts, other.prompts),
    )


UNNARROWED: Final = Scope(
    permissions=EVERYTHING,
    namespaces=EVERYTHING,
    servers=EVERYTHING,
    tools=EVERYTHING,
    deny_tools=NOTHING,
    resources=EVERYTHING,
    prompts=EVERYTHING,
)
"""For keys whose scope says nothing."""


class ScopeText(Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """A scope as it is written in a file, a request or the store.

    None: not mentioned, so nothing is taken away. An empty list takes everything away.
    """

    permissions: tuple[str, ...] | None = None
    namespaces: tuple[str, ...] | None = None
    servers: tuple[str, ...] | None = None
    tools: tuple[str, ...] | None = None
    deny_tools: tuple[str, ...] | None = None
    resources: tuple[str, ...] | None = None
    prompts: tuple[str, ...] | None = None

    def compiled(self) -> Scope:
        """The same, ready for decisions.

        Whoever names tools means no resources and no prompts, unless they are named too.

        Raises:
            ValueError: a pattern is none; says which.
        """
        return _compiled(self)


@lru_cache(_KEPT)
def _compiled(text: ScopeText) -> Scope:
    """Kept, because a hundred thousand keys have a few scopes between them."""
    rest = EVERYTHING if text.tools is None else NOTHING
    return Scope(
        permissions=_chosen(text.permissions, EVERYTHING),
        namespaces=_chosen(text.namespaces, EVERYTHING),
        servers=_chosen(text.servers, EVERYTHING),
        tools=_chosen(text.tools, EVERYTHING),
        deny_tools=_chosen(text.deny_tools, NOTHING),
        resources=_chosen(text.resources, rest),
        prompts=_chosen(text.prompts, rest),
    )


def _chosen(patterns: tuple[str, ...] | None, absent: Selection) -> Selection:
    return absent if patterns is None else selection(patterns)
