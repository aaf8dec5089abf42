"""What btrfs says has changed between two snapshots: all of it, whatever somebody did meanwhile."""

from __future__ import annotations

import mmap
import os
import random
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from homemgr.files import Fd
from homemgr.kernel import reflink
from homemgr.kernel.file_flags import get_flags, set_flags
from homemgr.kernel.rename import renameat2
from homemgr.kernel.synchronization import syncfs
from homemgr.storage import reader
from homemgr.storage.snapshot import Snapshots
from homemgr.transfer import frames
from homemgr.transfer.selection import ALL, Selection
from homemgr.work.allowance import Allowance, Size
from homemgr.work.difference import changed_names, has_links
from homemgr.work.passes import now_ns
from homemgr.work.rounds import Rounds
from homemgr.work.telling import Telling

from .. import homes
from .test_passes import LEFT_OUT, NOBODY, STRICT, Journey, changes, settle
from .test_snapshot import subvolume

RENAME_EXCHANGE = 2
#: FS_NODUMP_FL and FS_NOCOW_FL of linux/fs.h.
FLAG_NODUMP, FLAG_NO_COW = 0x40, 0x800000


class Trip(Journey):
    """A journey from snapshots, of the differences where they suffice."""

    def __init__(self, directory: Path, snapshots: Snapshots) -> None:
        self.snapshots = snapshots
        self.only: Selection | None = ALL
        super().__init__(directory, lambda path: path.exists() or path.mkdir())

    def go(self, stop_after: int | None = None) -> list[frames.Frame]:
        settled = now_ns()
        with Fd.open(str(self.here), os.O_RDONLY) as top:
            syncfs(top.fileno())
        with self.snapshots.taken() as moment:
            self.only = ALL
            if self.snapshots.base is not None:
                self.only = changed_names(self.snapshots.base.fd, moment.fd)
                with self.ledger("here") as ledger:
                    if has_links(moment.fd, self.only, ledger, LEFT_OUT):
                        self.only = ALL
            sent = self.send(moment.fd, settled, self.only, stop_after)
            self.snapshots.keep(moment)
        return sent

    def require_nothing_missed(self) -> None:
        """A walk through everything finds nothing more to send."""
        assert super().differences() == []
        settle()
        assert changes(super().go()) == []


@contextmanager
def trips(area: Path) -> Iterator[Trip]:
    subvolume(area / "here")
    with ExitStack() as closing:
        flags = os.O_RDONLY | os.O_DIRECTORY
        parent, top = (
            closing.enter_context(Fd.open(str(path), flags)) for path in (area, area / "here")
        )
        yield Trip(area, closing.enter_context(Snapshots(parent, "here", top)))


@pytest.fixture
def trip(btrfs_area: Path) -> Iterator[Trip]:
    with trips(btrfs_area) as made:
        yield made


def test_of_a_home_without_a_change_nothing_is_looked_at(trip: Trip) -> None:
    homes.make_odd_home(trip.here)
    trip.go()
    assert trip.go() == []
    assert trip.only == {}


def test_only_what_changed_is_looked_at(trip: Trip) -> None:
    homes.make_odd_home(trip.here)
    trip.go()
    (trip.here / "_contents/4096").write_bytes(b"new")
    (trip.here / "_large/0001").unlink()
    (trip.here / "_names").rename(trip.here / "renamed")
    trip.go()
    assert trip.only == {
        b"_contents": {b"4096": {}},
        b"_large": {b"0001": {}},
        b"_names": {},
        b"renamed": ALL,
    }
    trip.require_nothing_missed()


def _map(file: int) -> None:
    with mmap.mmap(file, 0) as area:
        area[5000:5004] = b"seen"


#: Everything that changes a file without giving it another name.
DEEDS: dict[str, Callable[[int], object]] = {
    "written to": lambda file: os.pwrite(file, b"seen", 5000),
    "written to in memory": _map,
    "appended to": lambda file: os.pwrite(file, b"seen", 100_000),
    "truncated": lambda file: os.truncate(file, 10),
    "with a hole": lambda file: reflink.punch_hole(file, 4096, 8192),
    "allocated": lambda file: os.posix_fallocate(file, 100_000, 50_000),
    "another mode": lambda file: os.fchmod(file, 0o640),
    "another owner": lambda file: os.fchown(file, 1000, 1000),
    "other times": lambda file: os.utime(file, ns=(1, 2)),
    "an attribute": lambda file: os.setxattr(file, "user.x", b"x"),
    "an access list": lambda file: os.setxattr(
        file, "system.posix_acl_access", homes.acl((0x02, 4, NOBODY))
    ),
    "a flag of chattr": lambda file: set_flags(file, get_flags(file) | FLAG_NODUMP),
}


@pytest.mark.parametrize("is_in_place", [False, True], ids=["copied on write", "in place"])
@pytest.mark.parametrize("deed", DEEDS.values(), ids=DEEDS)
def test_a_file_that_is_changed_in_any_way_is_told(
    trip: Trip, deed: Callable[[int], object], is_in_place: bool
) -> None:
    flags = os.O_RDWR | os.O_CREAT
    with Fd.open(str(trip.here / "note"), flags) as file:
        if is_in_place:
            set_flags(file.fileno(), FLAG_NO_COW)
        os.pwrite(file.fileno(), bytes(60_000), 0)
        trip.go()
        settle()
        deed(file.fileno())
        trip.go()
    assert trip.only == {b"note": {}}


@pytest.mark.parametrize("what", ["_links/m-first", "_links/a/again", "_links"])
def test_a_file_with_other_names_needs_a_walk_through_everything(trip: Trip, what: str) -> None:
    homes.make_odd_home(trip.here)
    trip.go()
    path = trip.here / what
    if path.is_dir():
        path.rename(trip.here / "moved")
    else:
        path.write_bytes(b"new")
    trip.go()
    assert trip.only is ALL
    trip.require_nothing_missed()


def test_a_path_too_long_for_btrfs_to_tell_is_told_as_such(trip: Trip) -> None:
    homes.make_odd_home(trip.here)
    trip.go()
    here = os.open(trip.here / "_deep", os.O_RDONLY)
    for number in range(120):
        below = os.open(b"%03d-%b" % (number, b"d" * 60), os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.mkdir("more", dir_fd=here)
    os.close(here)
    with pytest.raises(OSError, match="too long"):
        trip.go()


class Echo:
    """The other side, which always has what was sent."""

    def __init__(self) -> None:
        self.sent: list[frames.Frame] = []
        self._digest: object = None

    def send(self, frame: frames.Frame) -> None:
        self.sent.append(frame)

    def tell(self, compare: str) -> None:
        self._digest = compare

    def hear(self, word: str) -> object:
        assert word == "has"
        return self._digest


def test_each_round_looks_at_the_difference_only_also_in_the_next_run(
    trip: Trip, monkeypatch: pytest.MonkeyPatch
) -> None:
    homes.make_odd_home(trip.here)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(trip.here / "socket"))
    steps: list[reader.Step] = []
    walk = reader.walk

    def watched(*arguments: Any, **more: Any) -> Iterator[reader.Step]:
        for step in walk(*arguments, **more):
            steps.append(step)
            yield step

    monkeypatch.setattr(reader, "walk", watched)
    with ExitStack() as closing:
        home, area = (
            closing.enter_context(Fd.open(str(path), os.O_RDONLY))
            for path in (trip.here, trip.here.parent)
        )
        ledger = closing.enter_context(trip.ledger("here"))

        def rounds() -> Rounds:
            telling = Telling(cast("Any", SimpleNamespace(progress=lambda _: None)))
            allowance = Allowance(Size(10_000, 0, 1 << 42))
            return Rounds(cast("Any", Echo()), telling, ledger, STRICT, LEFT_OUT, allowance)

        with Snapshots(area, "here", home) as snapshots:
            one = rounds()
            first = one.run(home, snapshots, "copying", is_in_use=True)
            assert len(steps) > 3000
            steps.clear()
            (trip.here / "_large/0001").write_bytes(b"new content")
            second = one.run(home, snapshots, "copying", is_in_use=True)
            one.leave(snapshots)
        assert len(steps) < 20
        assert second.changes == 1
        assert abs(first.files - second.files) < 10
        steps.clear()
        (trip.here / "_large/0002").unlink()
        with (
            Fd.open(str(trip.here.parent), os.O_RDONLY) as fresh,
            Snapshots(fresh, "here", home) as snapshots,
        ):
            other = rounds()
            other.resume(snapshots)
            third = other.run(home, snapshots, "copying", is_in_use=True)
        assert len(steps) < 20
        assert third.changes == 2  # the directory has other times
        for told in (one.report, other.report):
            assert told.counts["socket-skipped"] == 1
        assert ledger.meta("base") == ""


# -- whatever somebody does ---------------------------------------------------------------------


class Vandal:
    """Does anything at all to a home."""

    def __init__(self, top: Path, seed: int) -> None:
        self._top = top
        self._chance = random.Random(seed)
        self._count = 0

    def act(self, count: int) -> None:
        deeds = self.deeds()
        for _ in range(count):
            with suppress(OSError):
                self._chance.choice(deeds)()
        homes.give_away(self._top)

    def deeds(self) -> list[Callable[[], object]]:
        """All that may be done."""
        return [
            self._write,
            self._rewrite,
            self._rewrite,
            self._truncate,
            self._punch,
            self._allocate,
            self._chmod,
            self._attribute,
            self._no_attribute,
            self._acl,
            self._times,
            self._directory,
            self._directories,
            self._rename,
            self._rename_directory,
            self._replace,
            self._exchange,
            self._unlink,
            self._remove_tree,
            self._symlink,
            self._fifo,
            self._socket,
            self._device,
        ]

    def _any(self, kind: Callable[[int], bool] | None = None) -> Path:
        found = [path for path in sorted(self._top.rglob("*")) if self._is(path, kind)]
        if not found:
            raise FileNotFoundError
        return self._chance.choice(found)

    @staticmethod
    def _is(path: Path, kind: Callable[[int], bool] | None) -> bool:
        return kind is None or kind(path.lstat().st_mode)

    def _somewhere(self) -> Path:
        found = [self._top, *(path for path in sorted(self._top.rglob("*")) if _is_real(path))]
        return self._chance.choice(found)

    def _place(self) -> Path:
        """Where something may be put: a new name, or one of a few that come again."""
        name = self._chance.choice(["a", "b", "c", f"n{self._count}"])
        self._count += 1
        return self._somewhere() / name

    def _write(self) -> None:
        size = self._chance.choice([0, 10, 5_000, 70_000, 1_200_000])
        _write(self._place(), self._chance.randbytes(size))

    def _rewrite(self) -> None:
        with self._any(stat.S_ISREG).open("r+b") as file:
            file.seek(self._chance.randrange(2_000_000))
            file.write(self._chance.randbytes(self._chance.randrange(1, 9_000)))

    def _truncate(self) -> None:
        os.truncate(self._any(stat.S_ISREG), self._chance.randrange(200_000))

    def _punch(self) -> None:
        with self._any(stat.S_ISREG).open("r+b") as file:
            reflink.punch_hole(file.fileno(), self._chance.randrange(40) * 4096, 65536)

    def _allocate(self) -> None:
        with self._any(stat.S_ISREG).open("r+b") as file:
            os.posix_fallocate(file.fileno(), 100_000 + self._chance.randrange(99_000), 50_000)

    def _chmod(self) -> None:
        self._any(lambda mode: not stat.S_ISLNK(mode)).chmod(self._chance.choice([0o700, 0o755]))

    def _attribute(self) -> None:
        value = self._chance.randbytes(self._chance.choice([0, 3, 300]))
        path = self._any(lambda mode: stat.S_ISREG(mode) or stat.S_ISDIR(mode))
        os.setxattr(path, f"user.{self._chance.randrange(3)}", value)

    def _no_attribute(self) -> None:
        path = self._any(lambda mode: stat.S_ISREG(mode) or stat.S_ISDIR(mode))
        os.removexattr(path, f"user.{self._chance.randrange(3)}")

    def _acl(self) -> None:
        path = self._any(stat.S_ISDIR)
        os.setxattr(path, "system.posix_acl_default", homes.acl((0x02, 4, NOBODY)))

    def _times(self) -> None:
        times = (self._chance.choice(homes.TIMES_NS), self._chance.choice(homes.TIMES_NS))
        os.utime(self._any(), ns=times, follow_symlinks=False)

    def _directory(self) -> None:
        self._place().mkdir()

    def _directories(self) -> None:
        place = self._place()
        (place / "a/b").mkdir(parents=True)
        _write(place / "a/c", b"%d" % self._count)

    def _rename(self) -> None:
        os.rename(self._any(), self._place())

    def _rename_directory(self) -> None:
        os.rename(self._any(stat.S_ISDIR), self._place())

    def _replace(self) -> None:
        os.replace(self._any(stat.S_ISREG), self._any(stat.S_ISREG))

    def _exchange(self) -> None:
        one, other = os.fsencode(self._any()), os.fsencode(self._any())
        renameat2(-100, os.fsdecode(one), -100, os.fsdecode(other), RENAME_EXCHANGE)

    def _unlink(self) -> None:
        self._any(lambda mode: not stat.S_ISDIR(mode)).unlink()

    def _remove_tree(self) -> None:
        if self._chance.random() < 0.3:
            _remove(self._any(stat.S_ISDIR))

    def _symlink(self) -> None:
        self._place().symlink_to(f"somewhere-{self._count}")

    def _fifo(self) -> None:
        os.mkfifo(self._place())

    def _socket(self) -> None:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(str(self._place()))

    def _device(self) -> None:
        os.mknod(self._place(), stat.S_IFCHR | 0o600, os.makedev(1, 3))


class Linker(Vandal):
    """One who also gives files further names."""

    def deeds(self) -> list[Callable[[], object]]:
        """All that may be done."""
        return [*super().deeds(), self._link, self._link_symlink]

    def _link(self) -> None:
        os.link(self._any(stat.S_ISREG), self._place())

    def _link_symlink(self) -> None:
        os.link(self._any(stat.S_ISLNK), self._place(), follow_symlinks=False)


def _write(path: Path, data: bytes) -> None:
    # A fifo that has the name must not be waited for.
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK | os.O_NOFOLLOW
    with Fd.open(str(path), flags) as file:
        os.write(file.fileno(), data)


def _is_real(path: Path) -> bool:
    return stat.S_ISDIR(path.lstat().st_mode)


def _remove(path: Path) -> None:
    for below in sorted(path.rglob("*"), reverse=True):
        if _is_real(below):
            below.rmdir()
        else:
            below.unlink()
    path.rmdir()


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("kind", [Vandal, Linker])
def test_whatever_was_done_all_of_it_arrives(trip: Trip, kind: type[Vandal], seed: int) -> None:
    vandal = kind(trip.here, seed)
    vandal.act(80)
    trip.go()
    parts = 0
    for count in (0, 1, 3, 10, 30, 100):
        vandal.act(count)
        trip.go()
        parts += trip.only is not ALL
        assert trip.digests()[0] == trip.digests()[1]
        assert _differences(trip) == []
    assert parts == 6 or kind is Linker
    settle()
    assert changes(Journey.go(trip)) == []


def _differences(trip: Trip) -> list[str]:
    """Of all that travels."""
    lost = {
        os.fsencode(path.relative_to(trip.here))
        for path in trip.here.rglob("*")
        if stat.S_ISSOCK(path.lstat().st_mode) or stat.S_ISCHR(path.lstat().st_mode)
    }
    return homes.compare(trip.here, trip.there, leave_out=tuple(lost))
