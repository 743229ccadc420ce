"""The one key a request presents, from its raw headers; never from anywhere else, never logged.

Works on the header pairs as received, because a mapping hides the second of two equal names.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Final, TypeAlias

from open_mcp_gateway.auth.apikeys import is_well_formed
from open_mcp_gateway.errors import AmbiguousCredentials, Unauthenticated, WrongKey

RawHeaders: TypeAlias = Iterable[tuple[bytes, bytes]]
"""Header names in lower case and values, in the order and number received."""

_OWS: Final = b" \t"
"""Optional whitespace, RFC 9110 section 5.6.3. No other byte is trimmed."""

_SCHEME: Final = b"bearer"
_SCHEME_BYTES: Final = len(_SCHEME)
_AFTER_SCHEME: Final = frozenset({b"", b" ", b"\t"})
_JOINED_BEARER: Final = re.compile(rb",[ \t]*bearer[ \t]", re.IGNORECASE)
_AMBIGUOUS: Final = "More than one API key in one request; send exactly one"


def credential_of(headers: RawHeaders) -> bytes:
    """The presented key, 1 to 512 visible ASCII bytes; whether it is one of ours is not known yet.

    Raises:
        AmbiguousCredentials: more than one key, or a header that came twice.
        Unauthenticated: no key, or an empty one.
        WrongKey: bytes that cannot be a key.
    """
    authorization: bytes | None = None
    x_api_key: bytes | None = None
    for name, value in headers:
        if name == b"authorization":
            if authorization is not None:
                raise AmbiguousCredentials(_AMBIGUOUS)
            authorization = value
        elif name == b"x-api-key":
            if x_api_key is not None:
                raise AmbiguousCredentials(_AMBIGUOUS)
            x_api_key = value
    bearer = b"" if authorization is None else _bearer_token(authorization.strip(_OWS))
    key = b"" if x_api_key is None else _single(x_api_key.strip(_OWS))
    # RFC 6750 section 2: one method per request. The same key by both is harmless: some clients do.
    if bearer and key and bearer != key:
        raise AmbiguousCredentials(_AMBIGUOUS)
    credential = bearer or key
    if not credential:
        raise Unauthenticated("API key required")
    if not is_well_formed(credential):
        raise WrongKey("Invalid API key")
    return credential


def _bearer_token(authorization: bytes) -> bytes:
    """The token after ``Bearer``; empty for another scheme, perhaps left by a proxy in front."""
    scheme, rest = authorization[:_SCHEME_BYTES], authorization[_SCHEME_BYTES:]
    if scheme.lower() == _SCHEME and rest[:1] in _AFTER_SCHEME:
        return _single(rest.strip(_OWS))
    if _JOINED_BEARER.search(authorization):
        raise AmbiguousCredentials(_AMBIGUOUS)
    return b""


def _single(credential: bytes) -> bytes:
    """``credential``, unless a proxy joined several field lines into it (RFC 9110 section 5.3).

    A comma alone may be part of a key; a comma and whitespace cannot both be.
    """
    if b"," in credential and (b" " in credential or b"\t" in credential):
        raise AmbiguousCredentials(_AMBIGUOUS)
    return credential
