"""No more comes in a pass than was announced, and a home that grows announces more first."""

from __future__ import annotations

import pytest

from homemgr.errors import StreamError
from homemgr.transfer.entry import Entry, Kind
from homemgr.transfer.frames import (
    Control,
    Copy,
    Data,
    Delete,
    Enter,
    File,
    Frame,
    Leave,
    Node,
    Patch,
    Same,
)
from homemgr.work.allowance import Allowance, Announcing, Size

DIRECTORY = Entry(Kind.DIRECTORY, 0o700, 1, 1, 0, 0, 0, b"", ())
FIFO = DIRECTORY._replace(kind=Kind.FIFO)


def file(size: int) -> Entry:
    return DIRECTORY._replace(kind=Kind.FILE, size=size)


CONTENTS = (
    File(b"a", file(60), None),
    Patch(b"a", file(60)),
    Copy(b"a", file(60), b"", b"b"),
)


@pytest.mark.parametrize("frame", CONTENTS)
def test_contents_count_with_all_their_bytes(frame: Frame) -> None:
    allowance = Allowance(Size(10, 0, 119))
    allowance.take(frame)
    with pytest.raises(StreamError, match="10 files and directories of 119 bytes"):
        allowance.take(frame)
    allowance = Allowance(Size(10, 0, 120))
    allowance.take(frame)
    allowance.take(frame)


@pytest.mark.parametrize(
    "frame", [*CONTENTS, Node(b"a", FIFO), Same(b"a", file(60)), Enter(b"a", DIRECTORY)]
)
def test_every_name_counts(frame: Frame) -> None:
    allowance = Allowance(Size(2, 0, 1000))
    for _ in range(2):
        allowance.take(frame)
    with pytest.raises(StreamError):
        allowance.take(frame)


@pytest.mark.parametrize("frame", [Enter(b"a", None), Leave(), Delete(b"a"), Data(0, b"x")])
def test_what_stores_no_name_does_not_count(frame: Frame) -> None:
    allowance = Allowance(Size(0, 0, 0))
    for _ in range(3):
        allowance.take(frame)


def test_each_pass_may_tell_everything_again() -> None:
    allowance = Allowance(Size(1, 0, 60))
    for _ in range(3):
        allowance.begin()
        allowance.take(CONTENTS[0])


def test_who_sends_announces_more_before_it_is_needed() -> None:
    """What a receiver that allows what is announced hears is never beyond it."""
    sent: list[Frame] = []
    theirs = Allowance(Size(3, 500, 100))
    announcing = Announcing(Allowance(theirs.size), sent.append)
    for size in (50, 50, 1 << 30, 1, 1 << 40):
        announcing(File(b"a", file(size), None))
    for _ in range(3000):
        announcing(Node(b"a", FIFO))
    announced = 0
    for frame in sent:
        if isinstance(frame, Control):
            more = frame.message["more"]
            assert isinstance(more, dict)
            grown = Size(**more)
            theirs.size = grown
            announced += 1
        else:
            theirs.take(frame)
    # There has to be room for what is there, not for what is merely allowed.
    assert theirs.size.bytes == 500 + (1 << 30) + (1 << 40) + 101 - 100 - (64 << 20)
    # Not for every file.
    assert announced == 4
