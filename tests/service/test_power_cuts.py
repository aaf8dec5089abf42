"""The power goes at any step of what changes a home: it is whole, and done or not begun.

With HOMEMGR_TEST_CUTS=N there are more cases, and in each the power goes N times. A failure
says the seed, which HOMEMGR_TEST_SEED takes.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import NamedTuple

import pytest

from homemgr.storage import rooms
from tests import homes
from tests.service.bus import Bus
from tests.service.cutting import Machine
from tests.service.interrupted import (
    APART,
    Creation,
    Interrupted,
    Leave,
    Password,
    Removal,
    Resizing,
    Shrinking,
    Update,
    Use,
)
from tests.service.interrupted_conversions import (
    Classic,
    Confirming,
    Conversion,
    Relocation,
    Unclassic,
    Undoing,
)
from tests.service.interrupted_snapshots import Restoring, Snapshot, Unsnapping
from tests.service.moving import Line, assert_idle, settle
from tests.service.power import Disk
from tests.service.test_migrate_kills import is_usable

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


def cases(what: type[Interrupted], *kinds: str, **rounds: int) -> list[Case]:
    """On these file systems, and how often the power goes in a usual run."""
    return [Case(what, disk, kinds, number) for disk, number in rounds.items()]


CASES = [
    *cases(Conversion, "directory", "image", ext4=2, xfs=0),
    *cases(Conversion, "directory", "fscrypt", ext4=0),
    *cases(Conversion, "directory", "subvolume", btrfs=2),
    *cases(Conversion, "subvolume", "image", btrfs=0),
    *cases(Relocation, "directory", ext4=0, xfs=0, btrfs=1),
    *cases(Relocation, "subvolume", btrfs=0),
    *cases(Undoing, "directory", "image", ext4=0, xfs=1),
    *cases(Undoing, "directory", "subvolume", btrfs=0),
    *cases(Confirming, "directory", "image", ext4=0, xfs=0),
    *cases(Confirming, "directory", "subvolume", btrfs=1),
    *cases(Resizing, "image of btrfs", ext4=0, xfs=1, btrfs=0),
    *cases(Shrinking, "image", ext4=1, xfs=0, btrfs=0),
    *cases(Use, "image", ext4=0, xfs=0, btrfs=0),
    *cases(Use, "image of btrfs", ext4=0, xfs=0),
    *cases(Use, "image of xfs", ext4=0, btrfs=0),
    *cases(Use, "full image", ext4=1, btrfs=0),
    *cases(Use, "fscrypt", ext4=0),
    *cases(Leave, "full image", ext4=0, xfs=0, btrfs=1),
    *cases(Leave, "image of btrfs", xfs=0),
    *cases(Leave, "image of xfs", ext4=0),
    *cases(Password, "directory", ext4=0, xfs=0, btrfs=0),
    *cases(Password, "fscrypt", ext4=1),
    *cases(Password, "image", ext4=0, btrfs=1),
    *cases(Update, "directory", ext4=0, xfs=1, btrfs=0),
    *cases(Update, "fscrypt", ext4=0),
    *cases(Update, "image", btrfs=0),
    *cases(Creation, "directory", ext4=0, xfs=0, btrfs=1),
    *cases(Creation, "image", ext4=0, btrfs=0),
    *cases(Creation, "fscrypt", ext4=0),
    *cases(Creation, "subvolume", btrfs=0),
    *cases(Removal, "directory", ext4=0, btrfs=0),
    *cases(Removal, "subvolume", btrfs=0),
    *cases(Removal, "image", xfs=1),
    *cases(Snapshot, "directory", ext4=0, xfs=1, btrfs=0),
    *cases(Snapshot, "subvolume", btrfs=0),
    *cases(Snapshot, "image", xfs=0, btrfs=0),
    *cases(Unsnapping, "directory", xfs=0),
    *cases(Unsnapping, "subvolume", btrfs=0),
    *cases(Restoring, "directory", ext4=1, xfs=0, btrfs=0),
    *cases(Restoring, "subvolume", btrfs=1),
    *cases(Restoring, "image", xfs=0, btrfs=0),
    *cases(Classic, "directory", ext4=0, xfs=1, btrfs=0),
    *cases(Unclassic, "directory", ext4=0, xfs=0, btrfs=1),
]


class Move(NamedTuple):
    """From one machine to another, of which the origin or the other loses power."""

    file_system: str
    is_origin: bool
    #: How often the power goes in a usual run.
    rounds: int = 0

    def __str__(self) -> str:
        """Short."""
        return f"{'from' if self.is_origin else 'to'}-{self.file_system}"


@pytest.fixture
def new_machines(ground: Path, numbers: Iterator[int]) -> Iterator[Callable[..., list[Machine]]]:
    """Makes machines with a disk of a kind, all at once."""
    with ExitStack() as closing:

        def make(kind: str, count: int, chance: random.Random) -> list[Machine]:
            places = [ground / f"machine{next(numbers)}" for _ in range(count)]
            for place in places:
                place.mkdir()
            buses = [Bus(place / "run") for place in places]
            machines = []
            for place, bus in zip(places, buses, strict=True):
                machine = Machine(place, bus, kind, is_apart=chance.random() < 0.7)
                closing.callback(machine.close)
                machines.append(machine)
            # Workers of one have disks of the other in their namespaces.
            for machine in machines:
                closing.callback(machine.slay)
            return machines

        yield make


def check_power_cuts(case: Case, new_machines: Callable[..., list[Machine]]) -> None:
    """Have it end well once, and lose power in the midst of it some times."""
    chance = random.Random(f"{SEED} {case}")
    (machine,) = new_machines(case.file_system, 1, chance)
    one = case.what(machine, *case.kinds)
    one.prepare()
    # The first time to its end: what was answered is on disk.
    trying = machine.attempt(one.work, None)
    assert trying.error is None, trying.error
    count = len(machine.steps.done)
    print(f"seed {SEED}: {case}, {len(machine.disk.parts)} file systems, {count} steps")
    machine.cut()
    machine.service.start()
    assert one.check()
    rounds = ROUNDS or case.rounds
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


@pytest.mark.parametrize("case", [case for case in CASES if case.rounds or ROUNDS], ids=str)
def test_a_home_is_whole_after_a_power_cut(
    case: Case, new_machines: Callable[..., list[Machine]]
) -> None:
    check_power_cuts(case, new_machines)


MOVES = [
    Move("ext4", is_origin=False),
    Move("xfs", is_origin=False),
    Move("btrfs", is_origin=False, rounds=1),
    Move("ext4", is_origin=True),
    Move("xfs", is_origin=True),
    Move("btrfs", is_origin=True),
]


@pytest.mark.parametrize("case", [case for case in MOVES if case.rounds or ROUNDS], ids=str)
def test_a_home_that_moves_is_whole_after_a_power_cut(
    case: Move, new_machines: Callable[..., list[Machine]], tmp_path: Path
) -> None:
    chance = random.Random(f"{SEED} {case}")
    here, there = new_machines(case.file_system, 2, chance)
    machine, other = (here, there) if case.is_origin else (there, here)
    line = Line(here.service, there.service, tmp_path)
    count = 0
    rounds = ROUNDS or case.rounds
    for number in range(rounds + 1):
        user = f"k{number}"
        settle(here.service, user, 12, 30_000)
        os.sync()
        # The first time to its end.
        last = int(count * (number - 1 + chance.random()) / rounds) if number else None
        argv, environment = line.command(user)
        with subprocess.Popen(argv, env=environment, start_new_session=True) as command:
            machine.attempt(command.wait, last)
            count = count or len(machine.steps.done)
            was_held = machine.steps.held.is_set()
            calls = ", ".join(f"{step.program} {step.call}" for step in machine.steps.done[-4:])
            print(f"seed {SEED}: {case}, cut {number} before step {last}/{count} of {calls}")
            for part in machine.disk.parts:
                if chance.random() < 0.5:
                    part.write_names()
            machine.disk.lose_power()
            # Its workers have the disk in their namespaces.
            other.slay()
            machine.cut()
            with suppress(ProcessLookupError):
                os.killpg(command.pid, signal.SIGKILL)
        for one in (here, there):
            one.service.start()
        assert_idle(here.service, there.service)
        usable = [is_usable(one.service, user) for one in (here, there)]
        assert usable != [True, True]
        assert was_held or usable == [False, True]
        line.move(user)
        assert [is_usable(one.service, user) for one in (here, there)] == [False, True]
        (left,) = here.site.base.glob(f".#homemgr-left-{user}.*")
        assert homes.compare(left, there.site.base / f"{user}.homedir", leave_out=APART) == []


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
