"""What the administrative routes have in common: query strings, preconditions, answers."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Final, TypeVar
from urllib.parse import parse_qsl

import msgspec

from open_mcp_gateway.errors import InvalidRequest
from open_mcp_gateway.inbound.handlers import Request, check_json
from open_mcp_gateway.operations.requests import read_body
from open_mcp_gateway.operations.tags import TAG
from open_mcp_gateway.pipeline.reply import Headers, Reply

_QUOTED_TAG: Final = re.compile(f'"({TAG.pattern})"'.encode())
_TOKEN: Final = re.compile(rb"[\x21-\x7e]{1,255}")
_FLAGS: Final = {"true": True, "false": False}

Body = TypeVar("Body")


def query_of(request: Request, known: Collection[str]) -> dict[str, str]:
    """The parameters of a request.

    Raises:
        InvalidRequest: one is not known, and a filter that is misspelt must not show everything;
            or one is given twice.
    """
    text = request.query.decode("ascii", "replace")
    found: dict[str, str] = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        if name not in known:
            raise InvalidRequest(f"unknown query parameter {name[:100]!r}")
        if name in found:
            raise InvalidRequest(f"query parameter {name!r} is given twice")
        found[name] = value
    return found


def flag(query: dict[str, str], name: str) -> bool:
    """A parameter that is ``true`` or ``false``; false when absent. Raises InvalidRequest."""
    value = _FLAGS.get(query.get(name, "false"))
    if value is None:
        raise InvalidRequest(f"query parameter {name!r} must be true or false")
    return value


def body_of(request: Request, form: type[Body]) -> Body:
    """The JSON body as ``form``. Raises UnsupportedMedia, MalformedMessage, InvalidRequest."""
    check_json(request.arrival)
    return read_body(request.body, form)


def wanted_rev(request: Request) -> str | None:
    """The tag in ``If-Match`` (RFC 9110 section 13.1.1); None: whichever there is.

    Raises:
        InvalidRequest: it names none, or is there twice.
    """
    given = _once(request, b"if-match", "If-Match")
    if given is None or given == b"*":
        return None
    match = _QUOTED_TAG.fullmatch(given)
    if match is None:
        raise InvalidRequest("If-Match must be one ETag that was given out, in its quotes")
    return match[1].decode("ascii")


def idempotency_key(request: Request) -> str | None:
    """The ``Idempotency-Key`` of a request. Raises InvalidRequest."""
    given = _once(request, b"idempotency-key", "Idempotency-Key")
    if given is None:
        return None
    if not _TOKEN.fullmatch(given):
        raise InvalidRequest("Idempotency-Key must be 1 to 255 visible characters")
    return given.decode("ascii")


def refuse_headers(request: Request, *names: str) -> None:
    """Raises InvalidRequest for one of those headers, which a route does not heed: what it was
    meant to prevent would happen all the same."""
    sent = {name for name, _ in request.arrival.headers}
    for name in names:
        if name.lower().encode("ascii") in sent:
            raise InvalidRequest(f"{name} means nothing to this request; leave it out")


def _once(request: Request, name: bytes, shown: str) -> bytes | None:
    found = [value for one, value in request.arrival.headers if one == name]
    if len(found) > 1:
        raise InvalidRequest(f"send {shown} once")
    return found[0] if found else None


def answer(value: object, *, status: int = 200, rev: str | None = None) -> Reply:
    """A JSON answer, with the tag of the one thing it shows."""
    tag: Headers = () if rev is None else ((b"etag", b'"%b"' % rev.encode()),)
    return Reply(status, msgspec.json.encode(value), tag)


def located(reply: Reply, path: str) -> Reply:
    """``reply`` saying where the new thing is."""
    headers = (*reply.headers, (b"location", path.encode("ascii")))
    return Reply(reply.status, reply.body, headers)
