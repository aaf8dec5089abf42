"""Whether a home that is converted can share blocks with its copy: it is tried, not looked up."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from homemgr.kernel import mounts
from homemgr.work.conversion_room import can_share

from .. import volumes
from .travels import opened

if TYPE_CHECKING:
    from pathlib import Path


def make_home(top: Path, record: bytes = b"{}") -> Path:
    top.mkdir(exist_ok=True)
    (top / ".identity").write_bytes(record)
    return top


def shares(home: Path, other: Path) -> bool:
    with opened(home) as source, opened(other) as top:
        answer = can_share(source, top)
        assert os.listdir(top.fileno()) == []
    return answer


def test_homes_share_where_the_file_system_does(every_area: Path) -> None:
    (every_area / "new").mkdir()
    home = make_home(every_area / "home")
    assert shares(home, every_area / "new") == (every_area.parent.name != "ext4")


# btrfs has the content of short files in their inodes.
@pytest.mark.parametrize("size", [2, 3000, 30_000])
def test_subvolumes_share_although_they_have_device_numbers_of_their_own(
    btrfs_area: Path, size: int
) -> None:
    for name in ("home", "new"):
        subprocess.run(["btrfs", "-q", "subvolume", "create", str(btrfs_area / name)], check=True)
    home = make_home(btrfs_area / "home", b"x" * size)
    # One that its owner has made read-only too.
    subprocess.run(["btrfs", "property", "set", str(home), "ro", "true"], check=True)
    assert shares(home, btrfs_area / "new")
    subprocess.run(["btrfs", "property", "set", str(home), "ro", "false"], check=True)


def test_what_could_share_but_does_not_is_noticed(area: Path, tmp_path: Path) -> None:
    make = ["mkfs.xfs", "-q", "-f", "-m", "reflink=0"]
    target = area / "old"
    volumes.mount_image(tmp_path / "image", "xfs", target, make=make)
    try:
        (target / "new").mkdir()
        home = make_home(target / "home")
        assert not shares(home, target / "new")
        # Nor one that is elsewhere, or whose record is none.
        (area / "new").mkdir()
        assert not shares(home, area / "new")
        (home / ".identity").unlink()
        os.mkfifo(home / ".identity")
        assert not shares(home, target / "new")
    finally:
        mounts.umount2(str(target), 0)
