"""Rules about single values of a catalog: each tells what is wrong and how to mend it, or None."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urlsplit

from open_mcp_gateway.document.tree import printable
from open_mcp_gateway.names import NAMESPACE, SERVER_ID

DAY_S = 86_400
BOUNDS_S: dict[str, tuple[int, int]] = {
    "idle_timeout_seconds": (0, 366 * DAY_S),
    "request_timeout_seconds": (1, DAY_S),
    "start_timeout_seconds": (1, 3_600),
    "health_check_interval_seconds": (0, DAY_S),
}

_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
"""RFC 9110 section 5.6.2."""

_FIELD_VALUE = re.compile(r"[\x21-\x7e](?:[\t\x20-\x7e]*[\x21-\x7e])?|")
"""RFC 9110 section 5.5 without obs-text."""

_OWNED = frozenset(
    {
        "host", "content-length", "transfer-encoding", "connection", "content-type", "accept",
        "accept-encoding", "expect", "keep-alive", "te", "trailer", "upgrade", "last-event-id",
        "mcp-session-id", "mcp-protocol-version", "mcp-method", "mcp-name",
    }
)  # fmt: skip
"""Written by the gateway itself; another value would break the framing or the protocol."""

_URL_CHARS = re.compile(r"[\x21-\x7e]+")


def wrong_id(text: str, shown: str) -> str | None:
    if SERVER_ID.fullmatch(text):
        return None
    return (
        f"'{printable(shown)}' is not a valid server ID; use 1 to 64 letters, digits, '.', '_' "
        "and '-', starting with a letter or digit"
    )


def wrong_namespace(text: str) -> str | None:
    if NAMESPACE.fullmatch(text):
        return None
    return "is not a valid namespace; use 1 to 63 lower-case letters, digits and '-'"


def wrong_url(text: str) -> str | None:
    """An http or https URL with a host and no fragment. Never quoted: it may hold a key."""
    if not _URL_CHARS.fullmatch(text) or "\\" in text:
        return (
            "holds characters that a URL cannot hold (spaces, control or non-ASCII characters, "
            "'\\'); percent-encode them"
        )
    try:
        split = urlsplit(text)
        return _wrong_split(split, split.port)
    except ValueError:
        return "is not a valid URL; check the brackets and the port of the host"


def _wrong_split(split: SplitResult, port: int | None) -> str | None:
    if split.scheme not in {"http", "https"}:
        return "must start with http:// or https://"
    if not split.hostname:
        return "has no host; write e.g. https://mcp.example.com/mcp"
    if port == 0:
        return "has port 0, which nobody listens on; write the real port"
    if split.fragment:
        return "has a fragment ('#…'), which is never sent; remove it"
    return None


def wrong_header_name(name: str) -> str | None:
    if not _TOKEN.fullmatch(name):
        return "is not a valid header name; use letters, digits and '-'"
    if name.lower() in _OWNED:
        return "is set by the gateway itself; remove it"
    return None


def wrong_header_value(value: str) -> str | None:
    if _FIELD_VALUE.fullmatch(value):
        return None
    return (
        "is not a valid header value; use printable ASCII without line breaks, "
        "and no space at either end"
    )


def wrong_env_name(name: str) -> str | None:
    if name and name.isprintable() and not re.search(r"[=\s]", name):
        return None
    return "is not a valid environment variable name; it cannot be empty or hold '=' or spaces"


def blank(text: str) -> str | None:
    return None if text.strip() else "is empty; write a value"
