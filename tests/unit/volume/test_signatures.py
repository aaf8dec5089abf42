"""What lies on a device, as libblkid tells it."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from homemgr.files import Fd
from homemgr.volume import signatures

MIB = 1 << 20


def test_only_what_could_be_read_is_called_empty(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.write_bytes(bytes(4 * MIB))
    with Fd.open(str(disk), os.O_RDONLY) as device:
        assert signatures.found_on(device.fileno()) is None
    # Every read from it fails.
    with Fd.open(str(disk), os.O_WRONLY) as device, pytest.raises(OSError) as caught:
        signatures.found_on(device.fileno())
    assert caught.value.errno == errno.EIO
    with disk.open("r+b") as file:
        file.write(b"LUKS\xba\xbe\0\1")
    with Fd.open(str(disk), os.O_RDONLY) as device:
        assert signatures.found_on(device.fileno()) is not None
