"""What ``initialize`` of one client says, and what it means for the connection to the server.

Spec: 2025-11-25 basic/lifecycle.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec import Raw

from open_mcp_gateway.catalog.model import Isolation, ServerSpec
from open_mcp_gateway.errors import InvalidParams
from open_mcp_gateway.outbound.peer import ANY_MANNER, Manner
from open_mcp_gateway.protocol.eras import LATEST_LEGACY, LEGACY_VERSIONS, Era
from open_mcp_gateway.protocol.jsonrpc import Call, Params
from open_mcp_gateway.protocol.meta import PROGRESS_TOKEN, read_meta, without_connection_owned
from open_mcp_gateway.protocol.surrogates import Lenient

INTERACTIVE: Final = frozenset({"roots", "sampling", "elicitation", "tasks"})
"""Client capabilities by which a server can ask something of this one client."""

_NEEDED: Final = {
    "elicitation/create": "elicitation",
    "sampling/createMessage": "sampling",
    "roots/list": "roots",
    "tasks/get": "tasks",
    "tasks/result": "tasks",
    "tasks/list": "tasks",
    "tasks/cancel": "tasks",
}
"""What a client has to have declared to be asked this. Methods of extensions are not known here."""

_text = msgspec.json.Decoder(str)
_members = Lenient(dict[str, Raw])
_sorted = msgspec.json.Encoder(order="sorted")


def manner_for(spec: ServerSpec, params: Params, session_id: str, isolation: Isolation) -> Manner:
    """How to open the server for a client: told what the client said, and no more.

    ``isolation`` is the one in force, wherever it was said.

    Raises:
        InvalidParams: the client's capabilities are not an object.
    """
    capabilities = _capabilities(params)
    by_session = isolation is Isolation.SESSION
    if not spec.interactive:
        if not by_session:
            return ANY_MANNER
        capabilities = {}
    alone = by_session or not INTERACTIVE.isdisjoint(capabilities)
    return Manner(
        era=Era.LEGACY,
        version=_version(params),
        capabilities=_sorted.encode(capabilities),
        owner=session_id if alone else "",
    )


def may_be_asked(manner: Manner, method: str) -> bool:
    """Whether a server may ask this of the client that a connection was opened for: on one that
    belongs to nobody, nobody may be asked."""
    needed = _NEEDED.get(method)
    return bool(manner.owner) and (needed is None or needed in _members.decode(manner.capabilities))


def other_era(params: Params, spoken: tuple[str, ...]) -> InvalidParams:
    """The answer to ``initialize`` for a server that knows no sessions.

    Spec: 2025-11-25 basic/lifecycle#error-handling.
    """
    error = InvalidParams("Unsupported protocol version")
    error.data = {"supported": list(spoken), "requested": string_in(params, "protocolVersion")}
    return error


def for_upstream(call: Call) -> Call:
    """The call with the progress token taken out of ``_meta``, to be replaced by the peer's own.

    Raises:
        InvalidRequest: ``_meta`` is not an object.
    """
    token = read_meta(call.params or {}).get(PROGRESS_TOKEN)
    return Call(call.method, call.id, without_connection_owned(call.params), progress_token=token)


def string_in(params: Params, name: str) -> str:
    """The string member ``name``; empty when it is missing or something else."""
    try:
        return _text.decode(params.get(name, Raw(b'""')))
    except msgspec.DecodeError:
        return ""


def _capabilities(params: Params) -> Params:
    try:
        return _members.decode(params.get("capabilities", Raw(b"{}")))
    except msgspec.DecodeError as error:
        raise InvalidParams("'params.capabilities' must be an object") from error


def _version(params: Params) -> str:
    wanted = string_in(params, "protocolVersion")
    return wanted if wanted in LEGACY_VERSIONS else LATEST_LEGACY
