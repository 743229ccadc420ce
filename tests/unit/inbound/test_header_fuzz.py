"""Headers that nobody would send, at random but the same each time, to the whole application.

Nobody gets in who did not send the exact bytes of the key, once; everybody gets one proper answer.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest

from open_mcp_gateway.access.policy import platform_admin
from open_mcp_gateway.app import running
from open_mcp_gateway.auth.apikeys import digest_of
from open_mcp_gateway.catalog.model import Snapshot
from open_mcp_gateway.clock import SystemClock
from open_mcp_gateway.config.model import Config
from open_mcp_gateway.inbound.access_log import AccessLog
from open_mcp_gateway.inbound.asgi import Application
from tests.wire.surface import no_reload

pytestmark = pytest.mark.anyio

KEY: Final = b"mgk_4fTz9QpLm2Xa_7Jq0testtesttesttesttesttesttesttesttesttest9"
SEED: Final = 20_260_728

Pairs = list[tuple[bytes, bytes]]

NAMES: Final = (
    *((b"authorization", b"x-api-key") * 6),
    *(
        b"x_api_key",
        b"x-api-key ",
        b"authorization2",
        b"proxy-authorization",
        b"cookie",
        b"api-key",
    ),
    *(b"x-forwarded-authorization", b"x-original-authorization", b"x-user", b"x-tenant", b""),
    *(b"host", b"origin", b"content-length", b"transfer-encoding", b"expect", b"x-request-id"),
)
SCHEMES: Final = (
    *((b"Bearer ",) * 8),
    *(b"bearer ", b"BEARER\t", b"Bearer  \t ", b" Bearer ", b"\tBearer ", b"Bearer", b"Bearer:"),
    *(b"Bearer\xa0", b"Bearer\x0b", b"Bearer\x00", b"Basic ", b"Token ", b"ApiKey ", b"Bear er "),
    *("\u0412earer ".encode(), b"Bearer Bearer ", b"Bearer ,", b'Bearer "', b"Bearer token=", b""),
)
AFTER: Final = (
    *((b"",) * 10),
    *(b" ", b"\t \t", b"\r\n x", b"\x00", b"\xff", b",", b", ", b"=", b" x", b";q=1", b'"', b"%20"),
    *(b"\xc2\xa0", b"\x0b", b"\x0c", b"\x7f", b"\n", b"," + KEY, b", Bearer " + KEY, b" " + KEY),
)


def credential(dice: random.Random) -> bytes:
    """The key, something like it, or something else."""
    kind = dice.randrange(12)
    if kind < 4:
        return KEY
    place = dice.randrange(len(KEY))
    if kind == 4:
        return KEY[:place]
    if kind == 5:
        return KEY[:place] + bytes([dice.randrange(256)]) + KEY[place + 1 :]
    if kind == 6:
        return KEY[:place] + dice.randbytes(1) + KEY[place:]
    if kind == 7:
        return KEY.swapcase()
    if kind == 8:
        return b""
    if kind == 9:
        return KEY * dice.randrange(2, 1100)
    if kind == 10:
        return dice.randbytes(dice.randrange(1, 600))
    return bytes(dice.choices(range(0x21, 0x7F), k=dice.randrange(1, 80)))


def headers(dice: random.Random) -> Pairs:
    """A host, mostly, and up to four more, in any order."""
    found: Pairs = [(b"host", b"localhost")] if dice.random() < 0.97 else []
    for _ in range(dice.choices((0, 1, 2, 3, 4), (1, 8, 5, 2, 1))[0]):
        name = dice.choice(NAMES)
        scheme = (
            dice.choice(SCHEMES) if name == b"authorization" else dice.choice((b"",) * 9 + SCHEMES)
        )
        found.append((name, scheme + credential(dice) + dice.choice(AFTER)))
    if dice.random() < 0.001:
        found.append((b"x-padding", b"p" * 65_536))
    dice.shuffle(found)
    return found


def sent_once(pairs: Pairs) -> bool:
    """Whether the exact key is there as the whole of a header that is one for keys and comes once,
    and nothing else is there as a key. Looked at by its own rules, apart from the program's."""
    bearers = [value for name, value in pairs if name == b"authorization"]
    keys = [value for name, value in pairs if name == b"x-api-key"]
    if len(bearers) > 1 or len(keys) > 1:
        return False
    tokens = [value.strip(b" \t") for value in keys]
    for value in bearers:
        words = value.replace(b"\t", b" ").strip(b" ").split(b" ")
        if words[0].lower() == b"bearer":
            tokens.append(b" ".join(word for word in words[1:] if word))
    tokens = [token for token in tokens if token]
    return bool(tokens) and all(token == KEY for token in tokens)


async def status_of(application: Application, pairs: Pairs) -> int:
    """The one answer."""
    statuses: list[int] = []
    ended: list[bool] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            statuses.append(message["status"])
        else:
            ended.append(not message.get("more_body", False))

    scope = {
        "type": "http",
        "method": "PUT",
        "raw_path": b"/servers",
        "query_string": b"",
        "headers": pairs,
        "client": ("127.0.0.1", 1),
        "http_version": "1.1",
    }
    await application(scope, receive, send)
    assert len(statuses) == len(ended) == 1, pairs
    return statuses[0]


@asynccontextmanager
async def serving() -> AsyncIterator[Application]:
    config = Config(
        auth_enabled=True, keys=(platform_admin(digest_of(KEY)),), access_log=AccessLog.OFF
    )
    async with running(
        config, Snapshot(), environ={}, clock=SystemClock(), reload=no_reload
    ) as gateway:
        yield gateway.application


async def _fuzz(cases: int) -> Counter[int]:
    dice = random.Random(SEED)
    seen: Counter[int] = Counter()
    async with serving() as application:
        for _ in range(cases):
            pairs = headers(dice)
            status = await status_of(application, pairs)
            seen[status] += 1
            # The path is there, with other methods: who is let in is told so, or that the body has
            # a coding that nobody undoes; nobody else is.
            if status in {405, 501}:
                assert sent_once(pairs), pairs
            else:
                assert status in {400, 401, 403, 413, 431, 501}, (status, pairs)
    return seen


async def test_a_key_alone_opens() -> None:
    async with serving() as application:
        for pairs in ([(b"x-api-key", KEY)], [(b"authorization", b"bearer\t" + KEY + b" ")]):
            assert await status_of(application, [(b"host", b"localhost"), *pairs]) == 405


async def test_twenty_thousand_heads() -> None:
    seen = await _fuzz(20_000)
    # Most of what there is to say was said, or it would prove little.
    assert min(seen[status] for status in (400, 401, 403, 405)) > 250, seen


@pytest.mark.long("1,000,000 heads")
@pytest.mark.timeout(1800)
async def test_a_million_heads() -> None:
    seen = await _fuzz(1_000_000)
    assert seen.total() == 1_000_000
    assert seen[431] > 0
