"""Homes in image files that are not encrypted: made, used, judged before they are mounted."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import subprocess
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from homemgr.files import Fd
from homemgr.kernel.identity import filesystem_identity
from homemgr.storage import image_parts, plain_record
from homemgr.wire.messages import BusError
from tests import verifying
from tests.service import people
from tests.service.converting import begin, refusal
from tests.service.site import Service, short, wait_until

MANAGER = ("org.homemgr1", "/org/homemgr1", "org.homemgr1.Manager")
#: It wants one that was just looked over.
NEW_UUID = 'e2fsck -f -p "$1" && tune2fs -U random "$1"'
SIZE = 36 << 20
# Only what is written takes room, which the disk has little of.
SETTINGS = {
    "storage": "directory",
    "org.homemgr.storage": "image",
    "diskSize": SIZE,
    "luksDiscard": True,
    "rateLimitBurst": 1000,
}


@pytest.fixture
def running(service: Service, disk: Path) -> Iterator[Service]:
    """A daemon that all share, and that leaves no device."""
    yield service
    clear(service, disk)


@pytest.fixture
def alone(own_service: Service, disk: Path) -> Iterator[Service]:
    """A daemon that may be killed, and leaves no device."""
    yield own_service
    clear(own_service, disk)


def clear(service: Service, disk: Path) -> None:
    """Remove all homes."""
    service.call("DeactivateAllHomes")
    for name in service.states():
        service.call("RemoveHome", "s", name)
    wait_until(lambda: loops_of(service) == [], "the devices to go")
    verifying.wait_until_unused(disk)


def loops_of(service: Service) -> list[str]:
    """The images of homes behind loop devices."""
    return [path for path in verifying.loops() if path.startswith(str(service.site.base))]


def image_of(service: Service, name: str) -> Path:
    return service.site.base / f"{name}.homeimage"


def create(service: Service, name: str, **fields: object) -> Path:
    service.create(name, **{**SETTINGS, **fields})
    return image_of(service, name)


@pytest.mark.parametrize("kind", ["ext4", "btrfs", "xfs"])
def test_a_home_is_made_used_and_gone(running: Service, kind: str) -> None:
    # Larger than the disk below it.
    size = SIZE if kind == "ext4" else 400 << 20
    image = create(running, "anna", fileSystemType=kind, diskSize=size)
    assert image.stat().st_mode == 0o100600
    assert loops_of(running) == []
    for _ in range(2):
        running.activate("anna")
        assert loops_of(running) == [str(image)]
        home = running.path_of("anna")
        uid = home.stat().st_uid
        assert uid == running.call("GetHomeByName", "s", "anna")[0]
        (entry,) = [line.split() for line in mounts_of(home)]
        assert entry[2] == kind
        assert {"nosuid", "nodev"} <= set(entry[3].split(","))
        with filesystem_identity(uid, uid), (home / "file").open("a") as file:
            file.write("words\n")
        running.deactivate("anna")
        assert loops_of(running) == []
    running.activate("anna")
    assert (running.path_of("anna") / "file").read_text() == "words\n" * 2
    running.deactivate("anna")
    running.call("RemoveHome", "s", "anna")
    assert not image.exists()


def mounts_of(home: Path) -> list[str]:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return [line for line in lines if line.split()[1] == str(home)]


def test_who_asks_is_told_that_it_is_not_encrypted(running: Service) -> None:
    image = create(running, "bert")
    binding = binding_of(running, "bert")
    # Clients of systemd-homed know no such storage: they are told what is true of it.
    assert binding["storage"] == "directory"
    assert binding["imagePath"] == str(image)
    assert running.error("LockHome", "s", "bert") != ""


def test_nothing_is_mounted_before_the_password_was_right(running: Service) -> None:
    image = create(running, "carl")
    whole = spoil(image)
    assert findings_of(running, "carl") == []
    with pytest.raises(BusError, match="while its user is logged in"):
        running.client.call(*MANAGER, "GetExtensionDifferences", "s", ("carl",))
    assert error_of(running, "carl", people.WRONG_PASSWORD) == "BadPassword"
    assert error_of(running, "carl") == "UnrecognizedHomeFormat"
    spoil(image, whole)
    assert error_of(running, "carl") == ""
    assert loops_of(running) == []


def test_an_image_that_nobody_here_signed_is_not_mounted(alone: Service) -> None:
    image = create(alone, "greta")
    spoil(image)
    alone.stop()
    for name in ("greta.identity", "local.private", "local.public"):
        (alone.site.records / name).unlink()
    alone.start()
    assert alone.state("greta") == "unfixated"
    assert error_of(alone, "greta") == "BadSignature"


def test_a_home_found_on_disk_is_used_with_its_password(alone: Service) -> None:
    image = create(alone, "emil")
    alone.stop()
    (alone.site.records / "emil.identity").unlink()
    # Whoever sees it says so, and nobody looks into it before the password is there.
    before = spoil(image)
    alone.start()
    assert alone.state("emil") == "unfixated"
    assert error_of(alone, "emil", people.WRONG_PASSWORD) == "BadPassword"
    spoil(image, before)
    assert error_of(alone, "emil") == ""
    assert binding_of(alone, "emil")["imagePath"] == str(image)
    # Elsewhere, as on a stick that has another name now.
    alone.call("UnregisterHome", "s", "emil")
    stick = alone.site.home_root / "stick"
    stick.mkdir(0o755)
    image.rename(stick / image.name)
    alone.restart()
    assert "emil" not in alone.states()
    alone.call("AdoptHome", "st", str(stick / image.name), 0)
    assert error_of(alone, "emil") == ""
    alone.call("RemoveHome", "s", "emil")
    assert os.listdir(stick) == []
    create(alone, "emil", imagePath=str(stick / image.name))
    assert os.listdir(stick) == [image.name]
    assert error_of(alone, "emil") == ""


def test_two_images_of_a_home_do_not_have_one_file_system(running: Service, ground: Path) -> None:
    create(running, "jana", fileSystemUuid=str(uuid.uuid4()))
    elsewhere = ground / "elsewhere"
    elsewhere.mkdir(0o700)
    refused = refusal(
        running, begin(running, "jana", people.PASSWORD, to=str(elsewhere / "jana.homeimage"))
    )
    assert short(refused.name) == "NotSupported"
    assert "fileSystemUuid" in str(refused)
    assert os.listdir(elsewhere) == []
    elsewhere.rmdir()


def test_a_damaged_file_system_is_not_written_to(running: Service) -> None:
    image = create(running, "ines")
    with Fd.open(str(image), os.O_RDONLY) as fd:
        (start,) = (p.start for p in image_parts.partitions(fd, str(image)) if p.name == "ines")
    whole = image.read_bytes()
    # An error was noticed, and the root directory is gone.
    for change in ("ssv state 2", "clri <2>"):
        argv = ["debugfs", "-w", "-R", change, f"{image}?offset={start}"]
        subprocess.run(argv, check=True, capture_output=True)
    for _ in range(2):
        assert error_of(running, "ines") == "System.Error.EUCLEAN"
        wait_until(lambda: loops_of(running) == [], "the device to go")
    image.write_bytes(whole)
    assert error_of(running, "ines") == ""


def test_what_is_no_home_is_refused_with_the_reason(running: Service) -> None:
    image = create(running, "hugo")
    whole = image.with_name("whole")
    image.rename(whole)
    for start, size in ((0, 0), (1 << 20, 2 << 20), (0, SIZE)):
        with image.open("wb") as file:
            file.write(whole.read_bytes()[:start])
            file.truncate(size)
        assert error_of(running, "hugo") == "UnrecognizedHomeFormat"
        assert findings_of(running, "hugo") == ["image-format"]
    whole.rename(image)
    image.chmod(0o660)
    assert error_of(running, "hugo") == "System.Error.EBADMSG"
    image.chmod(0o600)
    # Only the copy beside the files is lost: the one of this machine says who may log in.
    spoil(image, at=1 << 20)
    assert error_of(running, "hugo", people.WRONG_PASSWORD) == "BadPassword"
    assert error_of(running, "hugo") == ""
    assert findings_of(running, "hugo") == []


def test_what_was_put_in_the_place_of_its_parts_is_refused_until_it_is_adopted(
    running: Service,
) -> None:
    image, places = create(running, "ivan"), ("partitionUuid", "fileSystemUuid")
    first = binding_of(running, "ivan")
    assert all(uuid.UUID(str(first[place])) for place in places)
    for argv, place in (
        (["sfdisk", "--quiet", "--part-uuid", str(image), "2", str(uuid.uuid4())], places[0]),
        (["bash", "-c", NEW_UUID, "-", f"{image}?offset={2 << 20}"], places[1]),
    ):
        subprocess.run(argv, check=True, capture_output=True)
        with pytest.raises(BusError, match=f"expected {first[place]}.*homemgr adopt"):
            running.activate("ivan")
        assert loops_of(running) == []
        running.call("AdoptHome", "st", str(image), 0)
        assert error_of(running, "ivan") == ""
        assert binding_of(running, "ivan")[place] not in (None, first[place])


def test_a_new_password_replaces_the_old_one_in_both_copies(running: Service) -> None:
    image = create(running, "paul", luksDiscard=False)
    assert image.stat().st_blocks * 512 >= SIZE
    old, new = people.secret(people.PASSWORD), people.secret(people.OTHER_PASSWORD)
    running.call("ChangePasswordHome", "sss", "paul", new, old)
    assert error_of(running, "paul") == "BadPassword"
    running.activate("paul", people.OTHER_PASSWORD)
    beside, inside = record_beside(image), running.path_of("paul") / ".identity"
    assert beside == inside.read_bytes()
    assert findings_of(running, "paul") == []
    running.call("ChangePasswordHome", "sss", "paul", old, new)
    assert record_beside(image) == inside.read_bytes() != beside
    running.deactivate("paul")
    assert error_of(running, "paul") == ""


def test_killed_while_a_password_changes_one_of_both_works(alone: Service) -> None:
    create(alone, "quinn")
    words = [people.PASSWORD, people.OTHER_PASSWORD]
    for delay_s in (0.0, 0.02, 0.05, 0.1, 0.2, 0.3):
        old, new = map(people.secret, words)
        changing = alone.begin("ChangePasswordHome", "sss", "quinn", new, old)
        time.sleep(delay_s)
        alone.kill()
        changing.failure()
        alone.start()
        (now,) = [word for word in words if error_of(alone, "quinn", word) == ""]
        words = [now, *(word for word in words if word != now)]
    assert loops_of(alone) == []


def test_killed_while_homes_are_made_nothing_stays(alone: Service) -> None:
    for delay_s in (0.02, 0.1, 0.2, 0.4, 0.8):
        record = people.text(people.record("fred", **SETTINGS))
        making = alone.begin("CreateHome", "s", record)
        time.sleep(delay_s)
        alone.kill()
        making.failure()
        alone.start()
        wait_until(lambda: loops_of(alone) == [], "the devices to go")
        if "fred" in alone.states():
            assert error_of(alone, "fred") == ""
            alone.call("RemoveHome", "s", "fred")
    base = alone.site.base
    left = os.listdir(base) if base.exists() else []
    assert [entry for entry in left if entry.startswith(".#")] == []


def test_killed_while_a_home_comes_and_goes_it_stays_whole(alone: Service) -> None:
    image = create(alone, "rosa")
    for delay_s in (0.0, 0.02, 0.05, 0.1, 0.2):
        for call in (
            ("ActivateHome", "ss", "rosa", people.secret(people.PASSWORD)),
            ("DeactivateHome", "s", "rosa"),
        ):
            pending = alone.begin(*call)
            time.sleep(delay_s)
            alone.kill()
            pending.failure()
            alone.start()
        if alone.state("rosa") != "inactive":
            alone.deactivate("rosa")
        wait_until(lambda: loops_of(alone) == [], "the device to go")
    assert error_of(alone, "rosa") == ""
    assert "user.home-dirty" not in os.listxattr(image)


def test_one_program_has_an_image_at_a_time(running: Service) -> None:
    image = create(running, "theo")
    running.activate("theo")
    assert os.getxattr(image, "user.home-dirty") == b"1"
    with image.open("rb") as other, pytest.raises(BlockingIOError):
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    running.deactivate("theo")
    assert "user.home-dirty" not in os.listxattr(image)
    with image.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
        assert error_of(running, "theo") == "HomeInUse"
    assert error_of(running, "theo") == ""


def test_an_image_needs_its_room_and_its_name(running: Service) -> None:
    elsewhere = {**SETTINGS, "imagePath": str(running.site.base / "ulla.img")}
    record = people.text(people.record("ulla", **elsewhere))
    assert running.error("CreateHome", "s", record) == "InvalidArgs"
    too_large = {**SETTINGS, "diskSize": 1 << 40, "luksDiscard": False}
    record = people.text(people.record("ulla", **too_large))
    assert running.error("CreateHome", "s", record) == "NoDiskSpace"
    assert "ulla" not in running.states()
    assert not image_of(running, "ulla").exists()


def test_a_full_disk_below_a_sparse_image_costs_no_more_than_was_not_written(
    running: Service, disk: Path
) -> None:
    create(running, "vera")
    running.activate("vera")
    home = running.path_of("vera")
    uid = home.stat().st_uid
    with filesystem_identity(uid, uid), (home / "kept").open("wb", buffering=0) as file:
        file.write(b"words\n")
        os.fsync(file.fileno())
    filler = disk / "filler"
    with filler.open("wb") as file, contextlib.suppress(OSError):
        while True:
            os.posix_fallocate(file.fileno(), file.tell(), 1 << 20)
            file.seek(1 << 20, os.SEEK_CUR)
    try:
        with (
            filesystem_identity(uid, uid),
            pytest.raises(OSError, match=r"Input/output error|Read-only|No space"),
        ):
            write_much(home / "lost")
        running.deactivate("vera")
        assert loops_of(running) == []
    finally:
        filler.unlink()
    running.activate("vera")
    assert (home / "kept").read_bytes() == b"words\n"
    with filesystem_identity(uid, uid):
        (home / "more").write_text("words\n")
    running.deactivate("vera")


def write_much(path: Path) -> None:
    """More than the image was given room for so far, piece by piece onto the disk."""
    with path.open("wb", buffering=0) as file:
        for _ in range(30):
            file.write(os.urandom(1 << 20))
            os.fsync(file.fileno())


def error_of(service: Service, name: str, word: str = people.PASSWORD) -> str:
    """Why the home cannot be activated; it is inactive afterwards."""
    try:
        service.activate(name, word)
    except BusError as refused:
        return short(refused.name)
    service.deactivate(name)
    return ""


def findings_of(service: Service, name: str) -> list[str]:
    (text,) = service.client.call(*MANAGER, "CheckHomes", "s", (name,), timeout_s=60).body
    return [entry["code"] for entry in json.loads(str(text))]


def spoil(image: Path, with_: bytes = bytes(1 << 20), at: int = 2 << 20) -> bytes:
    """Overwrite the begin of the file system: who mounts it says so. What was there."""
    with image.open("r+b") as file:
        file.seek(at)
        before = file.read(len(with_))
        file.seek(at)
        file.write(with_)
    return before


def binding_of(service: Service, name: str) -> dict[str, object]:
    """What the record says of the home here."""
    (found,) = service.user_record(name)["binding"].values()  # type: ignore[union-attr]
    assert isinstance(found, dict)
    return dict(found)


def record_beside(image: Path) -> bytes | None:
    with Fd.open(str(image), os.O_RDONLY) as fd:
        found = plain_record.find(fd, image_parts.partitions(fd, str(image)))
        assert found is not None
        return found.read()
