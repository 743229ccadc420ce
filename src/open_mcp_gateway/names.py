"""The identifiers that travel through the gateway, each its own type."""

from __future__ import annotations

import re
import unicodedata
from typing import NewType

ServerId = NewType("ServerId", str)
"""A server's id in the catalog; unique over all namespaces."""

Namespace = NewType("Namespace", str)
"""A group of servers that rights are given on."""

KeyId = NewType("KeyId", str)
"""The public name of a key; safe to log."""

TenantId = NewType("TenantId", str)
"""A tenant: a holder of keys that are given the same namespaces."""

RequestId = NewType("RequestId", str)
"""The id of one HTTP request: in the answer's ``X-Request-Id`` and on every log line of it."""


def alike(name: str) -> str:
    """The same text for names that nobody keeps apart: in another case, or in wide letters.

    Source: Unicode 15, D145 (canonical caseless) and D147 (compatibility caseless matching).
    """
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFD", name).casefold())
    return unicodedata.normalize("NFKC", folded.casefold())


SERVER_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""Use with ``fullmatch``."""

NAMESPACE = re.compile(r"[a-z0-9-]{1,63}")
"""Use with ``fullmatch``."""

TENANT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
"""Use with ``fullmatch``."""

KEY_ID = re.compile(r"(?:key_|config:)[A-Za-z0-9._:-]{1,143}")
"""Use with ``fullmatch``. Configured keys have ``config:`` and their tenant before their name. No
other word is an id, so that ``verify`` can stand where an id would."""

DEFAULT_NAMESPACE = Namespace("default")
