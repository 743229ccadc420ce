"""What a narrowed key may send to a server and hear from it: its tools, resources and prompts.

What is out of scope looks like what does not exist, and the server is never asked. For keys that
are not narrowed all of this is one look at an attribute.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec
from msgspec import UNSET, Raw

from open_mcp_gateway.access.authorize import Item, Kind, may_use
from open_mcp_gateway.access.permit import Permit
from open_mcp_gateway.errors import InvalidParams, UnknownMethod
from open_mcp_gateway.pipeline.members import has, obj, string, strings
from open_mcp_gateway.protocol.jsonrpc import Call, Params, decode_incoming, encode
from open_mcp_gateway.protocol.surrogates import Lenient

_UPDATED: Final = "notifications/resources/updated"

_NAMELESS: Final = frozenset(
    {
        "initialize",
        "ping",
        "server/discover",
        "logging/setLevel",
        "tools/list",
        "prompts/list",
        "resources/list",
        "resources/templates/list",
        "tasks/get",
        "tasks/list",
        "tasks/result",
        "tasks/update",
        "tasks/cancel",
        "notifications/initialized",
        "notifications/cancelled",
        "notifications/progress",
        "notifications/roots/list_changed",
        "notifications/tasks/status",
    }
)
"""Methods of any revision that name nothing a key can be narrowed to. Tasks belong to who made
them; see ``handles``."""

_STATELESS: Final = frozenset({"resultType", "ttlMs", "cacheScope"})
"""Members of results that only the stateless era has."""

_members = Lenient(dict[str, Raw])
_elements = Lenient(list[Raw])
_text = msgspec.json.Decoder(str)


# ── what a caller sends ──────────────────────────────────────────────────────────────────────────


def check(permit: Permit, call: Call) -> None:
    """Refuse a call that a narrowed key may not make.

    Raises:
        InvalidParams: it names something out of scope, as if that did not exist, or does not say
            clearly what it names.
        UnknownMethod: nobody can tell what it names.
    """
    if not permit.principal.scope.narrows_calls or call.method in _NAMELESS:
        return
    checked = _NAMING.get(call.method)
    if checked is None:
        raise UnknownMethod(f"Method not found: {call.method}")
    checked(permit, call.params or {})


def _tool(permit: Permit, params: Params) -> None:
    name = string(params, "name")
    if not _tool_in_scope(permit, name):
        raise InvalidParams(f"Unknown tool: {name}")


def _prompt(permit: Permit, params: Params) -> None:
    _demand_prompt(permit, string(params, "name"))


def _resource(permit: Permit, params: Params) -> None:
    _demand_resource(permit, string(params, "uri"))


def _reference(permit: Permit, params: Params) -> None:
    """Of a completion. Whatever it names has to be in scope, for a server may not go by ``type``
    alone."""
    ref = obj(params, "ref")
    kind = string(ref, "type")
    if kind not in {"ref/prompt", "ref/resource"}:
        raise InvalidParams("'params.ref.type' must be 'ref/prompt' or 'ref/resource'")
    if kind == "ref/prompt" or has(ref, "name"):
        _demand_prompt(permit, string(ref, "name"))
    if kind == "ref/resource" or has(ref, "uri"):
        uri = string(ref, "uri")
        if not _template_in_scope(permit, uri):
            raise _no_resource(uri)


def _listened(permit: Permit, params: Params) -> None:
    if not has(params, "notifications"):
        return
    wanted = obj(params, "notifications")
    if not has(wanted, "resourceSubscriptions"):
        return
    for uri in strings(wanted, "resourceSubscriptions"):
        _demand_resource(permit, uri)


_NAMING: Final[dict[str, Callable[[Permit, Params], None]]] = {
    "tools/call": _tool,
    "prompts/get": _prompt,
    "resources/read": _resource,
    "resources/subscribe": _resource,
    "resources/unsubscribe": _resource,
    "completion/complete": _reference,
    "subscriptions/listen": _listened,
}
"""The methods that name something. One that is neither here nor in ``_NAMELESS`` is denied."""


def _demand_prompt(permit: Permit, name: str) -> None:
    if not _prompt_in_scope(permit, name):
        raise InvalidParams(f"Unknown prompt: {name}")


def _demand_resource(permit: Permit, uri: str) -> None:
    if not _resource_in_scope(permit, uri):
        raise _no_resource(uri)


def _no_resource(uri: str) -> InvalidParams:
    error = InvalidParams(f"Resource not found: {uri}")
    error.data = {"uri": uri}
    return error


# ── what is in scope ─────────────────────────────────────────────────────────────────────────────


def _tool_in_scope(permit: Permit, name: str) -> bool:
    return may_use(permit, Item(Kind.TOOL, name))


def _prompt_in_scope(permit: Permit, name: str) -> bool:
    return may_use(permit, Item(Kind.PROMPT, name))


def _resource_in_scope(permit: Permit, uri: str) -> bool:
    return may_use(permit, Item(Kind.RESOURCE, uri))


def _template_in_scope(permit: Permit, template: str) -> bool:
    return may_use(permit, Item(Kind.TEMPLATE, template))


# ── what a caller hears ──────────────────────────────────────────────────────────────────────────


def may_hear(permit: Permit, message: bytes) -> bool:
    """Whether a server's ``message`` may reach the caller: no news of a resource out of scope."""
    if not permit.principal.scope.narrows_calls:
        return True
    incoming = decode_incoming(message)
    if incoming.method != _UPDATED:
        return True
    params = b"{}" if incoming.params is UNSET else incoming.params
    try:
        uri = _text.decode(_members.decode(params).get("uri", Raw(b"null")))
    except msgspec.DecodeError:
        return False
    return _resource_in_scope(permit, uri)


_LISTING: Final[dict[str, tuple[str, str, Callable[[Permit, str], bool]]]] = {
    "tools/list": ("tools", "name", _tool_in_scope),
    "prompts/list": ("prompts", "name", _prompt_in_scope),
    "resources/list": ("resources", "uri", _resource_in_scope),
    "resources/templates/list": ("resourceTemplates", "uriTemplate", _template_in_scope),
}
"""Which member of the result lists what, by which member of each, and what of it is shown."""


def shown(permit: Permit, method: str, message: bytes) -> bytes:
    """The response ``message`` to ``method`` as the caller may see it: lists hold what is in scope.

    Byte for byte as it came where nothing is taken out.
    """
    listing = _LISTING.get(method)
    if listing is None or not permit.principal.scope.narrows_calls:
        return message
    members = _members.decode(message)
    if "result" not in members:
        return message
    try:
        result = _members.decode(members["result"])
    except msgspec.DecodeError:
        result = {}  # what cannot be read may name anything
    if not _narrow(permit, result, *listing):
        return message
    members["result"] = Raw(encode(result))
    return encode(members)


def _narrow(
    permit: Permit, result: Params, plural: str, key: str, in_scope: Callable[[Permit, str], bool]
) -> bool:
    """Take out of ``result`` what is not to be seen; whether that changed anything."""
    try:
        listed: list[Raw] | None = _elements.decode(result.get(plural, Raw(b"null")))
    except msgspec.DecodeError:
        listed = None
    kept = [one for one in listed or () if _is_shown(permit, one, key, in_scope)]
    changed = listed is None or len(kept) != len(listed)
    if changed:
        result[plural] = Raw(encode(kept))
    # No cache may hand one caller's view to another.
    private = Raw(b'"private"')
    if not _STATELESS.isdisjoint(result) and result.get("cacheScope") != private:
        result["cacheScope"] = private
        changed = True
    return changed


def _is_shown(permit: Permit, one: Raw, key: str, in_scope: Callable[[Permit, str], bool]) -> bool:
    try:
        return in_scope(permit, _text.decode(_members.decode(one).get(key, Raw(b"null"))))
    except msgspec.DecodeError:
        return False
