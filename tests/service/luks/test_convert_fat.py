"""Homes on a file system that gives a file another inode number whenever it is mounted."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from homemgr.kernel import mounts
from homemgr.wire.messages import BusError
from tests import verifying, volumes
from tests.service.converting import call, convert, diary, known, logged_in, rooms, write
from tests.service.luks.test_convert_crypt import FIELDS, SIZE
from tests.service.people import PASSWORD

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.service.site import Service


class Stick:
    """A file system of memory sticks, where only root gets."""

    def __init__(self, image: Path, place: Path) -> None:
        """Make it, and mount it at ``place``."""
        with image.open("wb") as file:
            file.truncate(256 * volumes.MIB)
        subprocess.run(["mkfs.vfat", str(image)], check=True, stdout=subprocess.DEVNULL)
        place.mkdir()
        self._image = image
        self.place = place
        self._mount()

    def _mount(self) -> None:
        argv = ["mount", "-t", "vfat", "-o", "loop,umask=077", str(self._image), str(self.place)]
        subprocess.run(argv, check=True)

    def plug_again(self) -> None:
        """Pull it and put it in again."""
        self.pull()
        self._mount()

    def pull(self) -> None:
        """Pull it while nobody uses it."""
        verifying.wait_until_gone()
        verifying.wait_until_unused(self.place)
        mounts.umount2(str(self.place), 0)


@pytest.fixture
def stick(running: Service, tmp_path: Path) -> Iterator[Stick]:
    """One that is in use until the end of the test."""
    one = Stick(tmp_path / "stick", running.site.home_root / "stick")
    yield one
    for name in running.states():
        running.call("RemoveHome", "s", name)
    one.pull()


def test_it_goes_to_a_stick_and_back_and_each_way_can_be_undone(
    running: Service, stick: Stick
) -> None:
    here, there = running.site.base / "nora.home", stick.place / "nora.home"
    running.create("nora", storage="luks", diskSize=SIZE, **FIELDS)
    with logged_in(running, "nora"):
        write(running, "nora", "here")
    convert(running, "nora", PASSWORD, to=str(there))
    before = there.stat().st_ino
    stick.plug_again()
    assert there.stat().st_ino != before
    # Nobody used it since.
    call(running, "UndoConversion", "ss", "nora", "{}")
    assert (list(stick.place.iterdir()), rooms(running.site.base), known(running)) == ([], [], {})
    convert(running, "nora", PASSWORD, to=str(there))
    stick.plug_again()
    with logged_in(running, "nora"):
        assert diary(running, "nora") == ["here"]
        write(running, "nora", "there")
    with pytest.raises(BusError, match="has been used since"):
        call(running, "UndoConversion", "ss", "nora", "{}")
    call(running, "ConfirmConversion", "s", "nora")
    convert(running, "nora", PASSWORD, to=str(here))
    stick.plug_again()
    call(running, "UndoConversion", "ss", "nora", "{}")
    assert not here.exists()
    stick.plug_again()
    with logged_in(running, "nora"):
        assert diary(running, "nora") == ["here", "there"]
