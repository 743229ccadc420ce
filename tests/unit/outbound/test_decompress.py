"""Content codings, undone in bounded steps."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from open_mcp_gateway.outbound.decompress import PIECE_BYTES, BadCoding, Inflater


def bare_deflate(data: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return packer.compress(data) + packer.flush()


PACKERS: dict[bytes, Callable[[bytes], bytes]] = {
    b"gzip": gzip.compress,
    b"deflate": zlib.compress,
    b"bare": bare_deflate,
}


@given(st.sampled_from(sorted(PACKERS)), st.binary(max_size=3000), st.integers(1, 50))
def test_undoes_every_coding_in_any_chunks(kind: bytes, data: bytes, step: int) -> None:
    packed = PACKERS[kind](data)
    inflater = Inflater(b"gzip" if kind == b"gzip" else b"deflate")
    pieces = [
        piece
        for start in range(0, len(packed), step)
        for piece in inflater.feed(packed[start : start + step])
    ]
    assert b"".join(pieces) == data
    assert inflater.complete


def test_a_bomb_swells_only_piece_by_piece() -> None:
    bomb = gzip.compress(bytes(50 * 1024 * 1024))
    pieces = Inflater(b"gzip").feed(bomb)
    assert len(next(pieces)) <= PIECE_BYTES


def test_members_may_follow_one_another() -> None:
    packed = gzip.compress(b"one") + gzip.compress(b"two")
    assert b"".join(Inflater(b"gzip").feed(packed)) == b"onetwo"


def test_a_cut_is_noticed() -> None:
    inflater = Inflater(b"gzip")
    list(inflater.feed(gzip.compress(b"hello")[:-3]))
    assert not inflater.complete


def test_no_body_at_all_is_complete() -> None:
    assert Inflater(b"gzip").complete


@pytest.mark.parametrize("coding", [b"gzip", b"deflate"])
def test_refuses_what_is_corrupt(coding: bytes) -> None:
    with pytest.raises(BadCoding):
        list(Inflater(coding).feed(b"\xff\xff not compressed at all"))


def test_refuses_codings_nobody_asked_for() -> None:
    with pytest.raises(BadCoding, match="'br'"):
        Inflater(b"br")
