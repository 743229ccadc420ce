from __future__ import annotations

from pathlib import Path

from open_mcp_gateway.document.paths import absolute, unreadable
from tests.unprivileged import unprivileged


def test_a_relative_base_becomes_absolute() -> None:
    assert absolute("x", Path("sub"), {}) == Path.cwd() / "sub" / "x"


def test_the_profile_folder_of_another_system() -> None:
    assert absolute("~/x", Path("/"), {"USERPROFILE": "/profile"}) == Path("/profile/x")


def test_unreadable(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    assert unreadable(file) is None
    assert unreadable(tmp_path) == "is a folder"
    assert unreadable(tmp_path / "none") == "does not exist"
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    assert unreadable(loop) is not None


def test_no_permission(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    file.chmod(0)
    unprivileged(check_that_it_is_not_read, tmp_path)


def check_that_it_is_not_read(folder: Path) -> None:
    assert unreadable(folder / "file") == "cannot be read (Permission denied)"
