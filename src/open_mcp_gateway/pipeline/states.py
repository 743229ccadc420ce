"""``requestState`` of multi round-trip requests, bound to the caller and the request it is for.

Spec: 2026-07-28 basic/multi-round-trip: the state is hostile input, and a server that knows only
the gateway cannot tell one caller's from another's. So it travels with a seal of ours around it.
The server's own state inside is not hidden: it was made to be given to the client.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from typing import Final

import msgspec
from msgspec import Raw

from open_mcp_gateway.clock import Clock
from open_mcp_gateway.errors import InvalidParams
from open_mcp_gateway.names import KeyId, ServerId
from open_mcp_gateway.pipeline.members import USUAL, refuse_other_spellings, refuse_spellings
from open_mcp_gateway.protocol.jsonrpc import Call, Params, encode
from open_mcp_gateway.protocol.spelling import spellings
from open_mcp_gateway.protocol.surrogates import Lenient

VALID_S: Final = 600
"""How long a person may take to answer."""

_PREFIX: Final = "gw1"
_MEMBER: Final = "requestState"
STATE: Final = b'"requestState"'
"""What is in every answer that has a state, and in few others."""

UNSTATED: Final = USUAL - {_MEMBER}
"""Members of ``params`` that are no state, nor any other spelling of one."""

_NOT_BOUND: Final = frozenset({_MEMBER, "inputResponses", "_meta"})
"""Members of ``params`` that differ from round to round."""

_GUARDED: Final = spellings({_MEMBER})

_text = msgspec.json.Decoder(str)
_members = Lenient(dict[str, Raw])


def refuse_states(params: Params) -> None:
    """For a face whose callers are never given a state: one that they send was another's.

    Raises:
        InvalidParams: there is one, in whatever spelling.
    """
    refuse_other_spellings(params, _GUARDED)
    if _MEMBER in params:
        raise InvalidParams("requestState is taken at /servers/{id}/mcp, where it was given out")


class StateSeal:
    """Seals and opens states with a key of this process; a restart ends what still waits."""

    __slots__ = ("_clock", "_key")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._key = secrets.token_bytes(32)

    def opened(self, caller: KeyId, server_id: ServerId, call: Call) -> Call:
        """``call`` with the server's own state in it; as it is where there is none.

        Raises:
            InvalidParams: not sealed here for this caller and request, or too long ago; or in
                another spelling, which some servers would take for it.
        """
        params = call.params
        if params is None:
            return call
        if not USUAL.issuperset(params):
            refuse_spellings(params, _GUARDED)
        if _MEMBER not in params:
            return call
        owner = f"{caller}\0{server_id}\0{call.method}"
        try:
            prefix, until, mac, state = _text.decode(params[_MEMBER]).split(".", 3)
            expected = self._mac(owner, params, until, state)
            valid = (
                prefix == _PREFIX
                and hmac.compare_digest(mac.encode(), expected.encode())
                and int(until) >= self._clock.monotonic()
            )
        except ValueError:
            valid, state = False, ""
        if not valid:
            raise InvalidParams("invalid or expired requestState")
        return msgspec.structs.replace(call, params={**params, _MEMBER: Raw(encode(state))})

    def sealed(self, caller: KeyId, server_id: ServerId, call: Call, message: bytes) -> bytes:
        """The response ``message`` with its state sealed; byte for byte where there is none."""
        if STATE not in message:
            return message
        response = _members.decode(message)
        try:
            result = _members.decode(response.get("result", Raw(b"null")))
            state = _text.decode(result.get(_MEMBER, Raw(b"null")))
        except msgspec.DecodeError:
            return message
        owner = f"{caller}\0{server_id}\0{call.method}"
        until = str(int(self._clock.monotonic()) + VALID_S)
        mac = self._mac(owner, call.params or {}, until, state)
        result[_MEMBER] = Raw(encode(f"{_PREFIX}.{until}.{mac}.{state}"))
        response["result"] = Raw(encode(result))
        return encode(response)

    def _mac(self, owner: str, params: Params, until: str, state: str) -> str:
        digest = hashlib.sha256()
        for name in sorted(params.keys() - _NOT_BOUND):
            value = bytes(params[name])
            digest.update(b"%d:%b%d:%b" % (len(name), name.encode(), len(value), value))
        parts = (owner, until, digest.hexdigest(), state)
        text = "\0".join(parts).encode("utf-8", "surrogatepass")
        seal = hmac.new(self._key, text, hashlib.sha256).digest()
        return base64.urlsafe_b64encode(seal).rstrip(b"=").decode("ascii")
