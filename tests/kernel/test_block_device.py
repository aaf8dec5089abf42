"""Devices that become homes: nothing on them is lost before something is written."""

from __future__ import annotations

import os
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from homemgr.errors import BadHomeSize, HomeError, NotSupported, PathExists
from homemgr.files import Fd
from homemgr.kernel import loop
from homemgr.record.machine import Machine
from homemgr.record.model import UserRecord
from homemgr.storage import luks_create, luks_devices
from homemgr.storage.kind import Content, Image, Words

if TYPE_CHECKING:
    from collections.abc import Iterator

MIB = 1 << 20
HERE = Machine("a" * 32, None, "/home")


@contextmanager
def device_with(content: bytes) -> Iterator[tuple[str, Fd]]:
    """A device that holds this, and its path."""
    with tempfile.TemporaryFile(dir="/dev/shm") as file:
        file.write(content)
        file.flush()
        with loop.attach(file.fileno()).device as device:
            yield os.readlink(f"/proc/self/fd/{device.fileno()}"), device


def create_on(path: str, **said: object) -> None:
    """Make a home there."""
    record = UserRecord({"userName": "anna", **said})
    record = record.with_binding(HERE.id, {"imagePath": path})
    with Fd.open("/", os.O_PATH) as parent:
        content = Content(0o700, None, b"", {})
        luks_create.create(Image(path, record.on(HERE)), parent, "", content, Words())


@pytest.fixture(autouse=True)
def without_device_mapper(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing of what is refused here comes so far as to need one."""
    monkeypatch.setattr(luks_devices, "control", lambda: Fd.open("/dev/null", os.O_RDWR))


@pytest.mark.parametrize(
    ("size", "said", "why"),
    [
        (64 * MIB, {"diskSize": 1 << 30}, BadHomeSize),
        (16 * MIB, {}, BadHomeSize),
        (64 * MIB, {"luksSectorSize": 8192}, NotSupported),
    ],
)
def test_a_home_that_is_refused_leaves_the_device_as_it_is(
    size: int, said: dict[str, int], why: type[HomeError]
) -> None:
    # Its ends are blank, as flash is that was erased.
    before = b"\xff" * MIB + b"\x5a\xc3" * (size // 2 - MIB) + bytes(MIB)
    with device_with(before) as (path, device):
        with pytest.raises(why):
            create_on(path, **said)
        os.fsync(device.fileno())
        assert os.pread(device.fileno(), size, 0) == before


@pytest.mark.parametrize(("at", "named"), [(MIB - 1, "first"), (63 * MIB, "last")])
def test_what_bears_no_signature_is_something_too(at: int, named: str) -> None:
    # As encryption without a header, of which anything may be a part.
    before = bytearray(64 * MIB)
    before[at] = 0x5A
    with device_with(bytes(before)) as (path, device):
        with pytest.raises(PathExists, match=rf"in its {named} MiB.*blkdiscard"):
            create_on(path)
        os.fsync(device.fileno())
        assert os.pread(device.fileno(), len(before), 0) == before
