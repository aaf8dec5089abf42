"""A conversion on a disk that is, or becomes, too small: refused by numbers, and nothing stays."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from homemgr.kernel import mounts
from homemgr.wire.messages import BusError
from tests import volumes
from tests.service.converting import (
    JOB,
    MANAGER,
    begin,
    convert,
    known,
    logged_in,
    refusal,
    rooms,
    storage_of,
    undo,
    wait,
    write,
)
from tests.service.site import Service, Site, short, wait_until
from tests.volumes import MIB, fill

PROPERTIES = "org.freedesktop.DBus.Properties"
FILES, FILE_BYTES = 2000, 16 << 10


@pytest.fixture(scope="module")
def roomy(new_site: Callable[..., Site]) -> Iterator[Service]:
    """A service whose records lie on a disk of their own, as small as disks get."""
    site = new_site()
    for directory in (site.records, site.runtime / "home"):
        directory.mkdir(parents=True)
        volumes.mount_new("tmpfs", "tmpfs", directory, size="4m", mode="0700")
    running = Service(site)
    yield running
    running.call("DeactivateAllHomes")
    running.close()
    for directory in (site.records, site.runtime / "home"):
        mounts.umount2(str(directory), mounts.MNT_DETACH)


@pytest.fixture
def small(ground: Path, tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Makes another disk for homes."""
    target = ground / "small"

    def make(kind: str, size: int, words: Sequence[str] | None = None) -> Path:
        volumes.mount_image(tmp_path / "image", kind, target, size, words)
        target.chmod(0o700)
        return target

    yield make
    mounts.umount2(str(target), 0)
    target.rmdir()


@pytest.fixture(scope="module")
def home(roomy: Service) -> str:
    """A user with 32 MiB in some thousand files, which is some time of copying."""
    roomy.create("anna", storage="directory", luksDiscard=True)
    top = roomy.site.base / "anna.homedir"
    for number in range(FILES):
        path = top / f"{number}"
        path.write_bytes(os.urandom(FILE_BYTES))
        os.chown(path, 65534, 65534)
    return "anna"


def assert_as_before(service: Service, name: str, *places: Path) -> None:
    """The old home is the home and can be used; nobody knows of another."""
    assert known(service) == {}
    for place in (service.site.base, *places):
        assert rooms(place) == []
        assert not list(place.glob(f"{name}.homeimage"))
    assert storage_of(service, name) == "directory"
    with logged_in(service, name):
        assert len(list(service.path_of(name).glob("[0-9]*"))) == FILES


@contextmanager
def stopped_in_the_middle(service: Service, job: str) -> Iterator[None]:
    """Hold the worker still while it copies."""

    def progress() -> dict[str, int | str]:
        told = service.client.call(MANAGER[0], job, PROPERTIES, "Get", "ss", (*JOB, "Progress"))
        found: dict[str, int | str] = json.loads(str(told.body[0].value))  # type: ignore[attr-defined]
        return found

    wait_until(lambda: progress().get("phase") == "copying", "the copying", 30)
    (worker,) = service.workers()
    os.kill(worker, signal.SIGSTOP)
    try:
        assert (progress()["phase"], service.workers()) == ("copying", [worker])
        yield
    finally:
        os.kill(worker, signal.SIGCONT)


@pytest.mark.parametrize(("kind", "storage"), [("ext4", "directory"), ("btrfs", "subvolume")])
def test_a_disk_that_fills_up_meanwhile_leaves_the_old_home(
    roomy: Service, home: str, small: Callable[..., Path], kind: str, storage: str
) -> None:
    there = small(kind, 160 * MIB)
    options = {"storage": storage, "to": str(there / f"{home}.homedir")}
    job = begin(roomy, home, **options)
    with stopped_in_the_middle(roomy, job):
        ballast = fill(there)
    failure = refusal(roomy, job)
    assert short(failure.name) == "NoDiskSpace"
    found = re.search(r"The disk of (\S+) is full\..* (\d+) of the (\d+) bytes", str(failure))
    assert found is not None, failure
    assert found[1] == str(there)
    missing, whole = int(found[2]), int(found[3])
    assert FILES * FILE_BYTES <= whole < FILES * FILE_BYTES + MIB
    assert 0 < missing <= whole
    assert_as_before(roomy, home, there)
    ballast.unlink()
    assert convert(roomy, home, **options)["phase"] == "kept"
    with logged_in(roomy, home):
        write(roomy, home, "there")
    undo(roomy, home)
    assert_as_before(roomy, home, there)


def test_an_image_that_grows_on_a_disk_that_is_full_is_not_kept(
    roomy: Service, home: str, small: Callable[..., Path]
) -> None:
    there = small("ext4", 128 * MIB)
    options = {
        "storage": "image", "disk_size": 96 * MIB, "to": str(there / f"{home}.homeimage"),
    }  # fmt: skip
    ballast = there / "ballast"
    ballast.write_bytes(bytes(80 * MIB))
    # It would fit into the image, but not both on the disk.
    failure = refusal(roomy, begin(roomy, home, **options))
    assert short(failure.name) == "NoDiskSpace"
    told = re.search(r"needs (\d+) bytes, (\d+) are free .*: (\d+) are missing", str(failure))
    assert told is not None, failure
    needed, free, missing = map(int, told.groups())
    assert missing == needed - free > 0
    assert_as_before(roomy, home, there)
    ballast.unlink()
    for is_copying in (False, True):
        job = begin(roomy, home, **options)
        if is_copying:
            with stopped_in_the_middle(roomy, job):
                fill(there)
        else:
            wait_until(lambda: any(any(room.iterdir()) for room in rooms(there)), "the image", 30)
            fill(there)
        failure = refusal(roomy, job)
        assert short(failure.name) == "NoDiskSpace"
        assert f"The disk of {there} is full." in str(failure)
        assert_as_before(roomy, home, there)
        ballast.unlink()
    assert convert(roomy, home, **options)["phase"] == "kept"
    undo(roomy, home)


def test_what_is_written_meanwhile_is_not_lost(
    roomy: Service, home: str, small: Callable[..., Path]
) -> None:
    there, path = small("ext4", 160 * MIB), roomy.site.base / f"{home}.homedir/!first"
    image = there / f"{home}.homedir"

    def count() -> int:
        return sum(len(list(room.glob("*.homedir/*"))) for room in rooms(there))

    said = ""
    # On a busy machine it may be over before it is seen to have begun.
    for _ in range(5):
        job = begin(roomy, home, to=str(image))
        # By then names that come before are not looked at any more.
        wait_until(lambda: count() > FILES // 50 or image.exists(), "some files", 30)
        path.write_text("meanwhile")
        try:
            wait(roomy, job)
        except BusError as error:
            said = str(error)
            break
        finally:
            path.unlink(missing_ok=True)
        undo(roomy, home)
    assert "were changed while it was copied" in said
    assert_as_before(roomy, home, there)


def test_a_disk_of_too_few_inodes_is_refused(
    roomy: Service, home: str, small: Callable[..., Path]
) -> None:
    there = small("ext4", 160 * MIB, ["mkfs.ext4", "-q", "-F", "-N", "1024"])
    failure = refusal(roomy, begin(roomy, home, to=str(there / f"{home}.homedir")))
    told = re.search(r"needs (\d+) new files and .*, (\d+) can .*: (\d+) are", str(failure))
    assert told is not None, failure
    needed, free, missing = map(int, told.groups())
    assert missing == needed - free > FILES - 1024
    assert_as_before(roomy, home, there)


def test_records_that_cannot_be_written_are_found_out_before_anything_is_moved(
    roomy: Service, home: str, small: Callable[..., Path]
) -> None:
    there = small("ext4", 96 * MIB)
    options = {"to": str(there / f"{home}.homedir")}
    for directory in (roomy.site.records, roomy.site.runtime / "home"):
        ballast = fill(directory)
        assert short(refusal(roomy, begin(roomy, home, **options)).name) == "NoDiskSpace"
        ballast.unlink()
        assert_as_before(roomy, home, there)
    # What fills up once it has begun does not keep the new home from becoming the home.
    job = begin(roomy, home, **options)
    wait_until(lambda: rooms(there) != [], "the room", 30)
    ballast = fill(roomy.site.records)
    try:
        assert wait(roomy, job)["phase"] == "kept"
    finally:
        ballast.unlink()
    with logged_in(roomy, home):
        write(roomy, home, "there")
    undo(roomy, home)
    assert_as_before(roomy, home, there)
