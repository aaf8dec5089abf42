"""Who could change where a path leads: every way in is refused with the culprit's name."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from homemgr.errors import FileNotFound, InvalidArgs, UnsafePath
from homemgr.storage import rooms
from homemgr.storage.paths import ensure_base, open_safe_parent

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def way(area: Path) -> Path:
    """Two safe directories below each other."""
    path = area / "one" / "two"
    path.mkdir(parents=True)
    return path


def refusal(path: Path, *, for_new: bool = False) -> str:
    with pytest.raises(UnsafePath) as caught:
        open_safe_parent(str(path), for_new=for_new)
    return caught.value.message


def test_safe_way_gives_the_directory(way: Path) -> None:
    with open_safe_parent(str(way / "home")) as parent:
        assert os.readlink(f"/proc/self/fd/{parent.fileno()}") == str(way)
        os.fsync(parent.fileno())


@pytest.mark.parametrize("mode", [0o775, 0o757, 0o1777, 0o730])
def test_directory_others_can_write_is_refused(way: Path, mode: int) -> None:
    way.parent.chmod(mode)
    text = refusal(way / "home")
    assert f"{way.parent} belongs to uid 0 with mode {mode:04o}" in text
    assert "expected root" in text


def test_directory_of_a_user_is_refused(way: Path) -> None:
    os.chown(way, 1000, 0)
    assert f"{way} belongs to uid 1000" in refusal(way / "home")


def test_directory_made_writable_by_an_acl_is_refused(way: Path) -> None:
    # The entry shows as the group's permission: u:1000:rwx and mask rwx.
    entries = ((1, 7, 0xFFFFFFFF), (2, 7, 1000), (4, 5, 0xFFFFFFFF))
    entries += ((16, 7, 0xFFFFFFFF), (32, 5, 0xFFFFFFFF))
    acl = (2).to_bytes(4, "little") + b"".join(
        tag.to_bytes(2, "little") + perm.to_bytes(2, "little") + who.to_bytes(4, "little")
        for tag, perm, who in entries
    )
    os.setxattr(way, "system.posix_acl_access", acl)
    assert str(way) in refusal(way / "home")


def test_links_of_root_are_followed_and_judged(way: Path) -> None:
    (way / "relative").symlink_to("../two")
    (way / "absolute").symlink_to(way)
    for name in ("relative", "absolute"):
        with open_safe_parent(str(way / name / "home")) as parent:
            assert os.readlink(f"/proc/self/fd/{parent.fileno()}") == str(way)
    (way / "astray").symlink_to("/tmp")
    assert "/tmp belongs to" in refusal(way / "astray" / "home")


def test_link_of_a_user_is_refused(way: Path) -> None:
    (way / "link").symlink_to(way)
    os.chown(way / "link", 1000, 1000, follow_symlinks=False)
    text = refusal(way / "link" / "home")
    assert f"{way / 'link'} belongs to uid 1000" in text


def test_links_in_a_circle_end(way: Path) -> None:
    (way / "loop").symlink_to("loop")
    assert "too many symbolic links" in refusal(way / "loop" / "home")


def test_file_on_the_way_is_refused(way: Path) -> None:
    (way / "file").touch()
    assert "is not a directory" in refusal(way / "file" / "home")


def test_missing_directory_is_named(way: Path) -> None:
    with pytest.raises(FileNotFound, match=f"{way}/missing"):
        open_safe_parent(str(way / "missing" / "home"))


@pytest.mark.parametrize(
    "path", ["", "home", "/", "/a/../b", "/a//b", "//a", "/a/", "/a\0b", "./a"]
)
def test_detours_are_refused(path: str) -> None:
    with pytest.raises(InvalidArgs):
        open_safe_parent(path)


def test_new_homes_want_a_closed_directory(way: Path) -> None:
    text = refusal(way / "home", for_new=True)
    assert f"{way} belongs to 0:0 with mode 0755" in text
    assert "root:root with mode 0700" in text
    way.chmod(0o700)
    open_safe_parent(str(way / "home"), for_new=True).close()
    os.chown(way, 0, 1000)
    assert f"{way} belongs to 0:1000" in refusal(way / "home", for_new=True)


def test_base_is_made_closed_whatever_the_umask(way: Path) -> None:
    before = os.umask(0)
    try:
        for _again in range(2):
            with ensure_base(str(way / "base")) as base:
                found = os.fstat(base.fileno())
    finally:
        os.umask(before)
    assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (0, 0, 0o700)


def test_empty_base_of_root_is_put_right(way: Path) -> None:
    (way / "base").mkdir(mode=0o755)
    ensure_base(str(way / "base")).close()
    assert stat.S_IMODE((way / "base").stat().st_mode) == 0o700


def test_base_that_was_open_to_others_is_refused(way: Path) -> None:
    (way / "base" / "alice.homedir").mkdir(parents=True)
    with pytest.raises(UnsafePath, match="0755"):
        ensure_base(str(way / "base"))
    (way / "users").mkdir(mode=0o700)
    os.chown(way / "users", 1000, 1000)
    with pytest.raises(UnsafePath, match="1000:1000"):
        ensure_base(str(way / "users"))
    assert (way / "users").stat().st_uid == 1000


def test_base_that_is_a_link_is_refused(way: Path) -> None:
    (way / "base").symlink_to(way)
    with pytest.raises(UnsafePath, match="must be a directory"):
        ensure_base(str(way / "base"))


def test_what_is_no_directory_is_no_room_and_stays(way: Path) -> None:
    place = way / f"{rooms.PREFIX}anna"
    for take_it in (place.touch, lambda: place.symlink_to("/")):
        take_it()
        for use in (lambda: rooms.make(str(place)), lambda: rooms.clear(str(place), ())):
            with pytest.raises(UnsafePath, match=f"{place} is not a directory.*move away"):
                use()
        place.unlink()
    rooms.clear(str(place), ())
