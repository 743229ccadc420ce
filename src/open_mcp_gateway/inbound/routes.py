"""The table of routes: what it takes to use each, and the one way a request target is matched.

Every route says which permission it needs, or says openly that it needs none; a table in which one
does not cannot be built, and then the program does not start.

A path has exactly one spelling here, the bytes as received. What would need decoding, folding or
resolving to become a path of ours (``%2f``, ``//``, ``..``, ``;``, ``http://host/health``, a slash
at the end) is no path of ours.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable, Iterator
from itertools import combinations
from typing import Final, Generic, TypeAlias, TypeVar, final

from msgspec import Struct

from open_mcp_gateway.auth.principal import Permission
from open_mcp_gateway.errors import MethodNotAllowed, NotFound
from open_mcp_gateway.names import KEY_ID, SERVER_ID, TENANT_ID


@final
class Open:
    """Written where a permission would stand: this route opens without a key."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "OPEN"


OPEN: Final = Open()


@final
class AnyKey:
    """Written where a permission would stand: whoever is somebody may use this route, for what it
    shows is about the caller alone."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "ANY_KEY"


ANY_KEY: Final = AnyKey()

Handler = TypeVar("Handler")

_METHODS: Final = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
"""In the order ``Allow`` lists them."""

_READING: Final = frozenset({"GET", "HEAD"})
_LITERAL: Final = re.compile(r"\.?[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")
PLACEHOLDERS: Final = {"{id}": SERVER_ID, "{key}": KEY_ID, "{tenant}": TENANT_ID}
"""What can stand in the place of each."""


_RECENT: Final = 4096
"""Paths remembered; each is at most as long as a server id and a route."""


class RouteKind(enum.Enum):
    """Whose errors a route speaks."""

    MANAGEMENT = enum.auto()
    """``{"error","message"}`` bodies."""

    MCP = enum.auto()
    """JSON-RPC error bodies."""


class Route(Struct, Generic[Handler], frozen=True, kw_only=True):
    """One path and what serves it. HEAD comes with GET, but for MCP: a stream that is opened to
    look at its head would be a session that nobody reads."""

    methods: tuple[str, ...]
    path: str
    """Literal segments, and ``{id}`` where a server id stands, ``{key}`` for a key's and
    ``{tenant}`` for a tenant's: ``/servers/{id}/start``."""

    permission: Permission | AnyKey | Open
    handler: Handler
    kind: RouteKind = RouteKind.MANAGEMENT


class Match(Struct, Generic[Handler], frozen=True):
    """A route, and what stands in the place of its placeholder; None where it has none."""

    route: Route[Handler]
    ref: str | None = None


_ByMethod: TypeAlias = dict[bytes, Match[Handler]]


class _Pattern(Struct, Generic[Handler], frozen=True):
    """The routes of one path with a placeholder: what stands before and after it."""

    before: bytes
    after: bytes
    id_form: re.Pattern[bytes]
    methods: dict[bytes, Match[Handler]]

    def id_in(self, path: bytes) -> bytes | None:
        if not (path.startswith(self.before) and path.endswith(self.after)):
            return None
        between = path[len(self.before) : len(path) - len(self.after)]
        return between if self.id_form.fullmatch(between) else None


@final
class Router(Generic[Handler]):
    """The compiled table. TypeError or ValueError if it could admit what no route declares."""

    __slots__ = ("_literal", "_open", "_patterns", "_recent", "routes")

    def __init__(self, routes: Iterable[Route[Handler]]) -> None:
        self.routes: Final = tuple(routes)
        self._literal: dict[bytes, _ByMethod[Handler]] = {}
        self._patterns: list[_Pattern[Handler]] = []
        self._recent: dict[tuple[bytes, bytes], Match[Handler]] = {}
        """Paths with an id as matched lately: callers use the same few again and again."""

        self._open: dict[tuple[bytes, bytes], Match[Handler]] = {}
        for route in self.routes:
            _check(route)
            self._add(route)
        for one, other in combinations(sorted({route.path for route in self.routes}), 2):
            if _overlap(one, other):
                raise ValueError(f"one request could mean both {one} and {other}")

    def public(self, method: bytes, target: bytes) -> Match[Handler] | None:
        """The open route that ``target`` names byte for byte. Asked before authentication."""
        return self._open.get((method, target.partition(b"?")[0]))

    def match(self, method: bytes, target: bytes) -> Match[Handler]:
        """The route for a request target as received, with or without a query string.

        Raises:
            NotFound: no such path.
            MethodNotAllowed: the path has routes, but not for ``method``.
        """
        path = target.partition(b"?")[0]
        methods = self._literal.get(path)
        if methods is not None:
            return _by_method(methods, method)
        known = self._recent.get((method, path))
        if known is not None:
            return known
        for pattern in self._patterns:
            ref = pattern.id_in(path)
            if ref is not None:
                found = _by_method(pattern.methods, method)
                match = Match(found.route, ref.decode("ascii"))
                if len(self._recent) >= _RECENT:
                    self._recent.clear()
                self._recent[method, path] = match
                return match
        raise NotFound("No such endpoint")

    def kind_of(self, path: bytes) -> RouteKind | None:
        """Whose errors the routes of ``path`` speak; None: there are none."""
        found = self._literal.get(path)
        if found is None:
            patterns = (one for one in self._patterns if one.id_in(path) is not None)
            found = next((one.methods for one in patterns), {})
        return next((match.route.kind for match in found.values()), None)

    def surface(self) -> Iterator[tuple[str, Route[Handler]]]:
        """Every method of every route, the implied HEAD included."""
        for route in self.routes:
            for method in _methods_of(route):
                yield method, route

    def _add(self, route: Route[Handler]) -> None:
        methods = self._methods_at(route.path)
        match = Match(route)
        for name in _methods_of(route):
            method = name.encode("ascii")
            if method in methods:
                raise ValueError(f"two routes for {name} {route.path}")
            methods[method] = match
            if isinstance(route.permission, Open):
                self._open[method, route.path.encode("ascii")] = match

    def _methods_at(self, path: str) -> _ByMethod[Handler]:
        raw = path.encode("ascii")
        found = next((one for one in PLACEHOLDERS if one in path.split("/")), None)
        if found is None:
            return self._literal.setdefault(raw, {})
        before, _, after = raw.partition(found.encode("ascii"))
        form = re.compile(PLACEHOLDERS[found].pattern.encode("ascii"))
        for pattern in self._patterns:
            if (pattern.before, pattern.after) == (before, after):
                return pattern.methods
        pattern = _Pattern[Handler](before, after, form, {})
        self._patterns.append(pattern)
        return pattern.methods


def _methods_of(route: Route[Handler]) -> list[str]:
    """In the order of ``Allow``."""
    declared = {*route.methods}
    if "GET" in declared and route.kind is RouteKind.MANAGEMENT:
        declared.add("HEAD")
    return [method for method in _METHODS if method in declared]


def _overlap(one: str, other: str) -> bool:
    """Whether a path can be read as both templates, as ``/servers/all`` under ``/servers/{id}``."""
    pairs = list(zip(one.split("/"), other.split("/"), strict=False))
    return one.count("/") == other.count("/") and all(
        a == b
        or (a in PLACEHOLDERS and (b in PLACEHOLDERS or _fits(a, b)))
        or (b in PLACEHOLDERS and _fits(b, a))
        for a, b in pairs
    )


def _fits(placeholder: str, text: str) -> bool:
    return PLACEHOLDERS[placeholder].fullmatch(text) is not None


def _by_method(methods: _ByMethod[Handler], method: bytes) -> Match[Handler]:
    found = methods.get(method)
    if found is None:
        allow = tuple(name for name in _METHODS if name.encode("ascii") in methods)
        raise MethodNotAllowed("Method not allowed", allow=allow)
    return found


def _check(route: Route[Handler]) -> None:
    where = f"route {route.path}"
    if not isinstance(route.permission, Permission | AnyKey | Open):
        raise TypeError(f"{where} declares no permission; write OPEN if it shall need none")
    if not route.methods or not set(route.methods) <= set(_METHODS):
        raise ValueError(f"{where} has no methods, or unknown ones: {route.methods}")
    segments = route.path.split("/")
    places = [part for part in segments if part in PLACEHOLDERS]
    if segments[0] or len(segments) < 2 or len(places) > 1:
        raise ValueError(f"{where} does not begin with a slash, or has two ids")
    if not all(part in PLACEHOLDERS or _LITERAL.fullmatch(part) for part in segments[1:]):
        raise ValueError(f"{where} has a segment that is not plain")
    if isinstance(route.permission, Open) and (places or not set(route.methods) <= _READING):
        raise ValueError(f"{where} is open, so it must be one path and only be read")
