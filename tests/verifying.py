"""Tests that need dm-verity, fs-verity or dm-crypt: when they run, what they look at."""

from __future__ import annotations

import errno
import mmap
import os
import time
from pathlib import Path

from homemgr.kernel import device_mapper, mounts
from tests.signed_images import Maker

#: Set in the machines that tests/world/test_verity.py boots for them; elsewhere they are left
#: out, and tests/world fails if they do.
IGNORED = [] if "HOMEMGR_TEST_VERITY" in os.environ else ["test_*.py"]
IGNORED_WITHOUT_FSVERITY = [] if "HOMEMGR_TEST_FSVERITY" in os.environ else ["test_*.py"]
IGNORED_WITHOUT_CRYPT = [] if "HOMEMGR_TEST_CRYPT" in os.environ else ["test_*.py"]
IGNORED_WITHOUT_CIFS = [] if "HOMEMGR_TEST_CIFS" in os.environ else ["test_*.py"]

CERTIFICATES = Path("/run/verity.d")


def devices() -> list[str]:
    """All devices of the kernel's device-mapper."""
    with device_mapper.open_control() as control:
        return device_mapper.names(control.fileno())


def loops() -> list[str]:
    """The files behind loop devices."""
    found = []
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            found.append(path.read_text(encoding="utf-8").strip())
        except OSError:
            continue
    return sorted(found)


def images() -> list[str]:
    """The images of extensions behind loop devices."""
    return [path for path in loops() if path.endswith("tools.raw")]


def wait_until_gone() -> None:
    """The kernel takes devices away a moment after their last user has gone."""
    deadline = time.monotonic() + 30
    while (left := [*devices(), *images()]) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert left == []


def wait_until_unused(mounted: Path) -> None:
    """A loop device lets go of its file a moment after it is seen to have none any more."""
    deadline = time.monotonic() + 30
    while _is_busy(mounted) and time.monotonic() < deadline:
        time.sleep(0.01)


def _is_busy(mounted: Path) -> bool:
    try:
        # Only marks it: nobody asks twice without using it in between.
        mounts.umount2(str(mounted), mounts.MNT_EXPIRE)
    except OSError as error:
        return error.errno == errno.EBUSY
    raise AssertionError(f"{mounted} was not used since it was last asked for")


def trust(maker: Maker, name: str = "maker") -> Path:
    """Let the signatures of ``maker`` count on this machine."""
    CERTIFICATES.mkdir(exist_ok=True)
    path = CERTIFICATES / f"{name}.crt"
    path.write_bytes(maker.pem)
    return path


def damage(image: Path, at: int) -> None:
    """Change one bit, as an old disk would."""
    content = bytearray(image.read_bytes())
    content[at] ^= 1
    image.write_bytes(content)


def damage_in_place(image: Path, content: bytes) -> None:
    """Change one bit of ``content``, wherever it is in a large file that others have open."""
    with image.open("r+b") as file, mmap.mmap(file.fileno(), 0) as area:
        at = area.find(content)
        assert at >= 0
        area[at] ^= 1
