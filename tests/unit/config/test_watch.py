"""Which folders to listen to for a file, and what is seen of it."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from open_mcp_gateway.config.watch import _digests, _folders, _stats
from open_mcp_gateway.document.source import (
    MAX_FILE_BYTES,
    noting_digests,
    read_bytes,
    read_document,
)
from open_mcp_gateway.errors import InvalidConfig


def leading_to(path: Path) -> set[Path]:
    return set(_folders([path]))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where no link is on the way."""
    return tmp_path.resolve()


def test_the_folder_of_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "file").touch()
    assert leading_to(folder / "file") == {folder}
    (folder / "sub").mkdir()
    monkeypatch.chdir(folder / "sub")
    assert leading_to(Path("../file")) == {folder}


@pytest.mark.parametrize(
    "place", ["file", "a/file", "a/b/file", "x" * 300, "a/" + "x" * 300, "x" * 300 + "/file"]
)
def test_the_last_folder_there_is_of_a_file_that_is_not(folder: Path, place: str) -> None:
    assert leading_to(folder / place) == {folder}


@pytest.mark.parametrize("place", ["\0", "\0/file"])
def test_what_can_be_no_file(folder: Path, place: str) -> None:
    path = folder / place
    assert leading_to(path) == {folder}
    assert _stats([path]) == {path: None}
    [why] = _digests([path]).values()
    assert isinstance(why, str)
    assert "null" in why


def test_every_link_on_the_way(folder: Path) -> None:
    """Whichever of them is turned elsewhere, the file is another one."""
    for name in ("one", "two", "three"):
        (folder / name).mkdir()
    (folder / "one" / "file").symlink_to("../two/link/file")
    (folder / "two" / "link").symlink_to(folder / "three")
    assert leading_to(folder / "one" / "file") == {folder / one for one in ("one", "two", "three")}
    (folder / "start").symlink_to("one")
    assert leading_to(folder / "start" / "file") == {
        folder,
        *(folder / one for one in ("one", "two", "three")),
    }


def test_a_link_to_where_nothing_is(folder: Path) -> None:
    (folder / "link").symlink_to("not/yet/there")
    assert leading_to(folder / "link") == {folder}


def test_links_that_lead_round_in_circles(folder: Path) -> None:
    (folder / "sub").mkdir()
    (folder / "loop").symlink_to("sub/loop")
    (folder / "sub" / "loop").symlink_to("../loop")
    assert leading_to(folder / "loop") == {folder, folder / "sub"}


@pytest.mark.parametrize("links", [40, 41])
def test_as_many_links_as_the_system_follows(folder: Path, links: int) -> None:
    for number in range(links + 1):
        (folder / str(number)).mkdir()
    for number in range(links):
        (folder / str(number) / "file").symlink_to(f"../{number + 1}/file")
    followed = {folder / str(number) for number in range(41)}
    assert leading_to(folder / "0" / "file") == followed


def test_a_folder_that_fills_is_the_same_and_one_made_anew_is_not(folder: Path) -> None:
    path = folder / "sub" / "file"
    path.parent.mkdir()
    before = _folders([path])
    for number in range(40):
        (path.parent / f"{number}{'x' * 200}").touch()
    assert _folders([path]) == before
    path.parent.rename(folder / "old")
    path.parent.mkdir()
    assert _folders([path]).keys() == before.keys()
    assert _folders([path]) != before


def test_what_is_seen_of_a_file_without_reading_it(folder: Path) -> None:
    path = folder / "file"
    assert _stats([path]) == {path: None}
    path.write_text("one")
    before = _stats([path])
    assert _stats([path]) == before
    path.write_text("longer")
    assert _stats([path]) != before


@pytest.mark.parametrize("size_bytes", [0, 5, MAX_FILE_BYTES, MAX_FILE_BYTES + 2])
def test_a_content_is_known_by_what_a_reader_notes_of_it(folder: Path, size_bytes: int) -> None:
    """Else what was just read would count as changed."""
    path = folder / "file"
    path.write_bytes(bytes(size_bytes))
    with noting_digests() as noted, contextlib.suppress(InvalidConfig):
        read_document(path)
    assert _digests([path]) == noted


@pytest.mark.parametrize("size_bytes", [100, 101, 102, 5_000, MAX_FILE_BYTES + 2])
def test_a_content_that_is_too_long_for_its_reader_is_known_as_a_whole(
    folder: Path, size_bytes: int
) -> None:
    """Else it would be read, and refused, again whenever somebody as much as touches the file."""
    path = folder / "file"
    path.write_bytes(bytes(size_bytes))
    with noting_digests() as noted, contextlib.suppress(InvalidConfig):
        read_bytes(path, 100)
    assert _digests([path]) == noted


def test_why_a_file_has_no_content(folder: Path) -> None:
    assert _digests([folder / "none", folder]) == {
        folder / "none": "No such file or directory",
        folder: "Is a directory",
    }
