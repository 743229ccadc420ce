"""A key that is wanted, and all that can be told of it without the store: while one change is made
no other is, in any process, so nothing is done then that can be done before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import msgspec

from open_mcp_gateway.auth.apikeys import digest_of
from open_mcp_gateway.auth.keyformat import MadeKey, hint_of, make_key, make_key_id
from open_mcp_gateway.errors import GatewayError, InvalidRequest, MalformedMessage
from open_mcp_gateway.names import KeyId
from open_mcp_gateway.operations.requests import (
    KeyCreate,
    check_metadata,
    check_name,
    check_networks,
    check_scope,
    read_body,
)
from open_mcp_gateway.secrecy import Secretive

RandomBits: TypeAlias = Callable[[int], int]


class Wanted(Secretive, frozen=True, kw_only=True):
    """A request that was found in order, and what the new key is to be called and known by."""

    request: KeyCreate
    key_id: KeyId
    digest: bytes
    hint: str = ""
    secret: str | None = None
    """None: made elsewhere."""

    def __repr__(self) -> str:
        return f"<Wanted {self.key_id}>"


def wanted(request: KeyCreate, random_bits: RandomBits) -> Wanted:
    """``request`` with a new secret, if it has none. Raises InvalidRequest."""
    check_name(request.name)
    check_scope(request.scope)
    check_networks(request.ip_allow)
    check_metadata(request.metadata)
    if request.hash is not None:
        digest = bytes.fromhex(request.hash.removeprefix("sha256:"))
        return Wanted(request=request, key_id=make_key_id(random_bits), digest=digest)
    made: MadeKey = make_key(random_bits)
    return Wanted(
        request=request,
        key_id=made.key_id,
        digest=digest_of(made.text.encode("ascii")),
        hint=hint_of(made.text),
        secret=made.text,
    )


def wanted_of(items: Sequence[msgspec.Raw], random_bits: RandomBits) -> list[Wanted | GatewayError]:
    """What each item of an import asks for, or what is wrong with it. Takes up to some seconds."""
    return [_wanted_of(one, random_bits) for one in items]


def _wanted_of(item: msgspec.Raw, random_bits: RandomBits) -> Wanted | GatewayError:
    try:
        request = read_body(item, KeyCreate)
        if request.hash is None:
            raise InvalidRequest("`hash` is required: secrets are not imported")
        return wanted(request, random_bits)
    except (MalformedMessage, InvalidRequest) as error:
        return error
