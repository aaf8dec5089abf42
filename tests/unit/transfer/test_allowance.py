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
    Hole,
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


@pytest.mark.parametrize("frame", [Enter(b"a", None), Leave(), Delete(b"a"), Hole(0, 9)])
def test_what_stores_no_name_does_not_count(frame: Frame) -> None:
    allowance = Allowance(Size(0, 0, 0))
    for _ in range(3):
        allowance.take(frame)


@pytest.mark.parametrize(
    "frame",
    [
        Data(0, bytes(60)),
        File(b"a", file(60), bytes(60)),
        Node(b"a", FIFO._replace(kind=Kind.SYMLINK, target=bytes(60))),
        Enter(b"a", DIRECTORY._replace(xattrs=((b"user.a", bytes(60)),))),
    ],
)
def test_what_is_stored_counts_however_much_may_be_read(frame: Frame) -> None:
    """Else who announces holes could fill the disk."""
    allowance = Allowance(Size(10, 119, 1 << 40))
    allowance.take(frame)
    with pytest.raises(StreamError, match="119 of them stored"):
        allowance.take(frame)
    allowance.begin()
    allowance.take(frame)


def test_what_is_no_hole_any_more_is_announced_before_it_is_sent() -> None:
    sent: list[Frame] = []
    announcing = Announcing(Allowance(Size(1, 100, 1 << 40)), sent.append)
    announcing(File(b"a", file(1 << 40), None))
    for number in range(200):
        announcing(Data(number << 18, bytes(1 << 18)))
    announced = [f.message["more"] for f in sent if isinstance(f, Control)]
    # Not for every piece, and no more than there should be room for.
    assert len(announced) == 40
    assert (50 << 20) <= announced[-1]["bytes"] <= (52 << 20)  # type: ignore[index]


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
