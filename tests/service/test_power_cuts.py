"""The power goes at any step of what changes a home: it is whole, and done or not begun.

With HOMEMGR_TEST_CUTS=N there are more cases, and in each the power goes N times. A failure
says the seed, which HOMEMGR_TEST_SEED takes.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from homemgr.storage import rooms
from tests.service.cutting import Machine
from tests.service.interrupted import (
    Classic,
    Confirming,
    Conversion,
    Creation,
    Interrupted,
    Password,
    Removal,
    Resizing,
    Restoring,
    Shrinking,
    Snapshot,
    Unclassic,
    Undoing,
    Unsnapping,
    Update,
)
from tests.service.power import Disk

ROUNDS = int(os.environ.get("HOMEMGR_TEST_CUTS") or 0)
SEED = int(os.environ.get("HOMEMGR_TEST_SEED") or random.SystemRandom().randrange(1 << 32))


class Case(NamedTuple):
    """What is interrupted, on which file system, with which kinds of home."""

    what: type[Interrupted]
    file_system: str
    kinds: tuple[str, ...]
    #: How often the power goes in a usual run.
    rounds: int = 0

    def __str__(self) -> str:
        """Short."""
        return "-".join([self.what.__name__.lower(), self.file_system, *self.kinds])


CASES = [
    Case(Conversion, "ext4", ("directory", "image"), 2),
    Case(Conversion, "ext4", ("directory", "fscrypt")),
    Case(Conversion, "xfs", ("directory", "image")),
    Case(Conversion, "btrfs", ("directory", "subvolume"), 2),
    Case(Conversion, "btrfs", ("subvolume", "image")),
    Case(Undoing, "ext4", ("directory", "image")),
    Case(Undoing, "btrfs", ("directory", "subvolume"), 2),
    Case(Confirming, "ext4", ("directory", "image")),
    Case(Confirming, "btrfs", ("directory", "subvolume"), 1),
    *(
        Case(Resizing, disk, ("image of btrfs",), disk == "xfs")
        for disk in ("ext4", "xfs", "btrfs")
    ),
    *(Case(Shrinking, disk, ("image",), disk == "ext4") for disk in ("ext4", "xfs", "btrfs")),
    *(Case(Password, disk, ("directory",)) for disk in ("ext4", "xfs", "btrfs")),
    Case(Password, "ext4", ("fscrypt",), 2),
    Case(Password, "ext4", ("image",)),
    Case(Password, "btrfs", ("image",), 1),
    *(Case(Update, disk, ("directory",), disk == "xfs") for disk in ("ext4", "xfs", "btrfs")),
    Case(Update, "ext4", ("fscrypt",)),
    Case(Update, "btrfs", ("image",)),
    *(Case(Creation, disk, ("directory",), disk == "btrfs") for disk in ("ext4", "xfs", "btrfs")),
    Case(Creation, "ext4", ("fscrypt",)),
    Case(Creation, "ext4", ("image",)),
    Case(Creation, "btrfs", ("image",)),
    Case(Creation, "btrfs", ("subvolume",)),
    *(Case(Removal, disk, ("directory",)) for disk in ("ext4", "btrfs")),
    Case(Removal, "btrfs", ("subvolume",)),
    Case(Removal, "xfs", ("image",), 1),
    *(Case(Snapshot, disk, ("directory",), disk == "xfs") for disk in ("ext4", "xfs", "btrfs")),
    Case(Snapshot, "btrfs", ("subvolume",)),
    *(Case(Snapshot, disk, ("image",)) for disk in ("xfs", "btrfs")),
    Case(Unsnapping, "xfs", ("directory",)),
    Case(Unsnapping, "btrfs", ("subvolume",)),
    *(Case(Restoring, disk, ("directory",), disk == "ext4") for disk in ("ext4", "xfs", "btrfs")),
    Case(Restoring, "btrfs", ("subvolume",), 2),
    *(Case(Restoring, disk, ("image",)) for disk in ("xfs", "btrfs")),
    *(Case(Classic, disk, ("directory",), disk == "xfs") for disk in ("ext4", "xfs", "btrfs")),
    *(Case(Unclassic, disk, ("directory",), disk == "btrfs") for disk in ("ext4", "xfs", "btrfs")),
]


@pytest.fixture
def new_machine(ground: Path, numbers: Iterator[int]) -> Iterator[Callable[..., Machine]]:
    """Makes machines with a disk of a kind."""
    made = []

    def make(kind: str, *, is_apart: bool) -> Machine:
        made.append(Machine(ground / f"machine{next(numbers)}", kind, is_apart=is_apart))
        return made[-1]

    yield make
    for machine in made:
        machine.close()


@pytest.mark.parametrize("case", [case for case in CASES if case.rounds or ROUNDS], ids=str)
def test_a_home_is_whole_after_a_power_cut(case: Case, new_machine: Callable[..., Machine]) -> None:
    chance = random.Random(f"{SEED} {case}")
    machine = new_machine(case.file_system, is_apart=(is_apart := chance.random() < 0.7))
    one = case.what(machine, *case.kinds)
    one.prepare()
    # The first time to its end: what was answered is on disk.
    trying = machine.attempt(one.work, None)
    assert trying.error is None, trying.error
    count = len(machine.steps.done)
    print(f"seed {SEED}: {case}, {is_apart=}, {count} steps")
    machine.cut()
    machine.service.start()
    assert one.check()
    rounds = ROUNDS or int(case.rounds)
    for number in range(rounds):
        one.prepare()
        last = int(count * (number + chance.random()) / rounds)
        trying = machine.attempt(one.work, last)
        was_held = machine.steps.held.is_set()
        named = [part for part in machine.disk.parts if chance.random() < 0.5]
        calls = ", ".join(f"{step.program} {step.call}" for step in machine.steps.done[-4:])
        print(f"cut {number}: before step {last} of {calls}; {was_held=}, {len(named)} named")
        for part in named:
            part.write_names()
        machine.cut()
        trying.join(30)
        if chance.random() < 0.25:
            # Also while what was interrupted is seen to.
            trying = machine.attempt(machine.service.start, chance.randrange(20))
            machine.cut()
            trying.join(30)
        machine.service.start()
        assert one.check() or was_held


def test_a_room_that_was_left_does_not_come_back(ground: Path) -> None:
    (ground / "room").mkdir()
    disk = Disk(ground / "room", "btrfs", "home")
    room = disk.parts[0].path / ".#homemgr-room-anna"
    rooms.make(str(room)).close()
    os.sync()
    rooms.leave(str(room))
    disk.lose_power()
    disk.come_back()
    assert not room.exists()
    disk.take_away()
