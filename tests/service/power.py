"""A disk that loses power: what was written to it before stays, and nothing that came later.

It is a file on a file system of its own that can be shut down in one moment, whatever still
writes: what file system lies on the disk, and how it flushes, makes no difference. What is in
the caches of that file system is lost, as the disk comes back with what it had.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import subprocess
from pathlib import Path

from homemgr.files import Fd
from homemgr.kernel import mounts
from tests import verifying
from tests.service.site import wait_until

#: FS_IOC_SHUTDOWN, and to write before what has come until then: it is on the disk.
_SHUTDOWN, _WITH_ALL = 0x8004587D, struct.pack("=I", 0)
#: BTRFS_IOC_START_SYNC and BTRFS_IOC_WAIT_SYNC.
_START_SYNC, _WAIT_SYNC = 0x80089418, 0x40089416
_ROOM = 1 << 30

#: What lets go of a file system does so a moment later; on a machine with much to do, some.
WAIT_S = 30.0

#: Nothing is written before it has to be, and no file because another one got its name.
_OPTIONS = {"ext4": ",commit=300,noauto_da_alloc", "xfs": "", "btrfs": ",commit=300"}
#: How each is made, and how large (bytes).
_KINDS = {
    "ext4": (["mkfs.ext4", "-q", "-F", "-b", "4096", "-O", "encrypt"], 512 << 20),
    "xfs": (["mkfs.xfs", "-q"], 512 << 20),
    "btrfs": (["mkfs.btrfs", "-q"], 512 << 20),
}


class FileSystem:
    """One of a kind, mounted at ``path``."""

    def __init__(self, image: Path, path: Path, kind: str) -> None:
        """Make it in a new image."""
        self.path, self._image, self._kind = path, image, kind
        make, size = _KINDS[kind]
        _make(image, size, make)
        path.mkdir()
        self.show()
        path.chmod(0o755)

    def show(self) -> None:
        """Mount it."""
        _mount(self._image, self.path, self._kind, _OPTIONS[self._kind])

    def take_away(self) -> None:
        """Unmount it."""
        _unmount(self.path, self._image)

    def write_names(self) -> None:
        """Have names and sizes written of all that was done, and no contents."""
        with Fd.open(str(self.path), os.O_RDONLY) as top:
            if self._kind == "btrfs":
                transaction = bytearray(8)
                fcntl.ioctl(top.fileno(), _START_SYNC, transaction)
                fcntl.ioctl(top.fileno(), _WAIT_SYNC, transaction)
                return
        # What comes before in the journal is written with it.
        with (self.path / "beside").open("a") as file:
            file.write("x")
            file.flush()
            os.fsync(file.fileno())


class Disk:
    """Some file systems of a kind, by name, which lose power in the same moment."""

    def __init__(self, directory: Path, kind: str, *names: str) -> None:
        """Make it in ``directory``, which is to be in memory: so much is flushed."""
        self._image, self._below = directory / "platter.image", directory / "platter"
        _make(self._image, _ROOM, ["mkfs.ext4", "-q", "-F", "-O", "^has_journal", "-m", "0"])
        self._below.mkdir()
        _mount(self._image, self._below, "ext4", "")
        self.parts = [FileSystem(self._below / name, directory / name, kind) for name in names]

    def lose_power(self) -> None:
        """Nothing reaches the disk from now on."""
        with Fd.open(str(self._below), os.O_RDONLY) as top:
            fcntl.ioctl(top.fileno(), _SHUTDOWN, _WITH_ALL)

    def come_back(self) -> None:
        """Be there again after `lose_power`; nobody may use anything of it."""
        self.take_away()
        _mount(self._image, self._below, "ext4", "")
        for part in self.parts:
            part.show()

    def take_away(self) -> None:
        """Unmount all."""
        for part in self.parts:
            part.take_away()
        _unmount(self._below, self._image)


def _make(image: Path, size: int, make: list[str]) -> None:
    with image.open("wb") as file:
        file.truncate(size)
    subprocess.run([*make, str(image)], check=True, stdout=subprocess.DEVNULL)


def _mount(image: Path, target: Path, kind: str, options: str) -> None:
    words = ["-t", kind, "-o", f"loop{options}", str(image), str(target)]
    subprocess.run(["mount", *words], check=True)


def _unmount(target: Path, image: Path) -> None:
    wait_until(lambda: _is_unmounted(target), f"{target} to be free", WAIT_S)
    # Who had a mount of it in a namespace of his own lets go a moment later.
    wait_until(lambda: str(image) not in verifying.loops(), f"{image} to be free", WAIT_S)


def _is_unmounted(target: Path) -> bool:
    try:
        mounts.umount2(str(target), 0)
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True
