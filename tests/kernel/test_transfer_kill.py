"""Either side is killed at its system calls, one after the other; the same command goes on.

A home is sent, changed in every way there is, and sent again: what is killed has to make, to
replace, to patch, to move and to delete. Which calls are made is found out by strace, which
then kills on entry to some of them; all of them would take minutes.
"""

from __future__ import annotations

import os
import random
import shutil
from collections import Counter
from pathlib import Path

import pytest

from .. import homes
from . import kills
from .kills import Step
from .test_transfer import Pair, assert_moved
from .test_transfer import pair as pair

#: After these, files, ledger or names are in another state than before.
CALLS = (
    *("mkdirat", "pwrite64", "copy_file_range", "ftruncate", "renameat", "renameat2"),
    *("linkat", "symlinkat", "mknodat", "unlink", "unlinkat", "fchmod"),
    *("utimensat", "fsync", "fdatasync", "syncfs"),
)
#: Those by which a tree that is complete becomes a home.
LAST_CALLS = ("fsync", "fdatasync", "renameat", "renameat2", "syncfs")


def make(top: Path) -> None:
    """A small home with one of each."""
    chance = random.Random(1)
    (top / "tree/below").mkdir(parents=True)
    for name in ("same", "changed", "gone", "tree/one", "tree/below/two", "to-be-moved"):
        (top / name).write_bytes(chance.randbytes(5_000))
    for name in ("large", "large-moved"):
        (top / name).write_bytes(chance.randbytes(2_500_000))
    os.link(top / "same", top / "same-too")
    os.symlink("same", top / "link")
    os.mkfifo(top / "fifo")
    os.setxattr(top / "same", "user.kind", b"some")
    homes.give_away(top)


def change(top: Path, number: int) -> None:
    """Everything another way; as often as wanted."""
    chance = random.Random(number)
    (top / "changed").write_bytes(chance.randbytes(6_000))
    with (top / "large").open("r+b") as file:
        file.seek(chance.randrange(2_000_000))
        file.write(chance.randbytes(200_000))
    _swap(top / "large-moved", top / "moved-large")
    _swap(top / "to-be-moved", top / "tree/was-moved")
    (top / f"new-{number}").write_bytes(chance.randbytes(100_000))
    (top / f"directory-{number}").mkdir()
    (top / f"directory-{number}/file").write_bytes(chance.randbytes(10))
    os.truncate(top / f"directory-{number}/file", 1 << 20)
    for path in (top / f"new-{number - 1}", top / f"directory-{number - 1}"):
        if path.is_dir():
            shutil.rmtree(path)
        elif path.exists():
            path.unlink()
    for name in ("link", "fifo", "same-too"):
        (top / name).unlink()
    os.symlink(f"target {number}", top / "link")
    os.mkfifo(top / "fifo", 0o600 + number % 64)
    os.link(top / ("same" if number % 2 else "changed"), top / "same-too")
    os.setxattr(top / "same", "user.kind", b"%d" % number)
    homes.give_away(top)


def _swap(one: Path, other: Path) -> None:
    if one.exists():
        one.rename(other)
    else:
        other.rename(one)


def steps(pair: Pair, trace: Path, side: str = "receiver", **options: object) -> list[Step]:
    """The calls that a side makes, in their order; some of each name."""
    setattr(pair, f"{side}_by", kills.recording(trace, CALLS))
    pair.go(**options)
    setattr(pair, f"{side}_by", ())
    seen = Counter(step.name for step in kills.recorded(trace, CALLS))
    assert seen.total() > 10
    # Writes and renames are what most depends on; of all else one in the middle has to do.
    numbers = [(name, seen[name] // 2 + 1) for name in CALLS if seen[name]]
    numbers += [(name, 1) for name in ("pwrite64", "renameat") if seen[name] > 1]
    return [Step(*at) for at in sorted(set(numbers))]


def kill(pair: Pair, at: Step, side: str = "receiver", **options: object) -> None:
    """Send while one side is killed on entry to a call."""
    setattr(pair, f"{side}_by", kills.killing(at))
    pair.start(**options)
    pair.wait()
    setattr(pair, f"{side}_by", ())
    killed = getattr(pair, side)
    assert isinstance(killed.failure, EOFError), at


@pytest.mark.parametrize("side", ["receiver", "sender"])
def test_killed_while_changes_travel_it_goes_on(pair: Pair, tmp_path: Path, side: str) -> None:
    make(pair.here)
    pair.go(keep=True)
    pair.target.phase = "receiving"
    change(pair.here, 1)
    stage = pair.there.parent / pair.names()[1][0]
    for number, at in enumerate(steps(pair, tmp_path / "trace", side, keep=True), 2):
        change(pair.here, number)
        kill(pair, at, side, keep=True)
        assert pair.names() == (["alice.homedir"], [stage.name])
        # What the killed run told the other side to delete is not there any more either.
        change(pair.here, number + 100)
        pair.go(keep=True)
        assert homes.compare(pair.here, stage, leave_out=(b".identity",)) == [], at
    pair.go()
    assert_moved(pair)


@pytest.mark.parametrize("side", ["receiver", "sender"])
def test_killed_while_it_becomes_a_home_it_goes_on(pair: Pair, tmp_path: Path, side: str) -> None:
    make(pair.here)
    final = [at for at in steps(pair, tmp_path / "trace", side) if at.name in LAST_CALLS]
    assert_moved(pair)
    for at in final:
        pair.go(undo=True)
        pair.target.phase = "new"
        kill(pair, at, side)
        assert [pair.here.exists(), pair.there.exists()] != [True, True]
        pair.go()
        assert_moved(pair)
