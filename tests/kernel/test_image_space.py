"""Room for images is reserved and given back where it can be, and nobody waits for it."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from homemgr.files import Fd
from homemgr.kernel import mounts, space
from homemgr.storage import image_space
from tests import volumes
from tests.service.site import children

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROOM = 1 << 20


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system with little room."""
    place = tmp_path / "small"
    place.mkdir()
    volumes.mount_new("tmpfs", "tmpfs", place, size=str(ROOM))
    yield place
    mounts.umount2(str(place), 0)


def reserved(place: Path, size: int) -> int:
    """Bytes that a sparse file of this size has on disk after it was reserved."""
    path = place / "image"
    with Fd.open(str(path), os.O_RDWR | os.O_CREAT, 0o600) as image:
        os.ftruncate(image.fileno(), size)
        image_space.reserve(image, str(path))
        return os.fstat(image.fileno()).st_blocks * 512


def test_an_image_that_fits_gets_all_its_room(
    small: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert reserved(small, ROOM // 2) == ROOM // 2
    assert caplog.text == ""


def test_an_image_that_does_not_fit_takes_nothing_from_others(
    small: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert reserved(small, 2 * ROOM) == 0
    assert "writing to the home fails" in caplog.text


def test_what_a_file_system_cannot_give_back_is_no_news(
    small: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Fd.open(str(small), os.O_RDONLY) as directory:
        image_space.give_back(directory, str(small))
    assert caplog.text == ""


def test_nobody_waits_for_a_device_that_does_not_answer(
    small: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(space, "trim", lambda *_range: signal.pause())
    monkeypatch.setattr(image_space, "_PATIENCE_S", 0.1)
    before = children(os.getpid())
    with Fd.open(str(small), os.O_RDONLY) as directory:
        image_space.give_back(directory, "/dev/disk/by-uuid/0")
    assert "it took longer than 0.1 s" in caplog.text
    assert children(os.getpid()) == before


def told_by(
    place: Path, monkeypatch: pytest.MonkeyPatch, pause_s: float = 0.0
) -> list[tuple[int, int]]:
    """Which ranges are given back by this process, each of which takes its time."""
    ranges: list[tuple[int, int]] = []
    parent = os.getpid()

    def trim(_fd: int, start: int = 0, length: int = space.EVERYTHING) -> None:
        if os.getpid() != parent:
            (place / "other").write_text(f"{start} {length}")
            return
        ranges.append((start, length))
        time.sleep(pause_s)

    monkeypatch.setattr(space, "trim", trim)
    monkeypatch.setattr(image_space, "file_system_type", lambda _fd: 0xEF53)
    monkeypatch.setattr(image_space, "_TRIMMED", ROOM // 4)
    with Fd.open(str(place), os.O_RDONLY) as directory:
        image_space.give_back(directory, str(place))
    return ranges


@pytest.mark.parametrize(("kind", "mib"), [("ext4", 192), ("xfs", 320), ("btrfs", 256)])
def test_all_that_is_deleted_is_given_back(tmp_path: Path, kind: str, mib: int) -> None:
    image, place = tmp_path / "image", tmp_path / "place"
    volumes.mount_image(image, kind, place, mib << 20)
    try:
        empty = image.stat().st_blocks * 512
        content = os.urandom(1 << 20)
        with (place / "file").open("wb") as file:
            for _ in range(80):
                file.write(content)
        os.sync()
        assert image.stat().st_blocks * 512 > 80 << 20
        (place / "file").unlink()
        os.sync()
        deadline = time.monotonic() + 20
        with Fd.open(str(place), os.O_RDONLY) as directory:
            # Xfs frees in the background what was deleted, and there is nothing to see of it.
            while image.stat().st_blocks * 512 >= empty + (16 << 20):
                assert time.monotonic() < deadline, image.stat().st_blocks * 512
                image_space.give_back(directory, str(place))
                os.sync()
    finally:
        mounts.umount2(str(place), 0)


def test_a_small_image_is_given_back_by_no_other_process(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = ROOM // 4
    every = [(0, part), (part, part), (2 * part, part), (3 * part, space.EVERYTHING)]
    assert told_by(small, monkeypatch) == every
    assert not (small / "other").exists()


def test_what_is_left_after_a_moment_another_process_gives_back(
    small: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_space, "_MOMENT_S", 0.05)
    assert told_by(small, monkeypatch, 0.03) == [(0, ROOM // 4), (ROOM // 4, ROOM // 4)]
    assert (small / "other").read_text() == f"{ROOM // 2} {space.EVERYTHING}"
