"""Homes that are btrfs subvolumes travel from snapshots: while in use, and whatever is killed."""

from __future__ import annotations

import os
import random
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from homemgr import errors, job
from homemgr.kernel.synchronization import syncfs

from .. import homes
from .test_snapshot import subvolume
from .test_transfer import QUESTIONS, Gone, Pair, assert_moved, machines
from .travels import opened


@pytest.fixture
def pair(btrfs_volume: Path) -> Iterator[Pair]:
    for made in machines(btrfs_volume / "transfer", subvolume):
        yield made
        # Read-only, so that rm cannot delete them.
        for base in made.here.parent.glob(".#homemgr-*/home"):
            subprocess.run(["btrfs", "-q", "subvolume", "delete", str(base)], check=True)


@contextmanager
def counting(*files: Path) -> Iterator[None]:
    """Somebody writes the same number into one file after the other, and then the next number."""
    is_over = threading.Event()

    def count() -> None:
        number = 0
        while not is_over.is_set():
            number += 1
            for file in files:
                with file.open("r+b", buffering=0) as there:
                    there.write(b"%8d" % number)
                    # What is still on its way to the disk may or may not be in a snapshot.
                    os.fsync(there.fileno())

    counter = threading.Thread(target=count)
    counter.start()
    try:
        yield
    finally:
        is_over.set()
        counter.join()


def test_a_copy_of_a_home_in_use_is_of_one_moment(pair: Pair) -> None:
    homes.make_odd_home(pair.here)
    first, last = pair.here / "0-first", pair.here / "~-last"
    for file in (first, last):
        file.write_bytes(b"%8d" % 0)
    homes.give_away(pair.here)
    with counting(first, last):
        pair.go(keep=True)
    stage = pair.target.area / ".homemgr/.#homemgr-in-alice.0123abcd"
    numbers = [int((stage / path.name).read_bytes()) for path in (first, last)]
    assert numbers[0] > 0
    assert numbers[0] - numbers[1] in (0, 1)
    names = pair.names()
    assert [name.startswith(".#homemgr-base-") for name in names[0]] == [True, False]
    assert names[1] == [stage.name]


def test_a_refresh_after_a_break_misses_nothing(pair: Pair) -> None:
    """Files that come and go between two runs, the second of which is killed somewhere."""
    homes.make_odd_home(pair.here)
    (pair.here / "_links/a/again").unlink()
    pair.go(keep=True)
    pair.target.phase = "receiving"
    for number in range(12):
        passing = pair.here / f"passing-{number}"
        passing.mkdir()
        for file in range(50):
            (passing / str(file)).write_bytes(os.urandom(30_000))
        (pair.here / f"_contents/small-{number:03}").write_text("changed")
        homes.give_away(pair.here)
        if number % 3:
            pair.start(keep=True)
            time.sleep(0.1 + 0.05 * number)
            assert pair.sender is not None
            pair.sender.worker.kill()
            pair.wait()
            (passing / "7").unlink()
            passing.rename(pair.here / f"stays-{number}")
        else:
            pair.go(keep=True)
            stage = pair.target.area / ".homemgr/.#homemgr-in-alice.0123abcd"
            assert homes.compare(pair.here, stage, leave_out=(b".identity",)) == []
        assert len(pair.names()[0]) <= 3
    pair.go()
    assert_moved(pair)


def test_a_home_that_is_as_its_base_is_not_looked_through(pair: Pair) -> None:
    homes.make_odd_home(pair.here)
    stage = pair.target.area / ".homemgr/.#homemgr-in-alice.0123abcd"
    first = pair.go(keep=True)
    for is_changed in (False, True, False):
        if is_changed:
            (pair.here / "new").write_text("new")
            homes.give_away(pair.here)
        pair.target.phase = "receiving"
        pair.origin.progress.clear()
        again = pair.go(keep=True)
        assert ("copying" in {told["phase"] for told in pair.origin.progress}) == is_changed
        assert int(str(again["files"])) == int(str(first["files"])) + (pair.here / "new").exists()
        assert again["report"] == first["report"]
        assert homes.compare(pair.here, stage, leave_out=(b".identity",)) == []
        # To compare has changed times of access, and those count.
        pair.target.phase = "receiving"
        pair.go(keep=True)


def test_a_base_is_left_for_the_same_command_when_the_home_is_busy(pair: Pair) -> None:
    def busy(about: job.Message) -> job.Message:
        raise errors.HomeBusy("logged in")

    free = pair.origin.answers["freeze"]
    pair.origin.answers["freeze"] = busy
    with pytest.raises(errors.HomeBusy):
        pair.go()
    assert [name.startswith(".#homemgr-base-") for name in pair.names()[0]] == [True, False]
    pair.origin.answers["freeze"] = free
    pair.target.phase = "receiving"
    pair.go()
    assert_moved(pair)


def test_a_home_moves_after_passes_while_it_is_in_use(pair: Pair) -> None:
    homes.make_odd_home(pair.here)
    freezes = iter(range(100))

    def freeze(about: job.Message) -> job.Message:
        number = next(freezes)
        (pair.here / f"made-{number}").write_text("x")
        (pair.here / "_large" / f"{number:04}").rename(pair.here / f"moved-{number}")
        homes.give_away(pair.here)
        if number < 3:
            raise errors.HomeBusy("logged in")
        return {}

    pair.origin.answers["freeze"] = freeze
    pair.go(wait_s=60)
    assert_moved(pair)
    assert next(freezes) > 3


@pytest.mark.parametrize("storage", ["subvolume", "directory"])
def test_a_subvolume_stays_one(pair: Pair, storage: str) -> None:
    pair.origin.record = {
        "userName": "alice",
        "disposition": "regular",
        "uid": 60456,
        "storage": storage,
        "privileged": {},
    }
    told: list[job.Message] = []
    commit = pair.target.answers["commit"]
    pair.target.answers["commit"] = lambda about: told.append(about) or commit(about)
    pair.go()
    assert_moved(pair)
    assert (pair.there.stat().st_ino == 256) == (storage == "subvolume")
    assert [about["storage"] for about in told] == [storage]


@pytest.mark.parametrize("moment", ["asked", "answered"])
@pytest.mark.parametrize("question", [q for side, q in QUESTIONS if side == "origin"])
def test_a_sender_killed_at_any_question_leaves_no_snapshot(
    pair: Pair, question: str, moment: str
) -> None:
    answered = pair.origin.answers[question]

    def killed(about: job.Message) -> job.Message:
        answer = answered(about) if moment == "answered" else {}
        assert pair.sender is not None
        pair.sender.worker.kill()
        pair.sender.worker.wait()
        raise Gone(answer)

    pair.origin.answers[question] = killed
    pair.start()
    pair.wait()
    pair.origin.answers[question] = answered
    pair.go()
    assert_moved(pair)


@pytest.mark.parametrize("after_s", [0.1, 0.2, 0.3, 0.4, 0.5])
def test_a_sender_killed_at_any_time_leaves_no_snapshot(pair: Pair, after_s: float) -> None:
    homes.make_odd_home(pair.here)
    pair.start()
    time.sleep(after_s)
    assert pair.sender is not None
    pair.sender.worker.kill()
    pair.wait()
    assert os.listdir(pair.here.parent)
    pair.go()
    assert_moved(pair)


def test_a_snapshot_within_a_home_is_not_taken_for_what_it_is_of(
    btrfs_volume: Path,
) -> None:
    """Its files are as if they had moved there: same inode, same times, one name."""
    for pair in machines(btrfs_volume / "transfer", Path.mkdir):
        inner = pair.here / "inner"
        subvolume(inner)
        for number in range(4):
            (inner / f"file-{number}").write_bytes(random.Random(number).randbytes(3_000_000))
        homes.give_away(pair.here)
        with opened(pair.here) as top:
            syncfs(top.fileno())
        pair.go(keep=True)
        pair.target.phase = "receiving"
        snapshot = str(pair.here / "a snapshot")
        subprocess.run(["btrfs", "-q", "subvolume", "snapshot", inner, snapshot], check=True)
        pair.go()
        assert_moved(pair)
        assert len(list(pair.there.glob("*/file-*"))) == 8
