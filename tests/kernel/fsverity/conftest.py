"""Object stores on a kernel and a file system with fs-verity."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from homemgr.kernel import mounts
from tests import verifying, volumes

collect_ignore_glob = verifying.IGNORED_WITHOUT_FSVERITY


class Disk:
    """An ext4 whose files can be sealed."""

    def __init__(self, image: Path, top: Path) -> None:
        """Make and mount it."""
        self._image = image
        self.top = top
        # Its blocks are at least as large as those that are sealed.
        make = ["mkfs.ext4", "-q", "-F", "-b", "4096", "-O", "verity"]
        volumes.mount_image(image, "ext4", top, make=make)

    def damage(self, content: bytes) -> None:
        """Change one bit of what is stored there, behind the back of the file system."""
        self.forget()
        verifying.damage_in_place(self._image, content)
        self.forget()

    def forget(self) -> None:
        """Let the next read come from the disk."""
        subprocess.run(["sync"], check=True)
        Path("/proc/sys/vm/drop_caches").write_text("3", encoding="ascii")

    def close(self) -> None:
        """Unmount it."""
        mounts.umount2(str(self.top), 0)


@pytest.fixture
def disk(ground: Path, tmp_path: Path) -> Iterator[Disk]:
    """A fresh one."""
    disk = Disk(tmp_path / "image", ground / "sealed")
    yield disk
    disk.close()
