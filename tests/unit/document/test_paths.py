from __future__ import annotations

import os
from pathlib import Path

import pytest

from open_mcp_gateway.document.paths import absolute, unreadable


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


@pytest.mark.skipif(os.geteuid() == 0, reason="file modes do not bind root; runs as any other user")
def test_no_permission(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    file.chmod(0)
    assert unreadable(file) == "cannot be read (Permission denied)"
