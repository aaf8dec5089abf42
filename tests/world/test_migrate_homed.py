"""Homes that systemd-homed made move to another machine by homemgr, and into its systemd-homed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .. import homes
from . import machines, users
from .box import Box
from .hands import give_back, take_over
from .migration import IDENTITY, forget, kept, migrate, on_disk
from .users import User

PICTURE = b"\x89PNG any picture"


@pytest.fixture(scope="module")
def pair(machine: None) -> Iterator[tuple[Box, Box]]:
    """Two machines; on the first systemd-homed serves, and /home can have subvolumes."""
    one = Box("both", base="sid", file_system="btrfs")
    with one, Box(base="sid") as other, machines.wired(one, other):
        yield one, other


@pytest.fixture
def here(pair: tuple[Box, Box]) -> Iterator[Box]:
    """The first machine, back with systemd-homed afterwards."""
    box = pair[0]
    yield box
    give_back(box)


@pytest.fixture
def people(here: Box, there: Box) -> Iterator[list[User]]:
    """Users of systemd-homed with files and a picture, one of each storage."""
    here.path("/root/picture.png").write_bytes(PICTURE)
    made = []
    for storage in ("directory", "subvolume"):
        user = users.create(here, f"--storage={storage}", "--avatar=/root/picture.png")
        homes.make_odd_home(here.path(user.image))
        made.append(user)
    yield made
    for box in (here, there):
        if box.daemon != "homemgr":
            take_over(box)
        for user in made:
            forget(box, user)


def move(user: User, target: Box) -> User:
    """The same person on the other machine, with the same uid and files."""
    uid = user.uid
    migrate(user.box, user, target.name)
    new = machines.at(target, user)
    assert new.uid == uid
    assert homes.compare(kept(user.box, user), on_disk(target, new), leave_out=IDENTITY) == []
    return new


def assert_opens(user: User) -> None:
    """The home is the user's while it is active."""
    with user.active():
        found = user.box.path(f"{user.home}/_large/0042")
        assert found.read_text() == "42"
        assert found.stat().st_uid == user.uid


def test_homes_of_systemd_homed_go_there_and_come_back(
    here: Box, there: Box, people: list[User]
) -> None:
    images = [here.path(user.image) for user in people]
    take_over(here)
    moved = [move(user, there) for user in people]
    for user in moved:
        assert user.ssh("cat _large/0042").stdout == "42"
        user.wait_until("inactive")
        picture = there.path(f"/var/cache/systemd/home/{user.name}/avatar")
        assert picture.read_bytes() == PICTURE
        user.homectl("passwd", new_password="new there")
        user.password = "new there"
    give_back(there)
    for user in moved:
        assert_opens(user)
        user.homectl("update", "--real-name=Changed by homed")
    take_over(there)
    back = [move(user, here) for user in moved]
    assert not any(image.exists() for image in images)
    give_back(here)
    for user in back:
        assert user.record()["realName"] == "Changed by homed"
        assert_opens(user)
