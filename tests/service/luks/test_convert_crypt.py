"""Homes go from every storage to every other, encrypted ones too, and lose nothing on the way."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from homemgr.kernel import mounts
from homemgr.wire.messages import BusError
from tests import homes, verifying, volumes, walks
from tests.service.converting import (
    APART,
    call,
    convert,
    diary,
    logged_in,
    raw,
    storage_of,
    unlike,
    write,
)
from tests.service.luks import test_devices as devices
from tests.service.people import PASSWORD, WRONG_PASSWORD
from tests.service.site import Service
from tests.service.test_attacks import changed
from tests.walks import Stop

if TYPE_CHECKING:
    from homemgr.record.jsontext import Json

#: All that an image needs to be known by a record.
FIELDS: dict[str, Json] = {
    "luksDiscard": True,
    "luksPbkdfType": "pbkdf2",
    "luksPbkdfForceIterations": 1000,
    "rateLimitBurst": 1000,
}
SIZE = 160 << 20
#: xfs has at least 300 MiB.
XFS_SIZE = 320 << 20

IS_SLOW = "HOMEMGR_TEST_FSCRYPT" in os.environ
WALK, MANY = (walks.SLOW, 20) if IS_SLOW else (walks.ENCRYPTED, 30)
SUFFIXES = {"luks": ".home", "image": ".homeimage"}


@pytest.fixture
def places(ground: Path, tmp_path: Path) -> Iterator[dict[str, Path]]:
    """Where homes of a storage have to lie that the usual place cannot hold."""
    if IS_SLOW:
        yield {}
        return
    with btrfs_homes(ground, tmp_path) as homes_there:
        yield {"subvolume": homes_there}


@contextmanager
def btrfs_homes(ground: Path, tmp_path: Path) -> Iterator[Path]:
    """A directory on btrfs where only root gets."""
    btrfs = ground / "btrfs"
    volumes.mount_image(tmp_path / "btrfs", "btrfs", btrfs, 256 << 20)
    (btrfs / "homes").mkdir(0o700)
    yield btrfs / "homes"
    verifying.wait_until_unused(btrfs)
    mounts.umount2(str(btrfs), 0)
    btrfs.rmdir()


@pytest.fixture
def sticks() -> Iterator[list[str]]:
    """Two empty devices that have no names but their nodes."""
    with devices.device(XFS_SIZE) as first, devices.device(XFS_SIZE) as second:
        yield [first, second]


class Traveller:
    """anna, whose home goes from stop to stop, and where it lies."""

    def __init__(self, service: Service, places: dict[str, Path], sticks: list[str]) -> None:
        self._service = service
        self._places = places
        self._sticks = sticks
        self._file_system = "ext4"
        self.image = service.site.base / f"anna{SUFFIXES.get(WALK[0].kind, '.homedir')}"

    def go(self, stop: Stop) -> dict[str, object]:
        """Have it converted; gives what there is to report."""
        options = self._options(stop)
        if not IS_SLOW:
            with pytest.raises(BusError, match="password"):
                convert(self._service, "anna", WRONG_PASSWORD, **options)
        return convert(self._service, "anna", PASSWORD, **options)

    def _options(self, stop: Stop) -> dict[str, object]:
        if stop.file_system not in ("", self._file_system):
            self._file_system = stop.file_system
            kind: dict[str, Json] = {"fileSystemType": stop.file_system}
            self._service.call("UpdateHome", "s", changed(self._service, "anna", **kind))
        if stop.kind == walks.DEVICE:
            self.image = Path(self._sticks[0])
            return {"storage": stop.storage, "to": str(self.image)}
        place = self._places.get(stop.kind, self._service.site.base)
        self.image = place / f"anna{SUFFIXES.get(stop.kind, '.homedir')}"
        size = XFS_SIZE if stop.file_system == "xfs" else SIZE
        return {"storage": stop.storage, "to": str(self.image), "disk_size": size}

    def require_nothing_else(self) -> None:
        """Nothing but the home lies where homes are."""
        places = (self._service.site.base, *self._places.values())
        found = [path for place in places for path in place.iterdir()]
        assert found == ([] if str(self.image) in self._sticks else [self.image])

    def leave(self, old: Path) -> None:
        """Have a device that was left empty again, which is left to people, and take the other."""
        self._sticks.reverse()
        if str(old) in self._sticks:
            assert [home.owner for home in devices.homes_on(str(old))] == ["anna"]
            subprocess.run(["blkdiscard", "--force", str(old)], check=True)


@pytest.mark.timeout(500)
def test_from_every_storage_to_every_other(
    places: dict[str, Path], running: Service, sticks: list[str], tmp_path: Path
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    first, *stops = WALK
    running.create("anna", **{"storage": first.storage, **FIELDS})
    anna = Traveller(running, places, sticks)
    with logged_in(running, "anna"), raw(running, "anna", anna.image, scratch, "ext4") as there:
        homes.make_odd_home(there, many=MANY)
        reference = homes.Seen.of(there, APART)
    lines: list[str] = []
    for stop in stops:
        old = anna.image
        result = anna.go(stop)
        assert (result["storage"], result["phase"]) == (stop.storage, "kept")
        # What stays where it is, is not kept beside the new one.
        assert result["stays_at"] == (str(old) if str(old) in sticks else None)
        # To the record an image that is not encrypted is a directory.
        bound = "directory" if stop.kind == "image" else stop.storage
        assert storage_of(running, "anna") == bound
        call(running, "ConfirmConversion", "s", "anna")
        verifying.wait_until_gone()
        anna.require_nothing_else()
        anna.leave(old)
        with logged_in(running, "anna"):
            with raw(running, "anna", anna.image, scratch, stop.file_system) as there:
                assert unlike(reference, there) == []
            assert (diary(running, "anna") if lines else []) == lines
            write(running, "anna", stop.kind)
        lines.append(stop.kind)
    assert PASSWORD not in running.site.log.read_text()


@pytest.fixture
def other_disk(running: Service) -> Iterator[Path]:
    """Another file system, where only root gets."""
    place = running.site.home_root / "other"
    place.mkdir()
    volumes.mount_new("tmpfs", "tmpfs", place, size="256m", mode="0700")
    yield place
    if running.is_running:
        running.call("DeactivateAllHomes")
        for name in running.states():
            running.call("RemoveHome", "s", name)
    verifying.wait_until_unused(place)
    mounts.umount2(str(place), 0)
    place.rmdir()


def test_an_encrypted_image_goes_to_another_disk_and_back(
    running: Service, other_disk: Path
) -> None:
    """Both are open at once, each as a device of its own."""
    running.create("nora", storage="luks", diskSize=SIZE, **FIELDS)
    with logged_in(running, "nora"):
        write(running, "nora", "here")
    with pytest.raises(BusError, match="password"):
        convert(running, "nora", WRONG_PASSWORD, to=str(other_disk / "nora.home"))
    convert(running, "nora", PASSWORD, to=str(other_disk / "nora.home"))
    verifying.wait_until_gone()
    assert storage_of(running, "nora") == "luks"
    assert (other_disk / "nora.home").is_file()
    assert not (running.site.base / "nora.home").exists()
    with logged_in(running, "nora"):
        assert diary(running, "nora") == ["here"]
        write(running, "nora", "there")
    call(running, "UndoConversion", "ss", "nora", '{"force": true}')
    assert list(other_disk.iterdir()) == []
    with logged_in(running, "nora"):
        assert diary(running, "nora") == ["here"]
