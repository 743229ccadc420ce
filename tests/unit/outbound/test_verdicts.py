"""A verdict holds for one definition of one server."""

from __future__ import annotations

import pytest

from open_mcp_gateway.catalog.model import CatalogEntry, EraChoice, LocalProcess, ServerSpec
from open_mcp_gateway.errors import EraNotSpoken
from open_mcp_gateway.names import ServerId
from open_mcp_gateway.outbound import verdicts
from open_mcp_gateway.outbound.peer import Handshake
from open_mcp_gateway.outbound.verdicts import EraVerdicts, Verdict
from open_mcp_gateway.protocol.eras import LEGACY_VERSIONS, MODERN_VERSIONS, Era

LEGACY = Verdict(era=Era.LEGACY)


def entry(
    server_id: str = "a", command: str = "x", era: EraChoice = EraChoice.AUTO, **more: str
) -> CatalogEntry:
    env = {name: value for name, value in more.items() if name != "display_name"}
    spec = ServerSpec(
        id=ServerId(server_id),
        runtime=LocalProcess(command=command),
        env=env,
        display_name=more.get("display_name", ""),
        era=era,
    )
    return CatalogEntry(spec=spec, shown=spec, runtime_type="local-process", secrets=("s3cret",))


def test_a_verdict_is_recalled_until_it_is_forgotten() -> None:
    known = EraVerdicts()
    assert known.recall(entry()) is None
    known.remember(entry(), LEGACY)
    assert known.recall(entry()) == LEGACY
    assert known.recall(entry(display_name="another name")) == LEGACY
    known.forget(entry())
    known.forget(entry())
    assert known.recall(entry()) is None


def test_another_definition_has_no_verdict() -> None:
    known = EraVerdicts()
    known.remember(entry(), LEGACY)
    assert known.recall(entry(command="y")) is None
    assert known.recall(entry(MODE="modern")) is None
    assert known.recall(entry("b")) is None


def test_the_oldest_goes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verdicts, "MAX_REMEMBERED", 2)
    known = EraVerdicts()
    for server_id in ("a", "b", "a", "c"):
        known.remember(entry(server_id), LEGACY)
    assert [known.recall(entry(server_id)) for server_id in "abc"] == [LEGACY, None, LEGACY]


SESSION = Handshake(era=Era.LEGACY, version="2025-06-18", result=b"{}")
STATELESS = Handshake(
    era=Era.MODERN,
    version="2026-07-28",
    result=b'{"supportedVersions":["2024-11-05","2099-s3cret","2026-07-28"]}',
)


def spoken_instead_of(known: EraVerdicts, asked: CatalogEntry, era: Era) -> tuple[str, ...]:
    with pytest.raises(EraNotSpoken) as raised:
        known.refuse_unspoken(asked, era)
    assert all(version in raised.value.public for version in raised.value.spoken)
    return raised.value.spoken


def test_nothing_is_known_of_a_server_never_asked() -> None:
    known = EraVerdicts()
    for era in (*Era, None):
        known.refuse_unspoken(entry(), era)
    assert [known.speaks(entry(), era) for era in Era] == [None, None]


def test_an_era_spoken_says_nothing_of_the_other() -> None:
    known = EraVerdicts()
    known.learn(entry(), SESSION)
    assert known.speaks(entry(), Era.LEGACY) is True
    assert known.speaks(entry(), Era.MODERN) is None
    assert known.recall(entry()) is None
    known.refuse_unspoken(entry(), Era.MODERN)


def test_an_era_denied_is_refused_and_what_is_spoken_is_named() -> None:
    known = EraVerdicts()
    known.learn(entry(), SESSION)
    known.deny(entry(), Era.MODERN)
    assert spoken_instead_of(known, entry(), Era.MODERN) == ("2025-06-18",)
    known.refuse_unspoken(entry(), Era.LEGACY)
    known.refuse_unspoken(entry(), None)
    known.deny(entry("b"), Era.LEGACY)
    assert spoken_instead_of(known, entry("b"), Era.LEGACY) == ()


def test_versions_are_those_of_the_era_and_hold_no_secret() -> None:
    known = EraVerdicts()
    known.learn(entry(), STATELESS)
    known.deny(entry(), Era.LEGACY)
    assert spoken_instead_of(known, entry(), Era.LEGACY) == ("2026-07-28", "2099-***")


@pytest.mark.parametrize(
    "again", [entry(command="y"), entry(MODE="modern"), entry("a", "x", MODE="z")]
)
def test_a_new_definition_is_asked_anew(again: CatalogEntry) -> None:
    known = EraVerdicts()
    known.deny(entry(), Era.MODERN)
    known.refuse_unspoken(again, Era.MODERN)
    known.learn(again, SESSION)
    assert known.speaks(entry(), Era.MODERN) is None


def test_what_is_forgotten_is_not_refused() -> None:
    known = EraVerdicts()
    known.deny(entry(), Era.MODERN)
    known.forget(entry())
    known.refuse_unspoken(entry(), Era.MODERN)


def test_a_server_that_speaks_after_all_is_no_longer_refused() -> None:
    known = EraVerdicts()
    known.deny(entry(), Era.LEGACY)
    known.remember(entry(), LEGACY)
    known.refuse_unspoken(entry(), Era.LEGACY)


def test_the_catalog_s_word_needs_no_verdict_and_yields_to_none() -> None:
    known = EraVerdicts()
    known.learn(entry(), STATELESS)
    legacy, modern = entry(era=EraChoice.LEGACY), entry(era=EraChoice.MODERN)
    assert spoken_instead_of(known, legacy, Era.MODERN) == LEGACY_VERSIONS
    known.refuse_unspoken(legacy, Era.LEGACY)
    assert spoken_instead_of(EraVerdicts(), modern, Era.LEGACY) == MODERN_VERSIONS
    known.refuse_unspoken(modern, Era.MODERN)


def test_a_denial_holds_for_minutes_and_no_longer() -> None:
    now_s = [0.0]
    known = EraVerdicts(lambda: now_s[0])
    known.remember(entry(), LEGACY)
    known.deny(entry(), Era.MODERN)
    now_s[0] = verdicts.DENIAL_S - 1
    assert known.speaks(entry(), Era.MODERN) is False
    now_s[0] = verdicts.DENIAL_S
    known.refuse_unspoken(entry(), Era.MODERN)
    assert [known.speaks(entry(), era) for era in Era] == [None, True]
    known.deny(entry(), Era.MODERN)
    assert known.speaks(entry(), Era.MODERN) is False


def test_what_is_pardoned_is_asked_again_and_opened_as_before() -> None:
    known = EraVerdicts()
    known.pardon(ServerId("a"))
    known.remember(entry(), LEGACY)
    known.deny(entry(), Era.MODERN)
    known.pardon(ServerId("b"))
    assert known.speaks(entry(), Era.MODERN) is False
    known.pardon(ServerId("a"))
    assert [known.speaks(entry(), era) for era in Era] == [None, True]
    assert known.recall(entry()) == LEGACY
