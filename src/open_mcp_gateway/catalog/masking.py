"""What may be shown of a server, and which texts may not."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Iterator
from urllib.parse import quote, quote_plus, unquote

from msgspec.structs import replace

from open_mcp_gateway.catalog.model import LocalProcess, Remote, Runtime, ServerSpec
from open_mcp_gateway.document.substitute import MASK

SHORTEST_SECRET = 4
"""Characters; replacing anything shorter would riddle every error text with asterisks."""

_SHORTEST_LINE = 8
_ESCAPED = re.compile("%[0-9A-F]{2}")
_USERINFO = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]{0,30}://)(?P<userinfo>[^/?#\s]*)@")
_QUERY = re.compile(r"(?P<start>[A-Za-z][A-Za-z0-9+.-]{0,30}://[^?\s]*\?)(?P<query>[^#\s]+)")


def mask_urls(text: str) -> str:
    """``text`` with user, password and query of every URL in it masked."""
    if "://" not in text:
        return text
    text = _USERINFO.sub(rf"\g<scheme>{MASK}@", text)
    return _QUERY.sub(rf"\g<start>{MASK}", text)


def masked(shown: ServerSpec, spec: ServerSpec) -> ServerSpec:
    """``shown``, where substituted parts are masked already, with all else that is secret masked.

    The id stays: it is the name that callers use, in paths and in lists.
    """
    return replace(
        shown,
        id=spec.id,
        env=dict.fromkeys(shown.env, MASK),
        runtime=_masked_runtime(shown.runtime),
    )


def _masked_runtime(runtime: Runtime) -> Runtime:
    match runtime:
        case LocalProcess():
            return replace(runtime, args=tuple(mask_urls(arg) for arg in runtime.args))
        case Remote():
            headers = dict.fromkeys(runtime.headers, MASK)
            return replace(runtime, url=mask_urls(runtime.url), headers=headers)
        case _:
            return runtime


def secrets(spec: ServerSpec, substituted: Iterable[str]) -> tuple[str, ...]:
    """The texts to scrub from whatever this server says, longest first."""
    found = {*substituted, *spec.env.values(), *_runtime_secrets(spec.runtime)}
    # An error text holds lines; of a key in PEM form each line is a secret by itself.
    found |= {line for text in found for line in text.splitlines() if len(line) >= _SHORTEST_LINE}
    found = {form for text in found if len(text) >= SHORTEST_SECRET for form in _forms(text)}
    return tuple(sorted(found, key=lambda text: (-len(text), text)))


def _forms(text: str) -> Iterator[str]:
    """How a secret comes back from who got it: in a URL, in JSON, in basic authentication."""
    yield text
    data = text.encode("utf-8", "surrogatepass")
    for quoted in (quote(data), quote(data, safe=""), quote_plus(data)):
        yield quoted
        yield _ESCAPED.sub(lambda escaped: escaped[0].lower(), quoted)
    yield json.dumps(text)[1:-1]
    yield json.dumps(text, ensure_ascii=False)[1:-1]
    for coded in (base64.b64encode(data), base64.urlsafe_b64encode(data)):
        yield coded.decode("ascii")
        yield coded.decode("ascii").rstrip("=")


def _runtime_secrets(runtime: Runtime) -> Iterator[str]:
    if isinstance(runtime, LocalProcess):
        for arg in runtime.args:
            yield from _url_secrets(arg)
    if isinstance(runtime, Remote):
        yield from _url_secrets(runtime.url)
        for value in runtime.headers.values():
            yield value
            # "Bearer abc": servers quote the token without its scheme.
            yield value.partition(" ")[2]


def _url_secrets(text: str) -> Iterator[str]:
    for match in _USERINFO.finditer(text):
        userinfo = match["userinfo"]
        yield from (userinfo, unquote(userinfo))
        for part in userinfo.split(":", 1):
            yield from (part, unquote(part))
    for match in _QUERY.finditer(text):
        yield match["query"]
        for value in re.split("[&;]", match["query"]):
            yield from (value.partition("=")[2], unquote(value.partition("=")[2]))
