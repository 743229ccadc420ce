"""Short texts that rights hang on: names, patterns, networks, moments.

Nothing empty passes, also not for a part: ``${NAME}*`` with an empty variable would be a ``*`` that
nobody wrote, and a name with a space too many denies nothing.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterable
from ipaddress import IPv6Network, ip_address, ip_network

from open_mcp_gateway.auth.patterns import Rule, wrong_ends
from open_mcp_gateway.document.convert import Reader, is_null, suggestion
from open_mcp_gateway.document.tree import Kind, Scalar, Sequence, Tree

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""Use with ``fullmatch``."""

WRONG_NAME = (
    "is no valid name; use 1 to 64 letters, digits, '.', '_' and '-', the first a letter or digit"
)

_NETWORK = re.compile(r"[0-9A-Fa-f.:]+(?:/[0-9]{1,3})?")
_MOMENT = re.compile(
    r"[0-9]{4}-[0-9]{2}-[0-9]{2}"
    r"(?P<time>[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?"
    r"(?: ?(?:[Zz]|[+-][0-9]{2}:[0-9]{2}))?)?"
)
_WRONG_MOMENT = "is no moment; write e.g. 2030-12-31 or 2030-12-31T18:00:00Z"
_WRONG_NETWORK = "is no network or address; write e.g. 10.0.0.0/8, 192.0.2.7 or 2001:db8::/32"
_ANY = "*"


def read_word(node: Tree, reader: Reader, rule: Rule | None = None) -> str | None:
    """One such text, after substitution; None when a problem was reported."""
    found = reader.text(node)
    if found is None:
        return None
    mistake = None
    if found.empty:
        mistake = f"environment variable {', '.join(found.empty)} is empty; set it"
    else:
        mistake = wrong_ends(found.real)
        if mistake is None and found.bare:
            mistake = "holds '$NAME', which is not replaced; write ${NAME}, or '$$' for a '$'"
        elif mistake is None and rule is not None:
            mistake = rule(found.real)
    if mistake is not None:
        reader.problem(node, mistake)
        return None
    return found.real


def read_words(
    node: Tree, reader: Reader, rule: Rule, *, star: bool = False
) -> tuple[str, ...] | None:
    """A list that must be written as one; ``star``: a ``"*"`` alone may stand for ``["*"]``."""
    if star and isinstance(node, Scalar) and node.text == _ANY:
        return (_ANY,)
    if not isinstance(node, Sequence):
        mend = 'write [] for none, or ["*"] for all' if star else "write [] for none"
        reader.problem(node, f"must be a list, but is {node.called}; {mend}")
        return None
    words = [read_word(item, reader, rule) for item in node.items]
    good = [word for word in words if word is not None]
    return tuple(dict.fromkeys(good)) if len(good) == len(words) else None


def read_moment(node: Tree, reader: Reader) -> float | None:
    """Seconds since the epoch. A date is its beginning; without a zone it is UTC."""
    if isinstance(node, Scalar) and not is_null(node) and node.kind is not Kind.TEXT:
        reader.problem(node, _WRONG_MOMENT)
        return None
    text = read_word(node, reader, lambda text: _WRONG_MOMENT if moment(text) is None else None)
    return None if text is None else moment(text)


def moment(text: str) -> float | None:
    """The moment that a date, or a date and time, means; None if it is neither."""
    match = _MOMENT.fullmatch(text)
    if match is None:
        return None
    date, time = text[:10], (match["time"] or "T00:00:00").upper()
    try:
        found = datetime.datetime.fromisoformat(f"{date}T{time[1:].replace(' ', '')}")
    except ValueError:
        return None
    if found.tzinfo is None:
        found = found.replace(tzinfo=datetime.UTC)
    return found.timestamp()


def wrong_name(text: str) -> str | None:
    return None if NAME.fullmatch(text) else WRONG_NAME


def wrong_network(text: str) -> str | None:
    try:
        network = ip_network(text, strict=False) if _NETWORK.fullmatch(text) else None
    except ValueError:
        network = None
    if network is None:
        return _WRONG_NETWORK
    if ip_address(text.partition("/")[0]) != network.network_address:
        return f"has bits set beyond its prefix; write {network}"
    if isinstance(network, IPv6Network) and network.network_address.ipv4_mapped is not None:
        return "is IPv4 written as IPv6, which fits no caller; write it as IPv4"
    return None


def wrong_choice(text: str, known: Iterable[str], what: str) -> str | None:
    names = list(known)
    if text in names:
        return None
    return f"is no {what}{suggestion(text, names) or '; known are ' + ', '.join(names)}"
