"""Homes that are renamed from place to place: each step is on disk before anybody goes on."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import pytest

from homemgr.errors import NoDiskSpace
from homemgr.storage import rooms
from homemgr.work import classic, conversion

if TYPE_CHECKING:
    from homemgr.work.task import Task


def test_a_move_that_was_killed_is_on_disk_when_it_is_done_again(
    ground: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = ground / "moved"
    place.mkdir(0o700)
    home, room = place / "anna.homedir", place / f"{rooms.PREFIX}anna.homedir.0"
    home.mkdir(0o700)
    image = rooms.image_at(str(home))
    synced: list[int] = []
    rooms.make(str(room)).close()
    # Renamed by somebody who got no further.
    home.rename(room / home.name)
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_ino))
    rooms.move(str(home), str(room / home.name), image)
    assert room.stat().st_ino in synced


@pytest.mark.parametrize("step", [classic.take, classic.give_back])
def test_a_classic_home_that_was_moved_is_on_disk_before_its_account_changes(
    ground: Path, monkeypatch: pytest.MonkeyPatch, step: Callable[[Task], object]
) -> None:
    place = ground / step.__name__
    base = place / ".homemgr"
    base.mkdir(0o700, parents=True)
    home, image = place / "rosa", base / "rosa.homedir"
    # Renamed by somebody who got no further.
    there = image if step is classic.take else home
    there.mkdir(0o700)
    told: dict[str, object] = {"home": str(home), "image": str(image)}
    told |= {"tree": rooms.image_at(str(there))}
    told |= {"uid": 60001, "gid": 60001, "files": 1, "directory": str(place)}
    task = SimpleNamespace(
        text=told.__getitem__,
        argument=told.get,
        record=SimpleNamespace(name="rosa"),
        channel=None,
    )
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", lambda fd: synced.append(os.fstat(fd).st_ino))
    step(cast("Task", task))
    assert there.parent.stat().st_ino in synced


def test_what_cannot_be_cleared_away_does_not_hide_what_went_wrong(
    ground: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = ground / "unlucky.homedir"
    home.mkdir(0o700)

    def failing(error: Exception) -> Callable[..., object]:
        def fail(*_: object) -> object:
            raise error

        return fail

    read_only = OSError(errno.EROFS, os.strerror(errno.EROFS))
    monkeypatch.setattr(conversion, "_is_renamed", lambda *_: False)
    monkeypatch.setattr(conversion, "_require_own_ids", lambda *_: None)
    monkeypatch.setattr(conversion, "_Conversion", failing(NoDiskSpace("There is no room.")))
    monkeypatch.setattr(conversion.Target, "clear", failing(read_only))
    told = {"to_path": str(home)}
    task = SimpleNamespace(
        image_path=str(home), text=lambda name: told.get(name, ""), argument=lambda _: None
    )
    with pytest.raises(NoDiskSpace):
        conversion.run(cast("Task", task))
