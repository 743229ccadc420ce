"""What tells one state of a tenant or key from another, for whoever may look at it. Pure.

Not the revision of the store: that counts what everybody does.
"""

from __future__ import annotations

import hashlib
import re
from typing import Final

import msgspec
from msgspec.structs import asdict

from open_mcp_gateway.auth.records import KeyRecord, TenantRecord

TAG_CHARACTERS: Final = 16
TAG: Final = re.compile(f"[0-9a-f]{{{TAG_CHARACTERS}}}")

_LEFT_OUT: Final = frozenset({"rev", "last_used_at", "digests"})
"""The count of others, what is no change, and what a weak imported secret could be found from."""


def tag_of(record: TenantRecord | KeyRecord) -> str:
    """16 hexadecimal digits, the same in every process for as long as nobody changes ``record``."""
    members = {name: value for name, value in asdict(record).items() if name not in _LEFT_OUT}
    written = msgspec.json.encode(members, order="deterministic", enc_hook=repr)
    return hashlib.blake2b(written, digest_size=TAG_CHARACTERS // 2).hexdigest()
