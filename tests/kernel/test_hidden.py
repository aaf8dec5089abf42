"""What older kernels need: a mount that is attached for a moment, where only root gets."""

from __future__ import annotations

import dataclasses
import os
import signal
import socket
from contextlib import suppress
from pathlib import Path

import pytest

from homemgr import job
from homemgr.errors import BadPassword
from homemgr.files import Fd
from homemgr.kernel import mounts
from homemgr.kernel.syscall import AT_EMPTY_PATH
from homemgr.record.machine import Machine
from homemgr.record.model import UserRecord
from homemgr.storage import cifs, hidden, paths
from homemgr.storage.cifs import Cifs
from homemgr.storage.kind import Content, Image, Words
from homemgr.storage.plain import Plain
from homemgr.work import remove
from homemgr.work.task import Task
from tests import verifying
from tests.service.site import wait_until

HERE = Machine("a" * 32, None, "/home")


@pytest.fixture
def place(ground: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where mounts are hidden."""
    monkeypatch.setattr(hidden, "_PLACE", str(ground / "volumes"))
    return ground / "volumes"


def new_mount() -> Fd:
    """A detached mount of a new file system."""
    with mounts.fsopen("tmpfs") as fs:
        mounts.fsconfig_create(fs.fileno())
        return mounts.fsmount(fs.fileno(), 0)


def image_at(path: str, **said: object) -> Image:
    record = UserRecord({"userName": "anna", **said})
    return Image(path, record.with_binding(HERE.id, {"imagePath": path}).on(HERE))


def test_a_part_is_cloned_and_nothing_stays(place: Path) -> None:
    mount = new_mount()
    os.mkdir("part", dir_fd=mount.fileno())
    hidden.attach(mount, "home-anna")
    assert place.stat().st_mode & 0o777 == 0o700
    part = os.open("part", os.O_DIRECTORY, dir_fd=mount.fileno())
    clone = mounts.open_tree(part, "", AT_EMPTY_PATH | mounts.OPEN_TREE_CLONE)
    os.close(part)
    mount.close()
    for _ in range(2):
        hidden.take_away("home-anna")
        assert os.listdir(place) == []
    os.mkdir("file", dir_fd=clone.fileno())
    clone.close()
    place.rmdir()


def test_all_that_killed_workers_left_is_taken_away(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> Fd:
        assert os.listdir(place) == []
        raise BadPassword("no")

    monkeypatch.setattr(cifs, "_mount", refuse)
    image = image_at("//server/share", cifsService="//server/share", cifsUserName="anna", uid=60001)
    for opens in (True, False):
        for _ in range(3):
            with new_mount() as mount:
                hidden.attach(mount, "home-anna")
        if opens:
            with pytest.raises(BadPassword):
                Cifs().open(image, Words(), is_active=False)
        else:
            assert Cifs().close(image)
        assert os.listdir(place) == []
    # What somebody else put there is no reason to fail.
    (place / "home-anna" / "other").mkdir(parents=True)
    hidden.take_away("home-anna")
    (place / "home-anna" / "other").rmdir()
    (place / "home-anna").rmdir()
    place.rmdir()


def test_an_image_that_a_killed_worker_had_open_is_opened(
    place: Path, area: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    image = image_at(str(area / "base" / "anna.home"), diskSize=32 << 20)
    with paths.ensure_base(str(area / "base")) as base:
        Plain().create(image, base, "anna.home", Content(0o700, None, b"{}", {}), Words())

    def dying(mount: Fd, name: str) -> None:
        # As kernels before 6.15 need it.
        hidden.attach(mount, name)
        os.kill(os.getpid(), signal.SIGKILL)

    def leave_mounted() -> None:
        child = os.fork()
        if child == 0:
            with suppress(BaseException):
                monkeypatch.setattr(hidden, "make_cloneable", dying)
                Plain().open(image, Words(), is_active=False)
            os._exit(1)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        assert os.listdir(place) == ["home-anna"]

    leave_mounted()
    with Plain().open(image, Words(), is_active=False):
        pass
    assert os.listdir(place) == []
    # Nor does it hold one that is removed.
    leave_mounted()
    record = UserRecord({"userName": "anna"}).with_binding(HERE.id, {"imagePath": image.path})
    arguments: dict[str, object] = {
        "record": record.data,
        "machine": dataclasses.asdict(HERE),
        "step": "set-aside",
    }
    ours, theirs = socket.socketpair()
    with ours, theirs:
        remove.run(Task(job.Request("remove", arguments), [], job.Channel(theirs)))
    assert os.listdir(place) == []
    base = str(area / "base")
    wait_until(lambda: base not in " ".join(verifying.loops()), "the device to go")
    place.rmdir()
