"""An image gets another size, and dies at each of its writes, whole or in the middle of it."""

from __future__ import annotations

import json
import os
import signal
import struct
import uuid
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from homemgr.errors import HostileHome, NotSupported
from homemgr.files import Fd
from homemgr.kernel import loop
from homemgr.storage import image_layout, image_parts
from homemgr.storage.image_layout import Layout
from homemgr.storage.image_parts import Part
from homemgr.volume import gpt
from homemgr.volume.probe import USER_HOME

MIB = 1 << 20
SMALL, LARGE = 8 * MIB, 12 * MIB
#: Where the note is, and what it begins with.
NOTE, MAGIC = MIB // 2, b"homemgr-resize-1"
#: What is written with, in the order in which it is looked for.
WRITES = ("posix_fallocate", "ftruncate", "pwrite", "fsync")


@pytest.fixture
def image(tmp_path: Path) -> Path:
    """An image of two partitions, the second of which is for the home."""
    path = tmp_path / "anna.home"
    divide(path, SMALL)
    return path


def divide(path: Path, size: int, sector: int = 512, *, places: tuple[int, int] = (1, 2)) -> None:
    first = gpt.Partition(str(uuid.uuid4()), str(uuid.uuid4()), MIB, MIB, "first")
    start, length = gpt.last_partition(size, 2 * MIB, sector)
    home = gpt.Partition(USER_HOME, str(uuid.uuid4()), start, length, "anna")
    parts = [one for _, one in sorted(zip(places, (first, home), strict=True))]
    with path.open("wb") as file:
        file.truncate(size)
        for offset, data in gpt.table(size, str(uuid.uuid4()), parts, sector).items():
            os.pwrite(file.fileno(), data, offset)


def opened(path: Path) -> Fd:
    return Fd.open(str(path), os.O_RDWR)


def layout_of(fd: Fd) -> tuple[Part, Layout]:
    _, home = image_parts.partitions(fd, "image")
    part = Part(home.start, home.size, home.guid)
    return part, image_layout.layout_of(fd, "image", part)


def resize(path: Path, size: int) -> None:
    with opened(path) as fd:
        part, old = layout_of(fd)
        new = image_layout.resized(old, part, size)
        if size > old.size:
            image_layout.grow(fd, old, new, is_sparse=False)
        else:
            image_layout.shrink(fd, old, new, lambda: None)


def died(monkeypatch: pytest.MonkeyPatch, at: int, work: Callable[[], None]) -> bool:
    """Do ``work`` in a process that dies at its write number ``at``; False if it has fewer."""
    child = os.fork()
    if child == 0:
        seen = 0

        def dying(call: Callable[..., object]) -> Callable[..., object]:
            def run(*arguments: object) -> object:
                nonlocal seen
                seen += 1
                if seen == at:
                    if call is os_pwrite:
                        fd, data, offset = arguments
                        # The kernel may be stopped between two pages, a disk between two sectors.
                        done = 40 if offset == NOTE else len(data) // 2  # type: ignore[arg-type]
                        os_pwrite(fd, data[:done], offset)  # type: ignore[arg-type,index]
                    os.kill(os.getpid(), signal.SIGKILL)
                return call(*arguments)

            return run

        os_pwrite = os.pwrite
        with suppress(BaseException):
            for name in WRITES:
                monkeypatch.setattr(os, name, dying(getattr(os, name)))
            work()
            os._exit(0)
        os._exit(1)
    status = os.waitpid(child, 0)[1]
    assert status in (0, signal.SIGKILL)
    return status != 0


@pytest.mark.parametrize("goal", [LARGE, SMALL])
def test_whatever_it_dies_at_it_has_one_of_both_layouts(
    image: Path, monkeypatch: pytest.MonkeyPatch, goal: int
) -> None:
    start = SMALL + LARGE - goal
    at, sizes = 1, []
    while True:
        divide(image, start)
        with opened(image) as fd:
            _, before = layout_of(fd)
        if not died(monkeypatch, at, lambda: resize(image, goal)):
            break
        # Killed while it is settled as well: the second time has to come to the same end.
        died(monkeypatch, 2, lambda: settle(image))
        settle(image)
        with opened(image) as fd:
            part, found = layout_of(fd)
            for offset, data in found.table().items():
                assert os.pread(fd.fileno(), len(data), offset) == data
        assert found.disk == before.disk
        assert found in (before, image_layout.resized(before, part, goal))
        assert image.stat().st_size == found.size
        assert not noted(image)
        sizes.append(found.size)
        at += 1
    # Both ends of it were met.
    assert set(sizes) == {SMALL, LARGE}
    assert image.stat().st_size == goal


def test_a_note_goes_when_all_that_it_is_about_is_on_disk(
    image: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a killed process has written may be in memory alone, for all that is known of it."""
    at, settled = 1, 0
    while died(monkeypatch, at, lambda: resize(image, LARGE)):
        done: list[str] = []

        def noting(name: str, done: list[str] = done) -> Callable[..., object]:
            call = getattr(os, name)

            def run(*arguments: object) -> object:
                done.append("forget" if arguments[2:] == (NOTE,) else name)
                return call(*arguments)

            return run

        with monkeypatch.context() as patch:
            for name in WRITES:
                patch.setattr(os, name, noting(name))
            settle(image)
        if "forget" in done:
            # Nothing was written after the last time that all of it was put on the disk.
            assert done[done.index("forget") - 1 : done.index("forget")] == ["fsync"]
            settled += 1
        divide(image, SMALL)
        at += 1
    assert settled > 1


def test_what_others_have_at_its_beginning_stays(image: Path) -> None:
    program, sector = os.urandom(440), image.read_bytes()[440:512]
    with image.open("r+b") as file:
        file.write(program)
    resize(image, LARGE)
    begin = image.read_bytes()[:512]
    assert begin[:440] == program
    # The one entry of it that says how large the image is.
    assert begin[440:] == sector.replace(
        struct.pack("<I", SMALL // 512 - 1), struct.pack("<I", LARGE // 512 - 1)
    )
    # One that names partitions for programs of old says more than we know.
    with image.open("r+b") as file:
        file.seek(446 + 16)
        file.write(b"\x01" * 16)
        file.seek(0)
        begin = file.read(512)
    resize(image, SMALL)
    assert image.read_bytes()[:512] == begin


def settle(path: Path) -> None:
    with opened(path) as fd:
        image_layout.settle(fd)


def noted(path: Path) -> bool:
    raw = path.read_bytes()[NOTE : NOTE + 4096]
    (length,) = struct.unpack_from("<I", raw, 16)
    return length > 0 and raw.startswith(note(raw[24 : 24 + length]))


def note(text: bytes) -> bytes:
    return MAGIC + struct.pack("<II", len(text), zlib.crc32(text)) + text


def write_at(path: Path, data: bytes) -> None:
    with path.open("r+b") as file:
        os.pwrite(file.fileno(), data, NOTE)


def test_a_note_that_says_nothing_is_not_acted_on(image: Path) -> None:
    with opened(image) as fd:
        disk = layout_of(fd)[1].disk
    part = [["x"], "", 1 << 70, 1, "x"]
    for told in ({}, [1], [[1, 512, "", []], 2], [[1, 0, "x"]] * 2, [[1, 512, disk, [part]]] * 2):
        write_at(image, note(json.dumps(told).encode()))
        before = image.read_bytes()
        with pytest.raises(HostileHome, match="note of a resize"):
            settle(image)
        assert image.read_bytes() == before
    # One that ends too early is none: it is on disk before anything else is done.
    write_at(image, note(b"[]" * 100)[:40] + bytes(200))
    before = image.read_bytes()
    settle(image)
    assert image.read_bytes() == before


def test_a_note_from_elsewhere_is_not_acted_on(image: Path) -> None:
    with opened(image) as fd:
        part, layout = layout_of(fd)
    first, home = layout.parts
    small = image_layout.resized(layout, part, SMALL - MIB)
    # More than there is, said of the table that there is.
    write_at(image, note(json.dumps([layout._replace(size=LARGE)] * 2).encode()))
    before = image.read_bytes()
    with pytest.raises(HostileHome, match="note of a resize"):
        settle(image)
    assert image.read_bytes() == before
    others = (
        layout._replace(sector=1024),
        layout._replace(parts=()),
        layout._replace(parts=(first._replace(start=NOTE), home)),
        layout._replace(parts=(first, home._replace(size=SMALL))),
        layout._replace(parts=(first, home._replace(size=0))),
    )
    for goal in others:
        write_at(image, note(json.dumps([goal, goal]).encode()))
        before = image.read_bytes()
        settle(image)
        assert image.read_bytes() == before
        # The same where the table does not contradict it, as it is torn.
        table = gpt.table(SMALL, str(layout.disk), layout.parts)[512]
        with image.open("r+b") as file:
            os.pwrite(file.fileno(), bytes(1), 512 + 512)
            torn = image.read_bytes()
            if goal.sector == layout.sector:
                with pytest.raises(HostileHome, match="note of a resize"):
                    settle(image)
            else:
                settle(image)
            assert image.read_bytes() == torn
            os.pwrite(file.fileno(), table, 512)
    # Left of what was on the disk before; nested without end.
    stranger = small._replace(disk=str(uuid.uuid4()))
    for text in (json.dumps([stranger, stranger]), "[" * 4000):
        write_at(image, note(text.encode()))
        before = image.read_bytes()
        settle(image)
        assert image.read_bytes() == before
    # Inside the header of a volume that has all of the image, whatever it looks like.
    larger = image_layout.resized(layout, part, LARGE)
    write_at(image, note(json.dumps([larger, layout]).encode()))
    with image.open("r+b") as file:
        file.truncate(LARGE)
        file.write(b"LUKS\xba\xbe")
    before = image.read_bytes()
    settle(image)
    assert image.read_bytes() == before
    with image.open("r+b") as file:
        file.write(bytes(6))
    settle(image)
    assert image.stat().st_size == SMALL


@pytest.mark.parametrize("noted_from", [SMALL, LARGE])
@pytest.mark.parametrize("by_others", [SMALL, LARGE, LARGE + 4 * MIB, SMALL - 2 * MIB])
def test_a_note_that_others_have_outlived_cuts_nothing_off(
    image: Path, noted_from: int, by_others: int
) -> None:
    with opened(image) as fd:
        part, layout = layout_of(fd)
    if noted_from == LARGE:
        resize(image, LARGE)
        layout = image_layout.resized(layout, part, LARGE)
    other = image_layout.resized(layout, part, SMALL + LARGE - noted_from)
    # Whoever was killed had done it all but to forget it; then systemd-homed was here.
    for size in (other.size, by_others):
        if image.stat().st_size != size:
            resize(image, size)
    write_at(image, note(json.dumps([layout, other]).encode()))
    with opened(image) as fd:
        _, now = layout_of(fd)
    settle(image)
    with opened(image) as fd:
        assert layout_of(fd)[1] == now
    assert image.stat().st_size == by_others


def test_a_disk_keeps_its_start(image: Path) -> None:
    start = b"a program to boot".ljust(512, b"!")
    with image.open("r+b") as file:
        file.write(start)
    with opened(image) as backing, loop.attach(backing.fileno()).device as disk:
        image_layout.require_reproducible(disk, "disk")
        part, old = layout_of(disk)
        new = image_layout.resized(old, part, MIB, keeps_size=True)
        image_layout.shrink(disk, old, new, lambda: None)
        assert layout_of(disk)[1] == new
        # Whoever is killed with this note leaves it to `settle` to write the table.
        os.pwrite(disk.fileno(), note(json.dumps([new, old]).encode()), NOTE)
        image_layout.settle(disk)
        assert layout_of(disk)[1] == old
        assert os.pread(disk.fileno(), 512, 0) == start
    divide(image, SMALL, places=(2, 1))
    with opened(image) as file, pytest.raises(NotSupported, match="in the order of their places"):
        image_layout.require_reproducible(file, "disk")


def test_an_image_with_larger_sectors_keeps_them(tmp_path: Path) -> None:
    path = tmp_path / "large"
    divide(path, SMALL, 4096)
    resize(path, LARGE)
    with opened(path) as fd:
        _, layout = layout_of(fd)
    assert (layout.size, layout.sector) == (LARGE, 4096)


def test_a_partition_behind_the_home_is_not_run_over(image: Path) -> None:
    with opened(image) as fd:
        _, layout = layout_of(fd)
        first = layout.parts[0]
        with pytest.raises(NotSupported):
            image_layout.resized(layout, Part(first.start, first.size, first.guid), LARGE)
