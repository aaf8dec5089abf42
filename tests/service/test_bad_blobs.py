"""Files that come with a record: which are taken, and that others leave nothing behind."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from homemgr.files import Fd
from homemgr.wire.messages import BusError
from tests.service import people
from tests.service.site import MANAGER, MANAGER_PATH, NAME, Service, wait_until

MIB = 1 << 20
INVALID = "org.freedesktop.DBus.Error.InvalidArgs"


@pytest.fixture(autouse=True)
def nothing_changes(service: Service) -> Iterator[None]:
    """Whatever was refused, disk and list of homes are as before."""
    service.site.base.mkdir(0o700, exist_ok=True)
    before, homes = service.site.digest(), service.states()
    yield
    assert service.site.digest() == before
    assert service.states() == homes


def refused_blobs(
    service: Service, blobs: dict[str, int], fds: list[Fd], **fields: object
) -> BusError:
    record = people.text(people.record("kim", **fields))
    return service.failure("CreateHomeEx", "sa{sh}t", record, blobs, 0, fds=fds)


@pytest.fixture
def picture(tmp_path: Path) -> Iterator[Fd]:
    (tmp_path / "picture").write_bytes(b"png" * 100)
    with Fd.open(str(tmp_path / "picture"), os.O_RDONLY) as fd:
        yield fd


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", ".hidden", "a b", "ü", "x" * 256])
def test_blob_with_a_bad_name_is_refused(service: Service, picture: Fd, name: str) -> None:
    failure = refused_blobs(service, {name: 0}, [picture])
    assert failure.name == INVALID
    assert "blob" in failure.message


@pytest.mark.parametrize("kind", ["directory", "path only", "write only", "pipe", "device"])
def test_blob_that_is_no_readable_file_is_refused(
    service: Service, tmp_path: Path, kind: str
) -> None:
    (tmp_path / "file").write_bytes(b"x")
    read_end, write_end = os.pipe()
    os.close(write_end)
    number = {
        "directory": lambda: os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY),
        "path only": lambda: os.open(tmp_path / "file", os.O_PATH),
        "write only": lambda: os.open(tmp_path / "file", os.O_WRONLY),
        "pipe": lambda: os.dup(read_end),
        "device": lambda: os.open("/dev/zero", os.O_RDONLY),
    }[kind]()
    os.close(read_end)
    with Fd(number) as fd:
        failure = refused_blobs(service, {"avatar": 0}, [fd])
    assert failure.name == INVALID
    assert "avatar" in failure.message


def test_blob_that_is_too_large_is_refused(service: Service, tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(65 * MIB)
    with Fd.open(str(tmp_path / "large"), os.O_RDONLY) as fd:
        failure = refused_blobs(service, {"avatar": 0}, [fd])
    assert failure.name == INVALID


def test_blobs_that_are_too_large_together_are_refused(service: Service, tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as file:
        file.truncate(40 * MIB)
    fds = [Fd.open(str(tmp_path / "large"), os.O_RDONLY) for _ in range(2)]
    failure = refused_blobs(service, {"avatar": 0, "background": 1}, fds)
    for fd in fds:
        fd.close()
    assert failure.name == INVALID


def test_blobs_and_manifest_must_agree(service: Service, picture: Fd) -> None:
    for manifest in ({"other": "0" * 64}, {"avatar": "0" * 64}, {}, "x", {"avatar": 5}):
        failure = refused_blobs(service, {"avatar": 0}, [picture], blobManifest=manifest)
        assert failure.name == INVALID
        assert failure.message.startswith(".blobManifest")


def test_more_blobs_than_a_message_may_carry_are_refused(service: Service, picture: Fd) -> None:
    names = {f"blob{number}": number for number in range(17)}
    fds = [Fd(os.dup(picture.fileno())) for _ in names]
    assert refused_blobs(service, names, fds).name != ""
    for fd in fds:
        fd.close()


def test_good_blobs_reach_both_places_and_go_with_the_home(service: Service, picture: Fd) -> None:
    record = people.text(people.record("lea"))
    service.call("CreateHomeEx", "sa{sh}t", record, {"avatar": 0}, 0, fds=[picture])
    public = service.site.blobs / "lea" / "avatar"
    embedded = service.site.base / "lea.homedir" / ".identity-blob" / "avatar"
    assert public.read_bytes() == embedded.read_bytes() == b"png" * 100
    assert embedded.stat().st_uid == 65534
    shown = service.user_record("lea")
    assert shown["blobDirectory" if "blobDirectory" in shown else "binding"]
    assert isinstance(shown["blobManifest"], dict)
    assert set(shown["blobManifest"]) == {"avatar"}
    service.activate("lea")
    service.deactivate("lea")
    update = people.text(people.record("lea"))
    service.call("UpdateHomeEx", "sa{sh}t", update, {}, 0)
    assert not public.exists()
    assert not embedded.exists()
    service.call("RemoveHome", "s", "lea")
    assert not public.parent.exists()


def test_update_without_blobs_leaves_them(service: Service, picture: Fd) -> None:
    record = people.text(people.record("mia"))
    service.call("CreateHomeEx", "sa{sh}t", record, {"avatar": 0}, 0, fds=[picture])
    update = service.user_record("mia")
    for section in ("binding", "status", "signature"):
        del update[section]
    now_usec = time.time_ns() // 1000
    update |= {"lastChangeUSec": now_usec, "secret": {"password": [people.PASSWORD]}}
    manifest = update.pop("blobManifest")
    service.call("UpdateHome", "s", people.text(update))
    assert service.user_record("mia")["blobManifest"] == manifest
    assert (service.site.blobs / "mia" / "avatar").exists()
    service.call("RemoveHome", "s", "mia")


def test_a_picture_is_shown_again_of_a_home_that_was_forgotten(
    service: Service, picture: Fd
) -> None:
    record = people.text(people.record("ute"))
    service.call("CreateHomeEx", "sa{sh}t", record, {"avatar": 0}, 0, fds=[picture])
    public = service.site.blobs / "ute" / "avatar"
    service.call("UnregisterHome", "s", "ute")
    assert not public.exists()
    service.activate("ute")
    # homectl hands over all that is public with the next update: what is missing would be gone.
    assert public.read_bytes() == b"png" * 100
    service.deactivate("ute")
    service.call("RemoveHome", "s", "ute")


def test_readers_that_hang_keep_nobody_from_handing_over_files(
    service: Service, picture: Fd
) -> None:
    record = people.text(people.record("nora"))
    # A regular file to fstat(2), and one that has no end to read(2).
    with Fd.open("/proc/kmsg", os.O_RDONLY) as endless, ExitStack() as stack:
        target = (NAME, MANAGER_PATH, MANAGER, "CreateHomeEx", "sa{sh}t")
        arguments = (record, {"avatar": endless}, 0)
        pool = stack.enter_context(ThreadPoolExecutor(12))
        clients = [stack.enter_context(service.new_client()) for _ in range(12)]
        hung = [pool.submit(c.call, *target, arguments, timeout_s=60) for c in clients]
        wait_until(lambda: len(service.workers()) == 12, "workers to read")
        begin = time.monotonic()
        service.call("CreateHomeEx", "sa{sh}t", record, {"avatar": 0}, 0, fds=[picture])
        assert time.monotonic() - begin < 3
        for call in hung:
            with pytest.raises(BusError, match="avatar could not be read"):
                call.result()
    wait_until(lambda: service.workers() == [], "the readers to end")
    service.call("RemoveHome", "s", "nora")
