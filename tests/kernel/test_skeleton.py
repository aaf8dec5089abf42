"""A copied skeleton is like the original in all that the user can see."""

from __future__ import annotations

import os
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from homemgr.errors import InvalidArgs
from homemgr.files import DIRECTORY_FLAGS, Fd
from homemgr.storage.skeleton import copy_skeleton

if TYPE_CHECKING:
    from pathlib import Path

HOLE = 1 << 20


def copy(source: Path, target: Path, leave_out: frozenset[str] = frozenset()) -> list[str]:
    target.mkdir()
    with Fd.open(str(target), DIRECTORY_FLAGS) as fd:
        return copy_skeleton(str(source), fd, leave_out)


def test_content_modes_times_links_and_attributes(every_area: Path) -> None:
    source = every_area / "skel"
    (source / "bin").mkdir(parents=True)
    (source / "bin" / "tool").write_text("#!/bin/sh\n")
    (source / "bin" / "tool").chmod(0o750)
    (source / "link").symlink_to("bin/tool")
    os.setxattr(source / "bin" / "tool", "user.origin", b"skel")
    os.setxattr(source / "bin", "user.kind", b"directory")
    (source / "bin").chmod(0o711)
    for path in (source / "bin" / "tool", source / "link", source / "bin"):
        os.utime(path, ns=(10**18 + 1, 10**18 + 2), follow_symlinks=False)
    target = every_area / "home"
    assert copy(source, target) == []
    for name in ("bin/tool", "link", "bin"):
        old, new = (source / name).lstat(), (target / name).lstat()
        assert (old.st_mode, old.st_mtime_ns) == (new.st_mode, new.st_mtime_ns)
    assert os.readlink(target / "link") == "bin/tool"
    assert (target / "bin" / "tool").read_text() == "#!/bin/sh\n"
    assert os.getxattr(target / "bin" / "tool", "user.origin") == b"skel"
    assert os.getxattr(target / "bin", "user.kind") == b"directory"


def test_holes_stay_holes(every_area: Path) -> None:
    (every_area / "skel").mkdir()
    with (every_area / "skel" / "sparse").open("wb") as file:
        file.write(b"begin")
        file.seek(8 * HOLE)
        file.write(b"end")
        file.truncate(16 * HOLE)
    copy(every_area / "skel", every_area / "home")
    old, new = (every_area / name / "sparse" for name in ("skel", "home"))
    assert old.read_bytes() == new.read_bytes()
    os.sync()
    assert new.stat().st_blocks * 512 < HOLE


def test_copy_between_file_systems(every_area: Path, tmp_path: Path) -> None:
    (tmp_path / "skel").mkdir()
    (tmp_path / "skel" / "file").write_bytes(os.urandom(3_000_000))
    copy(tmp_path / "skel", every_area / "home")
    old, new = (path / "file" for path in (tmp_path / "skel", every_area / "home"))
    assert old.read_bytes() == new.read_bytes()


def test_file_system_without_attributes_loses_only_those(area: Path) -> None:
    (area / "skel").mkdir()
    (area / "skel" / "file").write_text("content")
    os.setxattr(area / "skel" / "file", "user.origin", b"skel")
    (area / "plain").mkdir()
    subprocess.run(["mount", "-t", "ramfs", "none", area / "plain"], check=True)
    try:
        copy(area / "skel", area / "plain" / "home")
        copy(area / "plain" / "home", area / "back")
    finally:
        subprocess.run(["umount", area / "plain"], check=True)
    assert (area / "back" / "file").read_text() == "content"


def test_rights_lent_by_the_original_are_dropped(area: Path) -> None:
    (area / "skel" / "dir").mkdir(parents=True)
    (area / "skel" / "dir").chmod(0o2755)
    (area / "skel" / "suid").touch()
    (area / "skel" / "suid").chmod(0o6755)
    copy(area / "skel", area / "home")
    for name in ("dir", "suid"):
        assert stat.S_IMODE((area / "home" / name).stat().st_mode) == 0o755


def test_other_kinds_are_named_and_left_out(area: Path) -> None:
    (area / "skel" / "dir").mkdir(parents=True)
    os.mkfifo(area / "skel" / "dir" / "fifo")
    os.mknod(area / "skel" / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    (area / "skel" / "ours").touch()
    assert copy(area / "skel", area / "home", frozenset({"ours"})) == ["dir/fifo", "null"]
    assert os.listdir(area / "home") == ["dir"]


def test_bottomless_skeleton_is_refused(area: Path) -> None:
    path = area / "skel"
    for _level in range(110):
        path = path / "d"
    path.mkdir(parents=True)
    with pytest.raises(InvalidArgs, match="deeper"):
        copy(area / "skel", area / "home")


def test_skeleton_that_is_no_directory_is_an_error(area: Path) -> None:
    (area / "skel").touch()
    with pytest.raises(NotADirectoryError):
        copy(area / "skel", area / "home")
