"""Opening real servers over stdio in the era a caller needs, and what is remembered of it."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from open_mcp_gateway.catalog.model import CatalogEntry, EraChoice
from open_mcp_gateway.errors import EraNotSpoken, UpstreamUnavailable
from open_mcp_gateway.outbound.local import open_local
from open_mcp_gateway.outbound.peer import ANY_MANNER, Manner
from open_mcp_gateway.outbound.verdicts import EraVerdicts, Verdict
from open_mcp_gateway.protocol.eras import LEGACY_VERSIONS, MODERN_VERSIONS, Era
from tests.process.stdio_peers import QUICK, TALKER, entry_of, peer_of, pids_in, process_exists

pytestmark = pytest.mark.anyio

STATELESS = Manner(era=Era.MODERN)
SESSION = Manner(era=Era.LEGACY, version="2025-06-18")
WANTED = {Era.MODERN: STATELESS, Era.LEGACY: SESSION}


@pytest.fixture
def pids(tmp_path: Path) -> Path:
    return tmp_path / "pids"


async def refused(entry: CatalogEntry, manner: Manner, verdicts: EraVerdicts) -> tuple[str, ...]:
    with anyio.fail_after(60), pytest.raises(EraNotSpoken) as raised:
        await open_local(entry, manner, QUICK, verdicts, {})
    assert raised.value.public.startswith("Server 'x' does not speak ")
    return raised.value.spoken


@pytest.mark.parametrize(
    ("mode", "era", "spoken", "processes"),
    [
        ("echo", Era.MODERN, ("2025-11-25",), 1),
        ("silent_to_probe", Era.MODERN, ("2025-11-25",), 1),
        ("dies_on_unknown_first_request", Era.MODERN, ("2025-11-25",), 2),
        ("echo_modern", Era.LEGACY, ("2026-07-28",), 1),
        ("slow_start_modern", Era.LEGACY, ("2026-07-28",), 1),
    ],
)
async def test_an_era_not_spoken_is_remembered_and_asked_for_only_once(
    mode: str, era: Era, spoken: tuple[str, ...], processes: int, pids: Path
) -> None:
    entry, verdicts = entry_of(mode, pids), EraVerdicts()
    for _ in range(3):
        assert await refused(entry, WANTED[era], verdicts) == spoken
    assert len(pids_in(pids)) == processes
    assert not any(map(process_exists, pids_in(pids)))
    assert verdicts.speaks(entry, era) is False
    for manner in (ANY_MANNER, *(wanted for wanted in WANTED.values() if wanted.era is not era)):
        async with peer_of(entry, verdicts=verdicts, manner=manner) as caller:
            assert caller.peer.handshake.era is not era
            assert (await caller.tool("add", a=1, b=2).wait()).text == "3"


@pytest.mark.parametrize(("mode", "era"), [("echo", Era.MODERN), ("echo_modern", Era.LEGACY)])
async def test_a_server_defined_anew_is_asked_anew(mode: str, era: Era, pids: Path) -> None:
    verdicts = EraVerdicts()
    await refused(entry_of(mode, pids), WANTED[era], verdicts)
    other = entry_of("echo_modern" if mode == "echo" else "echo", pids)
    async with peer_of(other, verdicts=verdicts, manner=WANTED[era]) as caller:
        assert caller.peer.handshake.era is era
    await refused(entry_of(mode, pids), WANTED[era], verdicts)
    assert len(pids_in(pids)) == 3


async def test_a_server_of_both_eras_is_opened_in_the_one_that_is_needed(pids: Path) -> None:
    entry, verdicts = entry_of("dual", pids, server=TALKER), EraVerdicts()
    async with (
        peer_of(entry, verdicts=verdicts, manner=SESSION) as session,
        peer_of(entry, verdicts=verdicts, manner=STATELESS) as stateless,
        peer_of(entry, verdicts=verdicts) as either,
    ):
        handshakes = [caller.peer.handshake for caller in (session, stateless, either)]
        assert [shaken.version for shaken in handshakes] == ["2025-06-18", *MODERN_VERSIONS * 2]
        for caller in (session, stateless, either):
            assert (await caller.tool("echo", text="here").wait()).text == "here"
    assert [verdicts.speaks(entry, era) for era in Era] == [True, True]
    assert len(pids_in(pids)) == 3


@pytest.mark.parametrize("wanted", list(Era))
@pytest.mark.parametrize("known", [None, *Era])
@pytest.mark.parametrize("mode", ["crash_at_start", "refuses_initialize"])
async def test_a_crash_and_a_refusal_are_no_verdict(
    mode: str, known: Era | None, wanted: Era, pids: Path
) -> None:
    entry, verdicts = entry_of(mode, pids), EraVerdicts()
    if known is not None:
        verdicts.remember(entry, Verdict(era=known))
    for _ in range(2):
        with pytest.raises(UpstreamUnavailable) as raised:
            await open_local(entry, WANTED[wanted], QUICK, verdicts, {})
        assert not isinstance(raised.value, EraNotSpoken)
    assert len(pids_in(pids)) >= 2
    assert not any(map(process_exists, pids_in(pids)))
    assert False not in [verdicts.speaks(entry, era) for era in Era]


@pytest.mark.parametrize("wanted", list(Era))
async def test_a_server_too_slow_is_no_verdict(wanted: Era, pids: Path) -> None:
    entry = entry_of("slow_start", pids, env={"TEST_SLOW_START_S": "600"})
    verdicts = EraVerdicts()
    with anyio.move_on_after(1) as limit:
        await open_local(entry, WANTED[wanted], QUICK, verdicts, {})
    assert limit.cancelled_caught
    assert [verdicts.speaks(entry, era) for era in Era] == [None, None]
    assert not any(map(process_exists, pids_in(pids)))


@pytest.mark.parametrize(
    ("choice", "era", "spoken"),
    [
        (EraChoice.LEGACY, Era.MODERN, LEGACY_VERSIONS),
        (EraChoice.MODERN, Era.LEGACY, MODERN_VERSIONS),
    ],
)
async def test_the_catalog_s_word_needs_no_process(
    choice: EraChoice, era: Era, spoken: tuple[str, ...], pids: Path
) -> None:
    entry = entry_of("dual", pids, era=choice, server=TALKER)
    assert await refused(entry, WANTED[era], EraVerdicts()) == spoken
    assert pids_in(pids) == []
    other = next(wanted for wanted in WANTED.values() if wanted.era is not era)
    async with peer_of(entry, manner=other) as caller:
        assert caller.peer.handshake.era is other.era


async def test_what_a_server_has_learnt_since_is_found_out_when_the_verdict_fails() -> None:
    entry, verdicts = entry_of("echo_modern"), EraVerdicts()
    async with peer_of(entry_of("echo"), verdicts=EraVerdicts()) as caller:
        verdicts.learn(entry, caller.peer.handshake)
    verdicts.deny(entry, Era.MODERN)
    assert await refused(entry, STATELESS, verdicts) == ("2025-11-25",)
    # It was a server of the session era; the same definition runs a stateless one by now.
    assert await refused(entry, SESSION, verdicts) == ("2026-07-28",)
    async with peer_of(entry, verdicts=verdicts, manner=STATELESS) as caller:
        assert caller.peer.handshake.era is Era.MODERN


@pytest.mark.parametrize("version", LEGACY_VERSIONS)
async def test_the_client_s_version_is_offered(version: str) -> None:
    manner = Manner(era=Era.LEGACY, version=version)
    async with peer_of(entry_of("legacy", server=TALKER), manner=manner) as caller:
        assert caller.peer.handshake.version == version
