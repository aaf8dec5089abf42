"""Encrypted homes on block devices: a stick that is theirs alone, or a partition of one."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from homemgr.files import Fd
from homemgr.kernel import loop
from homemgr.kernel.identity import filesystem_identity
from homemgr.volume import probe
from tests import volumes
from tests.service.people import PASSWORD, record, secret, text
from tests.service.site import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.service.site import Service

SETTINGS = {"storage": "luks", "luksPbkdfType": "pbkdf2", "luksPbkdfForceIterations": 1000}
SIZE = 64 << 20


@pytest.fixture
def stick() -> Iterator[str]:
    """An empty device."""
    with device(SIZE) as made:
        yield made


@contextmanager
def device(size: int) -> Iterator[str]:
    """An empty device of so many bytes."""
    with tempfile.TemporaryFile(dir="/dev/shm") as file:
        file.truncate(size)
        with loop.attach(file.fileno()).device as held:
            yield os.readlink(f"/proc/self/fd/{held.fileno()}")


@contextmanager
def partition_of(stick: str) -> Iterator[str]:
    """A partition that has all of the stick."""
    script = "label: gpt\nstart=2048\n"
    argv = ["sfdisk", "--quiet", "--no-reread", stick]
    subprocess.run(argv, input=script.encode(), check=True, capture_output=True)
    subprocess.run(["partx", "--add", stick], check=True)
    try:
        yield f"{stick}p1"
    finally:
        subprocess.run(["partx", "--delete", stick], check=True)


def homes_on(path: str) -> list[probe.UserHome]:
    """What is told of a device."""
    with Fd.open(path, os.O_RDONLY) as device:
        return probe.user_homes(device.fileno())


def content_of(path: str) -> bytes:
    """All that is on a device."""
    with Fd.open(path, os.O_RDONLY) as device:
        return os.pread(device.fileno(), SIZE, 0)


def refused(service: Service, name: str, path: str, **fields: object) -> str:
    """Why no home can be made there."""
    made = record(name, imagePath=path, **{**SETTINGS, **fields})
    return service.error("CreateHome", "s", text(made))


def use(service: Service, name: str) -> None:
    """Log in, write a line, log out."""
    service.activate(name)
    home = service.path_of(name)
    uid = home.stat().st_uid
    with filesystem_identity(uid, uid), (home / "file").open("a") as file:
        file.write("words\n")
    service.deactivate(name)


def test_a_whole_device_becomes_a_home_and_stays_one(running: Service, stick: str) -> None:
    running.create("lena", imagePath=stick, **SETTINGS)
    (found,) = homes_on(stick)
    assert (found.owner, found.offset, found.has_record) == ("lena", 1 << 20, True)
    told = running.user_record("lena")["binding"]
    assert isinstance(told, dict)
    (binding,) = told.values()
    assert isinstance(binding, dict)
    assert binding["imagePath"] == stick
    assert binding["partitionUuid"] == found.partition_uuid
    use(running, "lena")
    running.activate("lena")
    (binding,) = running.user_record("lena")["binding"].values()  # type: ignore[union-attr]
    assert isinstance(binding["fileSystemUuid"], str)
    assert (running.path_of("lena") / "file").read_text() == "words\n"
    with pytest.raises(OSError, match="busy"):
        Fd.open(stick, os.O_RDWR | os.O_EXCL)
    assert refused(running, "maja", stick) == "HomeInUse"
    running.deactivate("lena")
    # Everybody else may have it again, at once.
    Fd.open(stick, os.O_RDWR | os.O_EXCL).close()
    assert running.call("RemoveHome", "s", "lena") == []
    assert "lena" not in running.states()
    assert homes_on(stick) == [found]


UNANSWERED = """
set -e
mount -t tmpfs none /usr/lib/udev/rules.d
mkdir -p /run/udev
mount -t tmpfs none /run/udev
: > /run/udev/control
exec "$@"
"""

PROGRAM = """
import sys, uuid
from homemgr.volume.luks import Layout, Volume
key = bytearray(32)
layout = Layout(str(uuid.uuid4()), "anna", "systemd-home", "aes", "xts-plain64", 512)
with Volume.format_device(sys.argv[1], key, layout) as volume:
    volume.activate("homenew-waiting", key, discards=False)
    volume.deactivate("homenew-waiting")
"""


def test_nobody_waits_for_a_udev_that_has_no_rules_to_answer_by(stick: str) -> None:
    argv = ["unshare", "--mount", "bash", "-c", UNANSWERED, "-", sys.executable, "-c", PROGRAM]
    subprocess.run([*argv, stick], check=True, cwd=ROOT, timeout=30)


def test_a_partition_is_used_as_it_is(running: Service, stick: str) -> None:
    with partition_of(stick) as partition:
        running.create("mara", imagePath=partition, **SETTINGS)
        (found,) = homes_on(partition)
        assert (found.owner, found.offset, found.partition_uuid) == ("mara", 0, None)
        use(running, "mara")
        use(running, "mara")
        running.call("RemoveHome", "s", "mara")


def test_a_part_of_a_device_is_enough(running: Service, stick: str) -> None:
    running.create("nina", imagePath=stick, diskSize=40 << 20, **SETTINGS)
    (found,) = homes_on(stick)
    assert found.size == 40 << 20
    use(running, "nina")
    running.call("RemoveHome", "s", "nina")


def test_what_is_on_a_device_is_never_overwritten(
    running: Service, stick: str, tmp_path: Path
) -> None:
    assert refused(running, "olga", stick, diskSize=1 << 30) == "BadHomeSize"
    assert content_of(stick) == bytes(SIZE)
    subprocess.run(["mkfs.ext4", "-q", "-F", stick], check=True)
    before = content_of(stick)
    assert refused(running, "olga", stick) == "System.Error.EEXIST"
    assert content_of(stick) == before
    volumes.mount_new("ext4", stick, tmp_path)
    assert refused(running, "olga", stick) == "HomeInUse"
    subprocess.run(["umount", str(tmp_path)], check=True)
    # What that leaves is somebody's still.
    subprocess.run(["wipefs", "--quiet", "--all", stick], check=True)
    before = content_of(stick)
    assert refused(running, "olga", stick) == "System.Error.EEXIST"
    assert content_of(stick) == before
    subprocess.run(["blkdiscard", "--zeroout", "--force", stick], check=True)
    running.create("olga", imagePath=stick, **SETTINGS)
    before = content_of(stick)
    assert refused(running, "petra", stick) == "System.Error.EEXIST"
    assert content_of(stick) == before
    use(running, "olga")
    running.call("RemoveHome", "s", "olga")


def test_a_device_that_is_pulled_out_is_absent(running: Service, stick: str) -> None:
    running.create("rosa", imagePath=stick, **SETTINGS)
    away = f"{stick}-away"
    os.rename(stick, away)
    try:
        assert running.error("ActivateHome", "ss", "rosa", secret(PASSWORD)) == "HomeAbsent"
    finally:
        os.rename(away, stick)
    running.restart()
    use(running, "rosa")
    running.call("RemoveHome", "s", "rosa")
