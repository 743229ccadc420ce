"""The table refuses what declares nothing, and matches one spelling of a path only."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from open_mcp_gateway.auth.principal import Permission
from open_mcp_gateway.errors import MethodNotAllowed, NotFound
from open_mcp_gateway.inbound.routes import OPEN, Open, Route, RouteKind, Router


def route(path: str, *methods: str, permission: Any = Permission.SERVERS_READ) -> Route[str]:
    return Route(methods=methods or ("GET",), path=path, permission=permission, handler=path)


ROUTES = [
    route("/health", permission=OPEN),
    route("/ready", permission=OPEN),
    route("/servers", permission=Permission.SERVERS_LIST),
    route("/servers/{id}"),
    route("/servers/{id}/start", "POST", permission=Permission.SERVERS_START),
    route("/servers/{id}/mcp", "POST", permission=Permission.MCP_CALL),
    route("/servers/{id}/mcp", "GET", "DELETE", permission=Permission.MCP_CALL),
    route("/mcp", "POST", permission=Permission.MCP_CALL),
    route("/health", "POST", permission=Permission.CATALOG_RELOAD),
    route("/.well-known/oauth", "GET"),
]
ROUTER = Router(ROUTES)


@pytest.mark.parametrize(
    ("method", "target", "path", "server_id"),
    [
        (b"GET", b"/health", "/health", None),
        (b"HEAD", b"/health", "/health", None),
        (b"GET", b"/health?", "/health", None),
        (b"GET", b"/health?key=x&y=/../%2f", "/health", None),
        (b"POST", b"/health", "/health", None),
        (b"GET", b"/servers", "/servers", None),
        (b"HEAD", b"/servers?tag=a", "/servers", None),
        (b"GET", b"/servers/a", "/servers/{id}", "a"),
        (b"GET", b"/servers/start", "/servers/{id}", "start"),
        (b"GET", b"/servers/A.b_c-9", "/servers/{id}", "A.b_c-9"),
        (b"GET", b"/servers/" + b"a" * 64, "/servers/{id}", "a" * 64),
        (b"POST", b"/servers/start/start?x", "/servers/{id}/start", "start"),
        (b"DELETE", b"/servers/a/mcp", "/servers/{id}/mcp", "a"),
        (b"HEAD", b"/servers/a/mcp", "/servers/{id}/mcp", "a"),
        (b"POST", b"/mcp", "/mcp", None),
        (b"GET", b"/.well-known/oauth", "/.well-known/oauth", None),
    ],
)
def test_matches(method: bytes, target: bytes, path: str, server_id: str | None) -> None:
    match = ROUTER.match(method, target)
    assert match.route.path == path
    assert match.route.handler == path
    assert match.ref == server_id


UNKNOWN = [
    b"",
    b"*",
    b"/",
    b"//",
    b"health",
    b"/Health",
    b"/HEALTH",
    b"/health/",
    b"//health",
    b"/./health",
    b"/health/.",
    b"/health/..",
    b"/x/../health",
    b"/health;x",
    b"/health%00",
    b"/health%3f",
    b"/%68ealth",
    b"/health%20",
    b"/health\x00",
    b"/health\n",
    b"/health ",
    b"/health\t",
    b"/health#x",
    b"/health\\",
    b"\\health",
    b"/health\xc0\xaf",
    b"/h\xc3\xa9alth",
    b"http://localhost/health",
    b"http://localhost:4444/servers",
    b"localhost:4444",
    b"/servers/",
    b"/servers//start",
    b"/servers/start/",
    b"/servers/.",
    b"/servers/..",
    b"/servers/.hidden",
    b"/servers/-a",
    b"/servers/_a",
    b"/servers/a%20b",
    b"/servers/a%2fstart",
    b"/servers/a\n",
    b"/servers/a;b",
    b"/servers/{id}",
    b"/servers/\xc3\xa9",
    b"/servers/" + b"a" * 65,
    b"/servers/a/b",
    b"/servers/a/start/",
    b"/servers/a/START",
    b"/servers/a//start",
    b"/servers/a/../b/start",
    b"/mcp/",
    b"/mcp/x",
    b"?/health",
    b"/?/health",
]


@pytest.mark.parametrize("target", UNKNOWN)
@pytest.mark.parametrize("method", [b"GET", b"HEAD", b"POST", b"OPTIONS", b"BREW", b""])
def test_nothing_else_matches(method: bytes, target: bytes) -> None:
    assert ROUTER.public(method, target) is None
    with pytest.raises(NotFound) as caught:
        ROUTER.match(method, target)
    assert caught.value.public == "No such endpoint"


@pytest.mark.parametrize(
    ("method", "target", "allow"),
    [
        (b"DELETE", b"/health", ("GET", "HEAD", "POST")),
        (b"OPTIONS", b"/health", ("GET", "HEAD", "POST")),
        (b"get", b"/servers", ("GET", "HEAD")),
        (b"POST", b"/servers/a", ("GET", "HEAD")),
        (b"GET", b"/servers/a/start", ("POST",)),
        (b"PUT", b"/servers/a/mcp", ("GET", "HEAD", "POST", "DELETE")),
        (b"GET", b"/mcp?server_id=a", ("POST",)),
    ],
)
def test_other_methods(method: bytes, target: bytes, allow: tuple[str, ...]) -> None:
    with pytest.raises(MethodNotAllowed) as caught:
        ROUTER.match(method, target)
    assert caught.value.allow == allow


def test_only_what_is_declared_open_is_public() -> None:
    methods = [b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS", b"get", b"BREW"]
    targets = [each.path.encode() for each in ROUTES] + UNKNOWN
    opened = {(m, t) for m in methods for t in targets if ROUTER.public(m, t) is not None}
    assert opened == {(m, t) for m in (b"GET", b"HEAD") for t in (b"/health", b"/ready")}


def test_the_surface_has_every_method() -> None:
    surface = {(method, each.path) for method, each in ROUTER.surface()}
    assert ("HEAD", "/servers/{id}") in surface
    assert ("HEAD", "/mcp") not in surface
    assert len(surface) == len(list(ROUTER.surface())) == 17
    for method, path in surface:
        match = ROUTER.match(method.encode(), path.replace("{id}", "a").encode())
        assert match.route.path == path


@pytest.mark.parametrize(
    "permission", [None, "servers:read", "", "open", True, Open, Permission, (), frozenset()]
)
def test_a_route_must_say_what_it_needs(permission: object) -> None:
    with pytest.raises(TypeError, match="declares no permission"):
        Router([route("/x", permission=permission)])


def test_a_permission_cannot_be_forgotten() -> None:
    with pytest.raises(TypeError, match="permission"):
        Route(methods=("GET",), path="/x", handler=None)  # type: ignore[call-arg]


@pytest.mark.parametrize(
    "routes",
    [
        [route("/x", "FETCH")],
        [route("/x", "get")],
        [Route(methods=(), path="/x", permission=OPEN, handler="")],
        [route("x")],
        [route("")],
        [route("/")],
        [route("/x/")],
        [route("//x")],
        [route("/x/..")],
        [route("/%78")],
        [route("/x?y")],
        [route("/é")],
        [route("/{name}")],
        [route("/x{id}")],
        [route("/{id}/{id}")],
        [route("/x", "POST", permission=OPEN)],
        [route("/x", "GET", "OPTIONS", permission=OPEN)],
        [route("/x/{id}", permission=OPEN)],
        [route("/x"), route("/x")],
        [route("/x"), route("/x", "HEAD", permission=OPEN)],
        [route("/x/{id}"), route("/x/{id}", "HEAD")],
        [route("/servers/{id}"), route("/servers/all", "POST")],
        [route("/{id}/start"), route("/servers/{id}")],
    ],
)
def test_tables_that_could_mislead_are_refused(routes: list[Route[str]]) -> None:
    with pytest.raises(ValueError, match=r"route|mean both"):
        Router(routes)


def test_a_name_that_no_server_can_have_does_not_overlap() -> None:
    router = Router([route("/servers/{id}"), route("/servers/_all"), route("/a/{id}/b")])
    assert router.match(b"GET", b"/servers/_all").ref is None
    beside = Router([route("/servers/{id}"), route("/{id}/_all")])
    assert beside.match(b"GET", b"/a/_all").ref == "a"


def test_kinds_and_open_show_themselves() -> None:
    assert ROUTES[0].kind is RouteKind.MANAGEMENT
    assert repr(OPEN) == "OPEN"


plain = st.sampled_from(
    [b"/", b".", b"health", b"servers", b"a", b"start", b"%2f", b"?", b";", b"\\"]
)


@settings(max_examples=500)
@given(st.lists(st.one_of(plain, st.binary(max_size=3)), max_size=8).map(b"".join))
@example(b"/servers/a/start?")
def test_a_match_is_spelled_like_its_route(target: bytes) -> None:
    if ROUTER.public(b"GET", target) is not None:
        assert target.partition(b"?")[0] in (b"/health", b"/ready")
    try:
        match = ROUTER.match(b"POST", target)
    except (NotFound, MethodNotAllowed):
        return
    path = match.route.path.replace("{id}", match.ref or "")
    assert target.partition(b"?")[0] == path.encode()


def test_a_word_can_stand_where_a_key_would() -> None:
    router = Router([route("/keys/{key}"), route("/keys/verify", "POST")])
    assert router.match(b"GET", b"/keys/key_0aZ").ref == "key_0aZ"
    assert router.match(b"GET", b"/keys/config:a:b").ref == "config:a:b"
    with pytest.raises(MethodNotAllowed):
        router.match(b"GET", b"/keys/verify")
    for word in (b"other", b"key_", b"KEY_x", b"config"):
        with pytest.raises(NotFound):
            router.match(b"GET", b"/keys/" + word)


def test_a_word_that_could_be_a_key_cannot() -> None:
    with pytest.raises(ValueError, match="mean both"):
        Router([route("/keys/{key}"), route("/keys/key_verify", "POST")])
