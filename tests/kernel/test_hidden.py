"""What older kernels need: a mount that is attached for a moment, where only root gets."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from homemgr.kernel import mounts
from homemgr.kernel.syscall import AT_EMPTY_PATH
from homemgr.storage import hidden


def test_a_part_is_cloned_and_nothing_stays(ground: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = ground / "volumes"
    monkeypatch.setattr(hidden, "_PLACE", str(place))
    with mounts.fsopen("tmpfs") as fs:
        mounts.fsconfig_create(fs.fileno())
        mount = mounts.fsmount(fs.fileno(), 0)
    os.mkdir("part", dir_fd=mount.fileno())
    hidden.attach(mount, "home-anna")
    assert place.stat().st_mode & 0o777 == 0o700
    part = os.open("part", os.O_DIRECTORY, dir_fd=mount.fileno())
    clone = mounts.open_tree(part, "", AT_EMPTY_PATH | mounts.OPEN_TREE_CLONE)
    os.close(part)
    mount.close()
    for _ in range(2):
        hidden.take_away("home-anna")
        assert os.listdir(place) == []
    os.mkdir("file", dir_fd=clone.fileno())
    clone.close()
    place.rmdir()
