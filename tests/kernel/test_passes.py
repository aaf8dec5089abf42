"""Passes of a home from one tree to another, without a network: exact, and only what changed."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from homemgr import errors
from homemgr.errors import StreamError
from homemgr.files import Fd
from homemgr.kernel.synchronization import syncfs
from homemgr.storage import reader, tree_copy
from homemgr.storage.ledger import Ledger
from homemgr.storage.verify import verify
from homemgr.storage.writer import TreeWriter
from homemgr.transfer import frames
from homemgr.transfer.decoder import Decoder
from homemgr.transfer.entry import Entry, Kind
from homemgr.transfer.frames import Frame
from homemgr.transfer.policy import Policy
from homemgr.transfer.selection import ALL, Selection
from homemgr.work import arrival
from homemgr.work.arrival import Arrival
from homemgr.work.passes import Pass, now_ns

from .. import homes

NOBODY = 65534
STRICT = Policy(NOBODY, NOBODY, is_wide=False)
LEFT_OUT = frozenset({b".identity"})


class Journey:
    """Two trees and their ledgers."""

    def __init__(self, directory: Path, make: Callable[[Path], object] = Path.mkdir) -> None:
        self.here, self.there = directory / "here", directory / "there"
        for top in (self.here, self.there):
            make(top)
            top.chmod(0o700)
            os.chown(top, NOBODY, NOBODY)
        self._directory = directory
        self.sent: list[Frame] = []

    def ledger(self, side: str) -> Ledger:
        return Ledger(str(self._directory / f"{side}.sqlite"))

    def go(self, stop_after: int | None = None) -> list[Frame]:
        """One pass; the receiver dies after so many frames, if told to."""
        settle()
        with Fd.open(str(self.here), os.O_RDONLY) as top:
            settled = now_ns()
            syncfs(top.fileno())
            return self.send(top, settled, stop_after=stop_after)

    def send(
        self,
        top: Fd,
        settled: int,
        only: Selection | None = ALL,
        stop_after: int | None = None,
    ) -> list[Frame]:
        """What is in ``top``, or what is selected of it."""
        self.sent = []
        with self.ledger("here") as ledger:
            one = Pass(top, ledger, STRICT, self.sent.append, settled, lambda *_: None, only)
            one.run(LEFT_OUT)
            self.report = one.report
            ledger.commit()
        self.arrive(self.sent[:stop_after])
        return self.sent

    def arrive(self, coming: list[Frame]) -> None:
        packed = b"".join(frames.pack(frame) for frame in coming)
        stream: Iterator[Frame] = Decoder().feed(packed)
        with (
            Fd.open(str(self.there), os.O_RDONLY) as top,
            self.ledger("there") as ledger,
            TreeWriter(top) as writer,
        ):
            taking = Arrival(writer, ledger, STRICT, lambda: next(stream), lambda *_: None)
            for frame in stream:
                taking.take(frame)
            ledger.commit()

    def agree(self) -> None:
        """What both sides do after a kill."""
        with Fd.open(str(self.there), os.O_RDONLY) as top, self.ledger("there") as there:
            verify(top, there, LEFT_OUT)
            there.commit()
            with self.ledger("here") as here:
                here.agree(there.pairs())
                here.commit()

    def digests(self) -> tuple[bytes, bytes]:
        with self.ledger("here") as here, self.ledger("there") as there:
            return here.digest(), there.digest()

    def differences(self) -> list[str]:
        return homes.compare(self.here, self.there)


def settle() -> None:
    """Let the clock go on, so that a change of now has another time than one of then."""
    time.sleep(0.05)


@pytest.fixture
def journey(tmp_path: Path) -> Journey:
    return Journey(tmp_path)


def assert_same(journey: Journey) -> None:
    here, there = journey.digests()
    assert here == there
    assert journey.differences() == []


def changes(sent: list[Frame]) -> list[Frame]:
    """Without the ways there and back."""
    return [
        frame
        for frame in sent
        if not isinstance(frame, frames.Leave)
        and not (isinstance(frame, frames.Enter) and frame.entry is None)
    ]


def test_an_odd_home_arrives_exactly(journey: Journey) -> None:
    homes.make_odd_home(journey.here)
    journey.go()
    assert_same(journey)
    assert journey.go() == []


def test_every_kind_of_change_arrives(journey: Journey) -> None:
    homes.make_odd_home(journey.here)
    journey.go()
    here = journey.here
    (here / "_contents/4096").write_bytes(b"shorter")
    (here / "_contents/511").chmod(0o600)
    (here / "_kinds/mode-0644").unlink()
    (here / "_kinds/mode-0644").mkdir()
    (here / "_kinds/directory-0755x").mkdir()
    (here / "_kinds/directory-0600").rmdir()
    (here / "_kinds/directory-0600").symlink_to("elsewhere")
    (here / "_large").rename(here / "moved")
    (here / "_links/a/again").unlink()
    os.link(here / "_links/m-first", here / "_links/b-first")
    subprocess.run(["rm", "-r", here / "_deep"], check=True)
    for new in ("mode-0644", "directory-0755x", "directory-0600"):
        os.chown(here / "_kinds" / new, NOBODY, NOBODY, follow_symlinks=False)
    sent = journey.go()
    assert_same(journey)
    assert not [f for f in sent if isinstance(f, frames.File) and f.name == b"0042"]
    assert journey.go() == []


def test_of_a_large_file_only_the_changed_blocks_travel(journey: Journey) -> None:
    content = random.Random(1).randbytes(20 << 20)
    (journey.here / "large").write_bytes(content)
    homes.give_away(journey.here)
    journey.go()
    with (journey.here / "large").open("r+b") as file:
        file.seek(5 << 20)
        file.write(b"changed")
        file.seek(30 << 20)
        file.write(b"longer, with a hole")
    sent = journey.go()
    assert_same(journey)
    assert sum(len(f.data) for f in sent if isinstance(f, frames.Data)) <= 4 * (128 << 10)


def test_room_reserved_in_a_small_file_travels_as_a_hole(journey: Journey) -> None:
    with (journey.here / "reserved").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 48 << 10)
        os.pwrite(file.fileno(), b"data", 16 << 10)
    homes.give_away(journey.here)
    journey.go()
    assert_same(journey)
    with (journey.there / "reserved").open("rb") as file:
        assert os.lseek(file.fileno(), 0, os.SEEK_DATA) == 16 << 10


def test_a_renamed_large_file_does_not_travel_again(journey: Journey) -> None:
    (journey.here / "large").write_bytes(random.Random(1).randbytes(5 << 20))
    homes.give_away(journey.here)
    journey.go()
    (journey.here / "large").rename(journey.here / "renamed")
    sent = changes(journey.go())
    assert_same(journey)
    assert [type(f) for f in sent] == [frames.Enter, frames.Copy, frames.Delete]


@pytest.mark.parametrize("stop_after", [1, 2, 50, 333, 500, 2000, 3500])
def test_a_killed_receiver_is_repaired(journey: Journey, stop_after: int) -> None:
    homes.make_odd_home(journey.here)
    journey.go(stop_after)
    (journey.there / "leftover").mkdir()
    (journey.there / "leftover/file").write_bytes(b"of a kill")
    journey.agree()
    journey.go()
    assert_same(journey)


def test_a_tree_changed_by_a_power_cut_is_repaired(journey: Journey) -> None:
    homes.make_odd_home(journey.here)
    journey.go()
    there = journey.there
    (there / "_contents/4096").write_bytes(b"torn")
    (there / "_contents/511").unlink()
    (there / "_contents/1").chmod(0o600)
    os.truncate(there / "_holes/huge", 1 << 20)
    journey.agree()
    sent = changes(journey.go())
    assert_same(journey)
    assert len(sent) < 20


def test_a_path_without_end_is_refused(journey: Journey, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrival, "MAX_PATH", 10_000)
    top = Entry(Kind.DIRECTORY, 0o700, NOBODY, NOBODY, 0, 0, 0, b"", ())
    below = [frames.Enter(b"n" * 255, top)] * (10_000 // 256 + 1)
    with pytest.raises(StreamError, match="longer than 10000"):
        journey.arrive([frames.Enter(b"", top), *below])


FILE = Entry(Kind.FILE, 0o600, NOBODY, NOBODY, 1, 1, 0, b"", ())
FOLDER = Entry(Kind.DIRECTORY, 0o700, NOBODY, NOBODY, 1, 1, 0, b"", ())
REPLACING = (
    frames.File(b"folder", FILE, b""),
    frames.Node(b"folder", FILE._replace(kind=Kind.FIFO)),
)


@pytest.mark.parametrize("replacing", REPLACING)
def test_what_replaces_a_directory_leaves_nothing_of_it_in_the_ledger(
    journey: Journey, replacing: Frame
) -> None:
    (journey.here / "folder/below").mkdir(parents=True)
    homes.give_away(journey.here)
    journey.go()
    with pytest.raises(StreamError, match="not deleted before"):
        journey.arrive([frames.Enter(b"", None), replacing])
    journey.agree()
    journey.go()
    assert_same(journey)
    delete = frames.Delete(b"folder")
    journey.arrive([frames.Enter(b"", None), delete, replacing, frames.Leave()])
    with journey.ledger("there") as ledger:
        assert [path for path, _ in ledger.pairs()] == [b"", b"folder"]


@pytest.mark.parametrize("replacing", REPLACING)
def test_an_empty_directory_is_replaced(journey: Journey, replacing: Frame) -> None:
    (journey.here / "folder").mkdir()
    homes.give_away(journey.here)
    journey.go()
    journey.arrive([frames.Enter(b"", None), replacing, frames.Leave()])
    assert not (journey.there / "folder").is_dir()


def test_a_file_that_cannot_be_read_is_named(
    journey: Journey, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = journey.here / "directory"
    directory.mkdir()
    (directory / "damaged").write_bytes(b"x")
    (journey.here / "later").write_bytes(b"x")
    opened = reader.open_content

    def damaged(step: reader.Step) -> Fd:
        if step.name == b"damaged":
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return opened(step)

    monkeypatch.setattr(reader, "open_content", damaged)

    def copy_it() -> None:
        with (
            Fd.open(str(journey.here), os.O_RDONLY) as source,
            Fd.open(str(journey.there), os.O_RDONLY) as target,
        ):
            tree_copy.copy_tree(source, target, lambda _: None)

    for act in (journey.go, copy_it):
        with pytest.raises(OSError, match="Input/output error") as failed:
            act()
        said = errors.with_notes(errors.from_os_error(failed.value, "Copying"))
        assert said == "Copying: Input/output error (at 'directory/damaged' in the home area)"
