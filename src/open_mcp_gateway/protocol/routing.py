"""The headers that repeat what the body of a stateless request says.

Spec: 2026-07-28 basic/transports#request-headers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias

import msgspec
from msgspec import Struct

from open_mcp_gateway.protocol.headers import METHOD, NAME, PROTOCOL_VERSION, decode_value

HeaderLines: TypeAlias = Sequence[tuple[bytes, bytes]]
"""In order, names in lower case."""

_OWS: Final = b" \t"
_SPELLED: Final = {name.lower().encode(): name for name in (PROTOCOL_VERSION, METHOD, NAME)}


class Routing(Struct, frozen=True, kw_only=True):
    """Those of one request, each None where it is absent."""

    version: str | None = None
    method: str | None = None
    name: str | None = None
    """What it stands for, its coding undone."""

    raw_name: bytes | None = None
    """The same as JSON text, as most bodies have it."""

    bad_name: str | None = None
    """Why the name cannot be read; reads on after ``Mcp-Name is``."""

    twice: str | None = None
    """The header that is there twice; what the others say is not known then."""

    headers: HeaderLines = ()
    """All of them: some tools have arguments repeated in further ones."""


def routing_of(headers: HeaderLines) -> Routing:
    """What the headers of one request say."""
    sent: dict[str, str] = {}
    for name, value in headers:
        spelled = _SPELLED.get(name)
        if spelled is None:
            continue
        if spelled in sent:
            return Routing(twice=spelled, headers=headers)
        sent[spelled] = value.strip(_OWS).decode("latin-1")
    called, problem = sent.get(NAME), None
    try:
        called = None if called is None else decode_value(called)
    except ValueError as error:
        called, problem = None, str(error)
    return Routing(
        version=sent.get(PROTOCOL_VERSION),
        method=sent.get(METHOD),
        name=called,
        raw_name=None if called is None else msgspec.json.encode(called),
        bad_name=problem,
        headers=headers,
    )
