"""The disk fills up while a home arrives: said so, nothing half made stays, and it goes on."""

from __future__ import annotations

import os
import random
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from homemgr import errors
from homemgr.kernel import mounts
from homemgr.kernel.synchronization import syncfs

from .. import homes, volumes
from .test_transfer import Line, Origin, Pair, Target, assert_moved
from .travels import NOBODY, opened

#: Files of the home, and the size of each (bytes).
COUNT, SIZE = 40, 300_000


@pytest.fixture(params=sorted(volumes.KINDS))
def pair(
    request: pytest.FixtureRequest, ground: Path, one_volume: Path, tmp_path: Path
) -> Iterator[Pair]:
    """A home to be sent to a machine whose disk others write to as well."""
    here, there = one_volume / "transfer", ground / "crowded"
    volumes.mount_image(tmp_path / "crowded", request.param, there)
    for area in (here, there):
        (area / ".homemgr").mkdir(parents=True, mode=0o700)
        area.chmod(0o755)
    pair = Pair(Origin(here, "sending"), Target(there, "new"))
    pair.here.mkdir(mode=0o700)
    (pair.here / ".identity").write_text("{}")
    for number in range(COUNT):
        data = random.Random(number).randbytes(SIZE)
        (pair.here / f"file-{number:02}").write_bytes(data)
    homes.give_away(pair.here)
    yield pair
    subprocess.run(["rm", "-rf", here], check=True)
    mounts.umount2(str(there), 0)
    there.rmdir()


def fill(ballast: Path) -> None:
    """Take all the space there is."""
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 16, 1 << 12):
            with suppress(OSError):
                while True:
                    file.write(b"x" * size)
        with suppress(OSError):
            os.fsync(file.fileno())


def make_room(ballast: Path) -> None:
    """Give it back; btrfs does so with the next commit."""
    ballast.unlink()
    with opened(ballast.parent) as directory:
        syncfs(directory.fileno())


def test_a_disk_that_fills_up_is_told_and_the_same_command_goes_on(pair: Pair) -> None:
    ballast = pair.target.area / "ballast"
    Line(pair, COUNT * SIZE // 2, lambda _data, _at: fill(ballast))
    for side in (pair.sender, pair.receiver):
        assert side is not None
        assert isinstance(side.failure, errors.NoDiskSpace)
        assert "make room, and run the same command again" in str(side.failure)
    assert pair.names() == (["alice.homedir"], [".#homemgr-in-alice.0123abcd"])
    pair.target.phase = "receiving"
    with pytest.raises(errors.NoDiskSpace, match="are free"):
        pair.go()
    make_room(ballast)
    result = pair.go()
    assert_moved(pair)
    # Half of it had come before the disk was full, and the ledger on the same disk knows.
    assert int(str(result["sent_bytes"])) < COUNT * SIZE * 0.7


@pytest.mark.parametrize("pair", ["ext4"], indirect=True)
def test_a_directory_that_was_renamed_takes_no_room_twice(pair: Pair) -> None:
    """Where blocks are not shared: less is free than is in it."""
    one, two = pair.here / "one/deep", pair.here / "two"
    for directory in (one, two):
        directory.mkdir(parents=True)
    for path in pair.here.glob("file-*"):
        path.rename(one / path.name)
        (two / path.name).write_bytes(random.Random(path.name).randbytes(SIZE))
    for directory in (one, two):
        directory.chmod(0o500)
    homes.give_away(pair.here)
    pair.go(keep=True)
    pair.target.phase = "receiving"
    (pair.here / "one").rename(pair.here / "a new")
    two.rename(pair.here / "z new")
    # What was a directory may be something else before all of it has gone from its old place.
    for name in ("one", "zz"):
        (pair.here / name).write_text("and more")
        os.chown(pair.here / name, NOBODY, NOBODY)
    found = os.statvfs(pair.target.area)
    with (pair.target.area / "ballast").open("wb") as ballast:
        left = found.f_bavail * found.f_frsize - (17 << 20)
        os.posix_fallocate(ballast.fileno(), 0, left)
    assert 2 * COUNT * SIZE > 17 << 20
    result = pair.go()
    assert_moved(pair)
    assert int(str(result["sent_bytes"])) < COUNT * SIZE // 10
