"""A home gets another storage or place: in one step, with the old one kept, whatever is killed."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from homemgr.files import DIRECTORY_FLAGS, Fd
from homemgr.kernel import mounts
from homemgr.kernel.btrfs import is_subvolume
from homemgr.storage import staging
from homemgr.storage.snapshot_shelf import DIRECTORY as SNAPSHOTS
from homemgr.wire.messages import BusError
from tests import verifying, volumes, walks
from tests.service.converting import (
    JOB,
    MANAGER,
    begin,
    call,
    convert,
    diary,
    differences,
    kept,
    known,
    logged_in,
    raw,
    rooms,
    settle,
    storage_of,
    wait,
    write,
)
from tests.service.people import OTHER_PASSWORD, PASSWORD, WRONG_PASSWORD, secret
from tests.service.site import Service, Site, short, wait_until


@pytest.fixture(scope="module")
def on_btrfs(
    new_site: Callable[..., Site], ground: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Service]:
    """A service whose homes lie on btrfs."""
    site = new_site()
    image = tmp_path_factory.mktemp("btrfs") / "image"
    volumes.mount_image(image, "btrfs", site.home_root, 512 * volumes.MIB)
    running = Service(site)
    yield running
    running.call("DeactivateAllHomes")
    running.close()
    mounts.umount2(str(site.home_root), 0)


def is_a_subvolume(path: Path) -> bool:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return is_subvolume(fd)
    finally:
        os.close(fd)


def failure(service: Service, name: str, *words: str, **options: object) -> BusError:
    with pytest.raises(BusError) as refused:
        convert(service, name, *words, **options)
    return refused.value


def snapshot(service: Service, member: str, name: str, *words: str) -> dict[str, object]:
    """Have a job about snapshots done."""
    return wait(service, str(call(service, member, "s" * (len(words) + 1), name, *words)[0]))


def findings(service: Service) -> list[str]:
    """The codes of what is wrong with the machine and all homes."""
    (text,) = call(service, "CheckHomes", "s", "")
    return [one["code"] for one in json.loads(str(text))]


def test_there_and_back_again_nothing_is_lost(on_btrfs: Service) -> None:
    base = on_btrfs.site.base
    image = base / "anna.homedir"
    settle(on_btrfs, "anna")
    convert(on_btrfs, "anna", storage="subvolume")
    reference = kept(on_btrfs, "anna")
    assert differences(reference, image) == []
    # Both lie on one btrfs, and have the blocks of large files in common.
    listing = ["filefrag", "-v", str(image / "_contents/3000001")]
    assert "shared" in subprocess.run(listing, capture_output=True, text=True, check=True).stdout
    for storage in ("directory", "subvolume"):
        result = convert(on_btrfs, "anna", storage=storage)
        assert (result["storage"], result["phase"]) == (storage, "kept")
        assert is_a_subvolume(image) is (storage == "subvolume")
        assert differences(reference, image) == []
        (old,) = rooms(base)
        assert findings(on_btrfs) == []
        assert is_a_subvolume(old / "anna.homedir") is (storage != "subvolume")
        assert storage_of(on_btrfs, "anna") == storage
        with logged_in(on_btrfs, "anna"):
            write(on_btrfs, "anna", storage)
        again = failure(on_btrfs, "anna", storage="directory")
        assert short(again.name) == "HomeExists"
        call(on_btrfs, "ConfirmConversion", "s", "anna")
        assert rooms(base) == []
        assert known(on_btrfs) == {}
    with logged_in(on_btrfs, "anna"):
        assert diary(on_btrfs, "anna") == ["directory", "subvolume"]


def test_an_encrypted_home_opens_with_its_password_and_with_nothing_else(service: Service) -> None:
    image, number = service.site.base / "gina.homedir", 0
    settle(service, "gina", rateLimitBurst=1000)
    reference = None
    for storage in ("fscrypt", "directory"):
        for words in ((), (WRONG_PASSWORD,)):
            with pytest.raises(BusError, match="assword"):
                convert(service, "gina", *words, storage=storage)
            assert (rooms(image.parent), known(service)) == ([], {})
        assert convert(service, "gina", PASSWORD, storage=storage)["storage"] == storage
        if reference is None:
            reference = kept(service, "gina")
            # Nobody reads a name of it now, nor whether the password is right.
            assert "_names" not in os.listdir(image)
            assert service.error("ActivateHome", "ss", "gina", secret(WRONG_PASSWORD)) == (
                "BadPassword"
            )
        with logged_in(service, "gina"):
            assert differences(reference, image) == []
            write(service, "gina", storage)
            number += 1
            assert len(diary(service, "gina")) == number
    # Back in the old one, for which its password is needed: another one would not do.
    new, old = secret(OTHER_PASSWORD), secret(PASSWORD)
    call(service, "ConfirmConversion", "s", "gina")
    convert(service, "gina", PASSWORD, storage="fscrypt")
    call(service, "ConfirmConversion", "s", "gina")
    # Readable snapshots do not stay beside a home that is encrypted again.
    convert(service, "gina", PASSWORD, storage="directory")
    shelf = image.parent / SNAPSHOTS / "gina"
    snapshot(service, "CreateSnapshot", "gina", '{"name": "plain", "full_copy": true}')
    assert (shelf / "plain/home/_names").exists()
    call(service, "UndoConversion", "ss", "gina", "{}")
    assert (rooms(image.parent), known(service), shelf.exists()) == ([], {}, False)
    convert(service, "gina", PASSWORD, storage="directory")
    service.call("ChangePasswordHome", "sss", "gina", new, old)
    with pytest.raises(BusError, match="passwords of gina were changed"):
        call(service, "UndoConversion", "ss", "gina", '{"force": true}')
    service.call("ChangePasswordHome", "sss", "gina", old, new)
    call(service, "UndoConversion", "ss", "gina", '{"force": true}')
    assert storage_of(service, "gina") == "fscrypt"
    with logged_in(service, "gina"):
        assert len(diary(service, "gina")) == number
    assert PASSWORD not in service.site.log.read_text()
    service.call("RemoveHome", "s", "gina")
    assert rooms(image.parent) == []
    subprocess.run(["rm", "-rf", reference], check=True)


def test_a_file_with_more_attributes_than_there_is_room_for_is_named(service: Service) -> None:
    service.create("nele", storage="directory")
    path = service.site.base / "nele.homedir/full"
    path.touch()
    for size in (500, 50, 1):
        with suppress(OSError):
            # What tells how a file is encrypted has to fit beside them.
            for number in range(100):
                os.setxattr(path, f"user.{size}-{number}", b"x" * size)
    os.chown(path, 65534, 65534)
    named = r"attribute 'user\.[\d-]+'.* \(at 'full' in the home area\)"
    with pytest.raises(BusError, match=named):
        convert(service, "nele", PASSWORD, storage="fscrypt")
    assert (rooms(service.site.base), known(service)) == ([], {})
    service.call("RemoveHome", "s", "nele")


def test_into_an_image_file_and_out_of_it_only_by_its_user(service: Service) -> None:
    base = service.site.base
    settle(service, "hugo", rateLimitBurst=1000, luksDiscard=True)
    small = failure(service, "hugo", storage="image", disk_size=32 << 20)
    assert (short(small.name), rooms(base)) == ("BadHomeSize", [])
    assert "Give the new image more bytes by --disk-size=." in str(small)
    assert convert(service, "hugo", storage="image", disk_size=96 << 20)["phase"] == "kept"
    reference = kept(service, "hugo")
    assert [path.name for path in base.glob("hugo.*")] == ["hugo.homeimage"]
    with logged_in(service, "hugo"):
        write(service, "hugo", "image")
    # What a file holds is mounted for nobody but him who could have put it there.
    for words in ((), (WRONG_PASSWORD,)):
        with pytest.raises(BusError, match="assword"):
            convert(service, "hugo", *words, storage="directory")
    convert(service, "hugo", PASSWORD, storage="directory")
    assert differences(reference, base / "hugo.homedir") == []
    with logged_in(service, "hugo"):
        assert diary(service, "hugo") == ["image"]
    service.call("RemoveHome", "s", "hugo")
    assert rooms(base) == []
    subprocess.run(["rm", "-rf", reference], check=True)


def test_an_image_whose_uuid_is_given_goes_nowhere_that_needs_a_second_one(
    service: Service, ground: Path
) -> None:
    base, other = service.site.base, ground / "other"
    uuid = "6a1f60f5-6b5e-4f3c-9f3e-1d6a3a3c0f42"
    other.mkdir()
    volumes.mount_new("tmpfs", "tmpfs", other, size="256m", mode="0700")
    try:
        settle(service, "olga", many=10, fileSystemUuid=uuid, luksDiscard=True)
        # Of a directory it is the first.
        convert(service, "olga", storage="image", disk_size=96 << 20)
        call(service, "ConfirmConversion", "s", "olga")
        assert uuid in str(service.user_record("olga")["binding"])
        refused = failure(service, "olga", PASSWORD, to=str(other / "olga.homeimage"))
        assert short(refused.name) == "NotSupported"
        assert "has fileSystemUuid, and two images cannot have the same" in str(refused)
        assert (os.listdir(other), rooms(base), known(service)) == ([], [], {})
        with logged_in(service, "olga"):
            write(service, "olga", "here")
        service.call("RemoveHome", "s", "olga")
    finally:
        mounts.umount2(str(other), 0)
        other.rmdir()


@pytest.fixture
def disks(service: Service, ground: Path, tmp_path: Path) -> Iterator[dict[str, list[Path]]]:
    """Two for each file system."""
    encrypting = ["mkfs.ext4", "-q", "-F", "-b", "4096", "-O", "encrypt"]
    wanted = {"more": ("ext4", encrypting), "one": ("btrfs", None), "two": ("btrfs", None)}
    for name, (kind, make) in wanted.items():
        image, place = tmp_path / name, ground / name
        volumes.mount_image(image, kind, place, 256 * volumes.MIB, make)
        (place / "homes").mkdir(0o700)
    more, one, two = (ground / name / "homes" for name in wanted)
    yield {"ext4": [service.site.base, more], "btrfs": [one, two]}
    for name in wanted:
        verifying.wait_until_unused(ground / name)
        mounts.umount2(str(ground / name), 0)
        (ground / name).rmdir()


def test_from_one_disk_to_another_it_is_kept_as_either_can(
    service: Service, disks: dict[str, list[Path]], tmp_path: Path
) -> None:
    old = service.site.base / "ines.homedir"
    settle(service, "ines", many=100, rateLimitBurst=1000, luksDiscard=True)
    lines: list[str] = []
    reference = None
    for kind in walks.BETWEEN_DISKS[1:]:
        places = disks["btrfs" if kind == "subvolume" else "ext4"]
        place = next(place for place in places if place != old.parent)
        image = place / f"ines{'.homeimage' if kind == 'image' else '.homedir'}"
        size = {"disk_size": 96 << 20} if kind == "image" else {}
        convert(service, "ines", PASSWORD, storage=kind, to=str(image), **size)
        if reference is None:
            reference = kept(service, "ines")
        else:
            call(service, "ConfirmConversion", "s", "ines")
        assert [path for every in disks.values() for at in every for path in at.iterdir()] == [
            image
        ]
        if kind == "subvolume":
            assert is_a_subvolume(image)
        elif kind == "fscrypt":
            assert "_names" not in os.listdir(image)
        with logged_in(service, "ines"):
            with raw(service, "ines", image, tmp_path, "ext4") as there:
                assert differences(reference, there) == []
            assert (diary(service, "ines") if lines else []) == lines
            write(service, "ines", kind)
        lines.append(kind)
        old = image
    service.call("RemoveHome", "s", "ines")
    assert reference is not None
    subprocess.run(["rm", "-rf", reference], check=True)


def test_undone_it_is_as_before_unless_it_was_used(on_btrfs: Service) -> None:
    base = on_btrfs.site.base
    image = base / "bert.homedir"
    settle(on_btrfs, "bert")
    number = image.stat().st_ino
    convert(on_btrfs, "bert", storage="subvolume")
    snapshot(on_btrfs, "CreateSnapshot", "bert", '{"name": "new"}')
    call(on_btrfs, "UndoConversion", "ss", "bert", "{}")
    # As little encrypted as the old one, and in its place.
    assert os.listdir(base / SNAPSHOTS / "bert") == ["new"]
    assert not is_a_subvolume(image)
    assert storage_of(on_btrfs, "bert") == "directory"
    assert (rooms(base), known(on_btrfs)) == ([], {})
    convert(on_btrfs, "bert", storage="subvolume")
    with logged_in(on_btrfs, "bert"):
        write(on_btrfs, "bert", "lost")
    on_btrfs.restart()
    with pytest.raises(BusError, match="has been used since"):
        call(on_btrfs, "UndoConversion", "ss", "bert", "{}")
    assert is_a_subvolume(image)
    call(on_btrfs, "UndoConversion", "ss", "bert", '{"force": true}')
    assert image.stat().st_ino == number
    with logged_in(on_btrfs, "bert"):
        assert not (on_btrfs.path_of("bert") / "diary").exists()
    # Used by systemd-homed, which knows nothing of it.
    convert(on_btrfs, "bert", storage="subvolume")
    on_btrfs.kill()
    path = on_btrfs.site.records / "bert.identity"
    record = json.loads(path.read_text())
    (status,) = record["status"].values()
    status["lastGoodAuthenticationUSec"] = time.time_ns() // 1000
    path.write_text(json.dumps(record))
    on_btrfs.start()
    with pytest.raises(BusError, match="has been used since"):
        call(on_btrfs, "UndoConversion", "ss", "bert", "{}")
    # What is kept of somebody who goes, goes with him.
    on_btrfs.call("RemoveHome", "s", "bert")
    assert (rooms(base), known(on_btrfs)) == ([], {})


def test_a_new_home_that_is_gone_costs_nobody_the_old_one(on_btrfs: Service) -> None:
    image = on_btrfs.site.base / "dora.homedir"
    settle(on_btrfs, "dora")
    number = image.stat().st_ino
    convert(on_btrfs, "dora", storage="subvolume")
    subprocess.run(["btrfs", "-q", "subvolume", "delete", str(image)], check=True)
    with pytest.raises(BusError, match="may be all that there is"):
        call(on_btrfs, "ConfirmConversion", "s", "dora")
    with pytest.raises(BusError, match="With --force"):
        call(on_btrfs, "UndoConversion", "ss", "dora", "{}")
    call(on_btrfs, "UndoConversion", "ss", "dora", '{"force": true}')
    assert image.stat().st_ino == number
    assert (rooms(image.parent), known(on_btrfs)) == ([], {})
    with logged_in(on_btrfs, "dora"):
        pass
    # Of somebody who goes it is not kept, whatever is left of the new one.
    convert(on_btrfs, "dora", storage="subvolume")
    subprocess.run(["btrfs", "-q", "subvolume", "delete", str(image)], check=True)
    on_btrfs.call("RemoveHome", "s", "dora")
    assert (rooms(image.parent), known(on_btrfs)) == ([], {})


def test_a_new_home_that_was_restored_since_goes_back_like_another(on_btrfs: Service) -> None:
    base = on_btrfs.site.base
    on_btrfs.create("kira", storage="subvolume")
    convert(on_btrfs, "kira", storage="directory")
    snapshot(on_btrfs, "CreateSnapshot", "kira", '{"name": "one"}')
    snapshot(on_btrfs, "RestoreSnapshot", "kira", "one", "{}")
    with pytest.raises(BusError, match="has been used since"):
        call(on_btrfs, "UndoConversion", "ss", "kira", "{}")
    # Without what was kept nothing is moved, and the home stays one.
    (room,) = rooms(base)
    (room / "kira.homedir").rename(base.parent / "away")
    with pytest.raises(BusError, match="that was kept is not at"):
        call(on_btrfs, "UndoConversion", "ss", "kira", '{"force": true}')
    with logged_in(on_btrfs, "kira"):
        write(on_btrfs, "kira", "here")
    (base.parent / "away").rename(room / "kira.homedir")
    # An earlier version had noted what it then could not move.
    on_btrfs.kill()
    path = on_btrfs.site.records / "transfers" / "convert-kira.json"
    state = json.loads(path.read_text())
    path.write_text(json.dumps({**state, "phase": "returning"}))
    on_btrfs.start()
    assert known(on_btrfs)["kira"]["phase"] == "kept"
    with logged_in(on_btrfs, "kira"):
        assert diary(on_btrfs, "kira") == ["here"]
    call(on_btrfs, "UndoConversion", "ss", "kira", '{"force": true}')
    assert is_a_subvolume(base / "kira.homedir")
    assert (rooms(base), known(on_btrfs)) == ([], {})
    with logged_in(on_btrfs, "kira"):
        write(on_btrfs, "kira", "back")
    on_btrfs.call("RemoveHome", "s", "kira")


def test_another_place_on_the_same_disk_is_a_rename(on_btrfs: Service) -> None:
    there = on_btrfs.site.home_root / "elsewhere"
    there.mkdir(0o700)
    settle(on_btrfs, "carl")
    number = (on_btrfs.site.base / "carl.homedir").stat().st_ino
    snapshot(on_btrfs, "CreateSnapshot", "carl", '{"name": "one"}')
    here, taken = on_btrfs.site.base / SNAPSHOTS, there / SNAPSHOTS / "carl"
    # Those of somebody else who was called so.
    (taken / "other").mkdir(0o700, parents=True)
    for directory in (taken.parent, taken):
        directory.chmod(0o700)
    shutil.copy(here / "carl/one/note.json", taken / "other")
    note = json.loads((taken / "other/note.json").read_text())
    (taken / "other/note.json").write_text(json.dumps({**note, "name": "other"}))
    with pytest.raises(BusError, match="holds snapshots already"):
        convert(on_btrfs, "carl", to=str(there / "carl.homedir"))
    assert known(on_btrfs) == {}
    shutil.rmtree(taken / "other")
    result = convert(on_btrfs, "carl", to=str(there / "carl.homedir"))
    assert (result["phase"], result["image_path"]) == ("", str(there / "carl.homedir"))
    assert (there / "carl.homedir").stat().st_ino == number
    assert (known(on_btrfs), rooms(there), rooms(on_btrfs.site.base)) == ({}, [], [])
    on_btrfs.restart()
    with logged_in(on_btrfs, "carl"):
        write(on_btrfs, "carl", "moved")
    assert (os.listdir(taken), (here / "carl").exists()) == (["one"], False)
    convert(on_btrfs, "carl", to=str(on_btrfs.site.base / "carl.homedir"))
    assert (os.listdir(here / "carl"), taken.parent.exists()) == (["one"], False)
    # As after a kill between the two renames: the snapshots have gone, the home has not.
    on_btrfs.kill()
    taken.parent.mkdir(0o700)
    (here / "carl").rename(taken)
    with Fd.open(str(on_btrfs.site.base), DIRECTORY_FLAGS) as parent:
        image = staging.tree_at(parent, "carl.homedir")
    sides = {
        name: {
            "storage": "directory",
            "image_path": str(directory / "carl.homedir"),
            "room": str(directory / f".#homemgr-room-carl-{name}"),
            "image": image,
        }
        for name, directory in (("old", on_btrfs.site.base), ("new", there))
    }
    state = {"user": "carl", "phase": "switching", "is_renamed": True, **sides}
    path = on_btrfs.site.records / "transfers" / "convert-carl.json"
    path.write_text(json.dumps(state))
    on_btrfs.start()
    assert (there / "carl.homedir").stat().st_ino == number
    (listed,) = call(on_btrfs, "ListSnapshots", "s", "carl")
    assert [row["name"] for row in json.loads(str(listed))] == ["one"]
    with logged_in(on_btrfs, "carl"):
        assert diary(on_btrfs, "carl") == ["moved"]
    on_btrfs.call("RemoveHome", "s", "carl")
    assert not taken.exists()


def test_a_home_that_its_user_made_read_only_changes_places_too(on_btrfs: Service) -> None:
    image = on_btrfs.site.base / "lena.homedir"
    on_btrfs.create("lena", storage="subvolume")
    snapshot(on_btrfs, "CreateSnapshot", "lena", '{"name": "one"}')
    subprocess.run(["btrfs", "property", "set", str(image), "ro", "true"], check=True)
    # Nor does it keep anybody from changing the record, such as to close the account.
    new, old = secret(OTHER_PASSWORD), secret(PASSWORD)
    on_btrfs.call("ChangePasswordHome", "sss", "lena", new, old)
    on_btrfs.call("ChangePasswordHome", "sss", "lena", old, new)
    convert(on_btrfs, "lena", storage="directory")
    call(on_btrfs, "UndoConversion", "ss", "lena", "{}")
    # As it was, also in this.
    with pytest.raises(OSError, match="Read-only"):
        (image / "file").touch()
    snapshot(on_btrfs, "RestoreSnapshot", "lena", "one", "{}")
    with logged_in(on_btrfs, "lena"):
        write(on_btrfs, "lena", "writable")
    on_btrfs.call("RemoveHome", "s", "lena")


def test_what_cannot_change_places_stays_the_home(on_btrfs: Service) -> None:
    base, there = on_btrfs.site.base, on_btrfs.site.home_root / "immovable"
    image = base / "mara.homedir"
    there.mkdir(0o700)
    on_btrfs.create("mara", storage="directory")
    snapshot(on_btrfs, "CreateSnapshot", "mara", '{"name": "one"}')
    subprocess.run(["chattr", "+i", str(image)], check=True)
    for options in ({"storage": "subvolume"}, {"to": str(there / "mara.homedir")}):
        assert "not permitted" in str(failure(on_btrfs, "mara", **options))
        assert (known(on_btrfs), rooms(base), os.listdir(there)) == ({}, [], [])
        assert os.listdir(base / SNAPSHOTS / "mara") == ["one"]
        with logged_in(on_btrfs, "mara"):
            pass
    subprocess.run(["chattr", "-i", str(image)], check=True)
    convert(on_btrfs, "mara", to=str(there / "mara.homedir"))
    on_btrfs.call("RemoveHome", "s", "mara")


def test_a_home_where_systemd_homed_has_them_is_made_anew_out_of_reach(
    on_btrfs: Service,
) -> None:
    on_btrfs.site.plant("jana")
    found = on_btrfs.site.home_root / "jana.homedir"
    (on_btrfs.site.base / "jana.homedir").rename(found)
    on_btrfs.restart()
    with logged_in(on_btrfs, "jana"):
        write(on_btrfs, "jana", "found")
    image = on_btrfs.site.base / "jana.homedir"
    assert convert(on_btrfs, "jana", storage="subvolume")["image_path"] == str(image)
    assert is_a_subvolume(image)
    assert not found.exists()
    with logged_in(on_btrfs, "jana"):
        assert diary(on_btrfs, "jana") == ["found"]
    call(on_btrfs, "UndoConversion", "ss", "jana", '{"force": true}')
    assert found.is_dir()
    with logged_in(on_btrfs, "jana"):
        assert diary(on_btrfs, "jana") == ["found"]
    assert rooms(found.parent) + rooms(image.parent) == []


def test_what_cannot_be_is_refused_and_leaves_nothing(
    on_btrfs: Service, ground: Path, tmp_path: Path
) -> None:
    small, base = ground / "small", on_btrfs.site.base
    volumes.mount_image(tmp_path / "image", "ext4", small, 4 * volumes.MIB)
    small.chmod(0o700)
    settle(on_btrfs, "dora")
    try:
        for options, problem in (
            ({"storage": "directory"}, "already"),
            ({"storage": "floppy"}, "is none of"),
            ({"storage": "fscrypt"}, "does not encrypt|No password given"),
            ({"to": str(small / "dora.homedir")}, "bytes are|bytes, .* are free"),
            ({"storage": "subvolume", "to": str(small / "dora.homedir")}, "not on btrfs"),
            ({"to": str(base / "dora.old"), "storage": "subvolume"}, "exists|already"),
            ({"to": str(base / "anna.homedir"), "storage": "subvolume"}, "taken for that"),
            ({"to": str(base / "dora.homeimage")}, "storage image do"),
            ({"to": str(base / ".#homemgr-gone-dora.homedir.0011")}, "does not begin with a dot"),
            ({"to": str(base / SNAPSHOTS / "dora.homedir")}, "homemgr keeps for itself"),
            ({"to": str(base / f"{'d' * 225}.homedir")}, "more than 231 bytes"),
            ({"to": f"{base}/../{base.name}/dora.homedir"}, "no plain absolute path"),
            ({"to": f"/{base}/dora.homedir", "storage": "subvolume"}, "no plain absolute path"),
            ({"to": "/tmp/dora.homedir"}, "[Dd]irectory"),
            ({"to": "dora.homedir"}, "absolute"),
        ):
            (base / "dora.old").mkdir(exist_ok=True)
            with pytest.raises(BusError, match=problem):
                convert(on_btrfs, "dora", **options)
            assert (rooms(base), rooms(small), known(on_btrfs)) == ([], [], {})
        with logged_in(on_btrfs, "dora"):
            assert short(failure(on_btrfs, "dora", storage="subvolume").name) == "HomeBusy"
            write(on_btrfs, "dora", "still there")
    finally:
        mounts.umount2(str(small), 0)


def test_paths_without_end_do_not_fill_the_memory(on_btrfs: Service) -> None:
    on_btrfs.create("nils", storage="directory")
    here = os.open(on_btrfs.site.base / "nils.homedir", os.O_RDONLY)
    for _ in range(800):
        os.mkdir("d" * 255, dir_fd=here)
        below = os.open("d" * 255, os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
        os.fchown(here, 65534, 65534)
    os.close(here)
    assert "too long paths" in str(failure(on_btrfs, "nils", storage="subvolume"))
    assert (known(on_btrfs), rooms(on_btrfs.site.base)) == ({}, [])
    on_btrfs.call("RemoveHome", "s", "nils")


def test_called_off_it_never_was(on_btrfs: Service) -> None:
    base = on_btrfs.site.base
    settle(on_btrfs, "emil")
    with on_btrfs.paused():
        job = begin(on_btrfs, "emil", storage="subvolume")
        wait_until(lambda: "emil" in known(on_btrfs), "the conversion")
        # Neither is it sent, nor does that end what keeps others from it.
        one, other = socket.socketpair()
        with other, Fd(one.detach()) as stream:
            asked, fds = ("emil", "{}", 0, 1), (stream, stream)
            (sent,) = on_btrfs.client.call(*MANAGER, "SendHome", "sshh", asked, fds=fds).body
            with pytest.raises(BusError, match="is being converted"):
                wait(on_btrfs, str(sent))
        refused = on_btrfs.error("ActivateHome", "ss", "emil", secret(PASSWORD))
        assert refused == "org.homemgr1.Error.TransferBusy"
        on_btrfs.client.call(MANAGER[0], job, *JOB, "Cancel", "", ())
    with pytest.raises(BusError, match="called off"):
        wait(on_btrfs, job)
    assert (rooms(base), known(on_btrfs)) == ([], {})
    with logged_in(on_btrfs, "emil"):
        write(on_btrfs, "emil", "here")


#: How much is there when all is killed; beyond 1 the switch has begun. Keys take their time.
MOMENTS = (0.0, 0.3, 0.6, 0.9, 1.0, 2.0)
FEW_MOMENTS = (0.3, 2.0)


@pytest.mark.parametrize(
    ("where", "other", "moments"),
    [("on_btrfs", "subvolume", MOMENTS), ("own_service", "fscrypt", FEW_MOMENTS)],
)
def test_killed_anywhere_there_is_one_home_and_the_same_command_goes_on(
    request: pytest.FixtureRequest, where: str, other: str, moments: tuple[float, ...]
) -> None:
    service: Service = request.getfixturevalue(where)
    base = service.site.base
    image = base / "fred.homedir"
    settle(service, "fred", rateLimitBurst=1000)
    convert(service, "fred", PASSWORD, storage=other)
    reference = kept(service, "fred")
    is_converted, count = True, len(os.listdir(reference))
    outcomes = set()
    for number, share in enumerate(moments):
        storage = "directory" if is_converted else other
        begin(service, "fred", PASSWORD, storage=storage)
        whole = min(share, 1) * count
        wait_until(lambda whole=whole: is_made(base, whole), "so much of it", 30)  # type: ignore[misc]
        if share > 1:
            wait_until(lambda: known(service)["fred"]["phase"] != "making", "the switch", 30)
        service.kill_with_workers()
        service.start()
        state = known(service).get("fred")
        outcomes.add(state is not None)
        assert (state is None) is (rooms(base) == [])
        if state is not None:
            assert state["phase"] == "kept"
            is_converted = not is_converted
        assert is_a_subvolume(image) is (is_converted and other == "subvolume")
        # Nobody reads a name of what is encrypted, also if it was being read when all ended.
        assert ("_names" in os.listdir(image)) is not (is_converted and other == "fscrypt")
        assert storage_of(service, "fred") == (other if is_converted else "directory")
        with logged_in(service, "fred"):
            assert differences(reference, image) == []
            write(service, "fred", "day")
            assert len(diary(service, "fred")) == number + 1
        if state is not None:
            call(service, "ConfirmConversion", "s", "fred")
    assert outcomes == {True, False}


@pytest.mark.parametrize("phase", ["switching", "returning"])
@pytest.mark.parametrize("done", [0, 1, 2])
def test_cut_off_between_two_renames_it_is_done_to_its_end(
    on_btrfs: Service, phase: str, done: int
) -> None:
    name = f"ida-{phase}-{done}"
    on_btrfs.create(name, storage="directory")
    image = on_btrfs.site.base / f"{name}.homedir"
    number = image.stat().st_ino
    convert(on_btrfs, name, storage="subvolume")
    on_btrfs.kill()
    path = on_btrfs.site.records / "transfers" / f"convert-{name}.json"
    state = json.loads(path.read_text())
    path.write_text(json.dumps({**state, "phase": phase}))
    # All of the switch is done by now, and nothing of the return.
    if (phase, done) in (("switching", 0), ("switching", 1), ("returning", 1), ("returning", 2)):
        Path(state["new"]["room"]).mkdir(0o700)
        image.rename(Path(state["new"]["room"], image.name))
    if (phase, done) in (("switching", 0), ("returning", 2)):
        Path(state["old"]["room"], image.name).rename(image)
    on_btrfs.start()
    is_back = phase == "returning"
    assert is_a_subvolume(image) is not is_back
    assert (image.stat().st_ino == number) is is_back
    assert storage_of(on_btrfs, name) == ("directory" if is_back else "subvolume")
    assert [row["phase"] for row in known(on_btrfs).values()] == ([] if is_back else ["kept"])
    with logged_in(on_btrfs, name):
        write(on_btrfs, name, "here")
    on_btrfs.call("RemoveHome", "s", name)
    assert (rooms(image.parent), known(on_btrfs)) == ([], {})


def is_made(base: Path, count: float) -> bool:
    """Whether there is so much of the top directory of a new home, or of an old one."""
    tops = [top for room in rooms(base) for top in room.glob("*.homedir")]
    try:
        return any(len(os.listdir(top)) >= count for top in tops)
    except FileNotFoundError:
        # They have just changed places.
        return False
