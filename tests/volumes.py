"""A mount namespace for the test process, and small real file systems in it."""

from __future__ import annotations

import ctypes
import os
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING

from homemgr.files import Fd
from homemgr.kernel import loop, mounts, process
from homemgr.kernel.syscall import AT_FDCWD, AT_RECURSIVE

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

MIB = 1 << 20

#: Smallest comfortable image, and how to make the file system.
KINDS = {
    "ext4": (64 * MIB, ["mkfs.ext4", "-q", "-F"]),
    "xfs": (320 * MIB, ["mkfs.xfs", "-q", "-f"]),
    "btrfs": (128 * MIB, ["mkfs.btrfs", "-q", "-f"]),
}


@contextmanager
def private_mount_namespace() -> Iterator[None]:
    """Mount what you like: nobody else sees it, and at the end it is gone."""
    cwd = os.getcwd()
    with Fd.open("/proc/self/ns/mnt", os.O_RDONLY) as before:
        process.unshare(process.CLONE_NEWNS)
        mounts.mount_setattr(AT_FDCWD, "/", AT_RECURSIVE, propagation=mounts.MS_PRIVATE)
        try:
            yield
        finally:
            assert ctypes.CDLL(None).setns(before.fileno(), process.CLONE_NEWNS) == 0
            os.chdir(cwd)


def mount_new(kind: str, source: str, target: Path, **options: str) -> None:
    """Bring up a file system of its own and show it at ``target``."""
    with mounts.fsopen(kind) as fs:
        mounts.fsconfig_set_string(fs.fileno(), "source", source)
        for name, value in options.items():
            mounts.fsconfig_set_string(fs.fileno(), name, value)
        mounts.fsconfig_create(fs.fileno())
        with mounts.fsmount(fs.fileno(), 0) as mount:
            flags = mounts.MOVE_MOUNT_F_EMPTY_PATH
            mounts.move_mount(mount.fileno(), "", AT_FDCWD, str(target), flags)


def mount_image(
    image: Path,
    kind: str,
    target: Path,
    size: int | None = None,
    make: Sequence[str] | None = None,
) -> None:
    """Make a file system in a new image file and mount it at ``target``, made if missing."""
    smallest, usual = KINDS[kind]
    with image.open("wb") as file:
        file.truncate(size or smallest)
    subprocess.run([*(make or usual), str(image)], check=True, stdout=subprocess.DEVNULL)
    target.mkdir(exist_ok=True)
    with Fd.open(str(image), os.O_RDWR) as backing:
        device = loop.attach(backing.fileno())
    with device.device:
        mount_new(kind, device.path, target)
    target.chmod(0o755)


def show_file(path: Path, target: Path) -> None:
    """Let ``path`` be seen at ``target`` in this namespace."""
    subprocess.run(["mount", "--bind", str(path), str(target)], check=True)


def fill(directory: Path) -> Path:
    """Take all space there is; returns the file that holds it."""
    ballast = directory / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while True:
                    file.write(b"x" * size)
            except OSError:
                continue
    return ballast
