"""The end of an encrypted home: its device is told to go, or goes already."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from homemgr.files import Fd
from homemgr.kernel import device_mapper
from homemgr.kernel.device_mapper import Device
from homemgr.record.machine import Machine
from homemgr.record.model import UserRecord
from homemgr.storage import luks_devices
from homemgr.storage.kind import Image
from homemgr.storage.luks import Luks
from homemgr.volume.luks import Volume

if TYPE_CHECKING:
    from pathlib import Path

NAME = "home-anna"


@pytest.mark.parametrize("is_going", [True, False])
def test_nobody_looks_at_a_device_that_may_go_any_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, is_going: bool
) -> None:
    removed: list[str] = []

    def status(name: str) -> Device | None:
        device = Device(name, "CRYPT-LUKS2", 0, is_active=True, is_going=is_going)
        told.append(name)
        # One that goes is gone when it is looked for again.
        return None if removed or (is_going and len(told) > 1) else device

    def remove(_control: int, name: str) -> None:
        removed.append(name)
        # As it has gone by itself meanwhile.
        raise OSError(errno.ENXIO, "No such device or address")

    def look(name: str) -> Volume:
        raise AssertionError(f"{name} is looked at")

    told: list[str] = []
    control = tmp_path / "control"
    control.touch()
    monkeypatch.setattr(luks_devices, "status", status)
    monkeypatch.setattr(device_mapper, "open_control", lambda: Fd.open(str(control), os.O_RDONLY))
    monkeypatch.setattr(device_mapper, "remove", remove)
    monkeypatch.setattr(Volume, "of_active", look)
    machine = Machine("0" * 31 + "1", "box", str(tmp_path))
    image = Image("/nowhere/anna.home", UserRecord({"userName": "anna"}).on(machine))
    assert Luks().close(image)
    assert removed == ([] if is_going else [NAME])
