"""Homes that are btrfs subvolumes move between two machines while their users work in them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest

from .. import homes
from . import machines, users
from .box import Box, wait_for
from .migration import IDENTITY, forget, homemgr, is_usable, kept, migrate, on_disk
from .users import NOBODY, User

#: The top of every subvolume has this inode number.
TOP_INODE = 256

#: Changes files for as long as its input is open.
WORK = "i=0; while read -t 0.02 x; [ $? -gt 128 ]; do i=$((i+1)); echo $i >w-$((i%50)); done"


@pytest.fixture(scope="module")
def pair(machine: None) -> Iterator[tuple[Box, Box]]:
    """Two machines, both with btrfs."""
    one, other = Box(file_system="btrfs"), Box(base="sid", file_system="btrfs")
    with one, other, machines.wired(one, other):
        yield one, other


@pytest.fixture
def alice(here: Box, there: Box) -> Iterator[User]:
    """A user whose home is a subvolume full of odd things."""
    user = users.create(here, "--storage=subvolume")
    top = on_disk(here, user)
    assert top.stat().st_ino == TOP_INODE
    (top / "odd").mkdir()
    homes.make_odd_home(top / "odd")
    yield user
    for box in (here, there):
        forget(box, user)


def snapshots(box: Box) -> list[str]:
    return [name for name in os.listdir(box.path("/home/.homemgr")) if "snap" in name]


def test_a_home_moves_from_snapshots_while_its_user_works(
    here: Box, there: Box, alice: User
) -> None:
    session = ["sshpass", "-p", alice.password, "ssh", f"{alice.name}@localhost", "bash", "-c"]
    with here.background([*session, f"'{WORK}'"]) as work:
        wait_for(lambda: (on_disk(here, alice) / "w-0").exists(), "alice works")
        words = ["homemgr", "migrate", alice.name, there.name, "--trust", "--wait=60"]
        with here.background(words) as moving:
            wait_for(lambda: snapshots(here), "there is a snapshot")
            wait_for(
                lambda: list(there.path("/home/.homemgr").glob(".#homemgr-in-*/odd/_large")),
                "most of it is there",
            )
            assert moving.poll() is None
            work.stdin.close()  # type: ignore[union-attr]
            said = moving.stdout.read()  # type: ignore[union-attr]
            assert moving.wait(60) == 0, said
    assert homes.compare(kept(here, alice), on_disk(there, alice), leave_out=IDENTITY) == []
    assert snapshots(here) == []
    assert on_disk(there, alice).stat().st_ino == TOP_INODE
    new = machines.at(there, alice)
    assert new.ssh("cat odd/_large/0042; cat w-7").stdout.startswith("42")
    new.wait_until("inactive")
    migrate(there, new, here.name)
    assert User(here, alice.name, alice.password).ssh("cat odd/_large/0042").stdout == "42"


def test_a_refresh_keeps_one_snapshot_which_goes_with_the_home(
    here: Box, there: Box, alice: User
) -> None:
    sent = []
    for number in range(3):
        result = migrate(here, alice, there.name, "--keep", "--json=short")
        sent.append(json.loads(result.stdout)["sent_bytes"])
        names = [name for name in os.listdir(here.path("/home/.homemgr")) if alice.name in name]
        assert [name.startswith(".#homemgr-base-") for name in sorted(names)] == [True, False]
        (on_disk(here, alice) / f"new-{number}").write_text("new")
        os.chown(on_disk(here, alice) / f"new-{number}", *NOBODY)
    assert max(sent[1:]) < 20_000 < sent[0]
    homemgr(here, "remove", alice.name)
    assert not [name for name in os.listdir(here.path("/home/.homemgr")) if alice.name in name]


@pytest.mark.parametrize("after_s", ["0.5", "1.0", "1.5"])
def test_a_snapshot_of_a_killed_service_is_swept_at_its_start(
    here: Box, there: Box, alice: User, after_s: str
) -> None:
    with here.background(["homemgr", "migrate", alice.name, there.name, "--trust"]) as moving:
        here.run(["sleep", after_s])
        here.run(["systemctl", "kill", "--signal=KILL", "homemgrd.service"])
        moving.wait(60)
    here.run(["systemctl", "start", "homemgrd.service"])
    homemgr(here, "list")
    wait_for(lambda: not snapshots(here), "the snapshot is gone")
    migrate(here, alice, there.name)
    assert homes.compare(kept(here, alice), on_disk(there, alice), leave_out=IDENTITY) == []
    assert [is_usable(box, alice) for box in (here, there)] == [False, True]
