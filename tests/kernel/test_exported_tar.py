"""Exports restored by real GNU tar, and what GNU tar packs again, read by us."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from homemgr.files import DIRECTORY_FLAGS, Fd
from homemgr.storage import reader
from homemgr.transfer import tar
from homemgr.transfer.entry import Entry, Kind
from homemgr.transfer.frames import Data
from homemgr.transfer.policy import Policy, sanitise
from homemgr.transfer.untar import End, Member, Reader
from tests import homes

if TYPE_CHECKING:
    from collections.abc import Iterator

POLICY = Policy(homes.NOBODY, homes.NOBODY, is_wide=False)

#: As `tar` says that a home is restored without us.
RESTORE = ("--xattrs", "--xattrs-include=*", "--acls", "-xpf")

#: Longer than PATH_MAX: GNU tar cannot make it.
TOO_DEEP = frozenset({b"_deep"})

#: What a member was: entry without access time, and the runs of its data.
Found = dict[bytes, tuple[Entry, list[tuple[int, bytes]]]]


def export(home: Path, leave_out: frozenset[bytes]) -> Iterator[bytes]:
    """The archive of a home, piece by piece."""
    yield from document(tar.RECORD, b'{"version":1}')
    first: dict[int, bytes] = {}
    with Fd.open(str(home), DIRECTORY_FLAGS) as top:
        for step in reader.walk(top, leave_out=leave_out):
            if step.what == reader.LEAVE:
                continue
            entry, _ = sanitise(step.path, reader.read_entry(step), POLICY)
            if entry is None:
                continue
            known = first.setdefault(step.stat.st_ino, step.path)
            if known != step.path:
                yield tar.member(step.path, Entry(Kind.LINK, 0, 0, 0, 0, 0, 0, known, ()))
            elif entry.kind == Kind.FILE:
                yield from file(step, entry)
            else:
                yield tar.member(step.path, entry)
    yield from document(tar.MANIFEST, b"{}")
    yield tar.END


def document(name: bytes, text: bytes) -> Iterator[bytes]:
    yield tar.document(name, len(text)) + text + tar.padding(len(text))


def file(step: reader.Step, entry: Entry) -> Iterator[bytes]:
    with reader.open_content(step) as content:
        fd = content.fileno()
        runs = list(reader.data_runs(fd, entry.size))
        yield tar.member(step.path, entry, runs)
        for offset, length in tar.stored(entry, runs):
            yield os.pread(fd, length, offset)
        yield tar.padding(sum(length for _, length in runs))


def read(archive: Path) -> Found:
    """All of the home in an archive, adjacent data joined."""
    found: Found = {}
    parser, path = Reader(), None
    with archive.open("rb") as stream:
        while data := stream.read(1 << 16):
            for event in parser.feed(data):
                if isinstance(event, Member):
                    path = None if event.document else event.path
                    if path is not None:
                        found[path] = (event.entry._replace(atime_ns=0), [])
                elif isinstance(event, Data) and path is not None:
                    add(found[path][1], event)
                elif isinstance(event, End):
                    path = None
    parser.finish()
    return found


def add(runs: list[tuple[int, bytes]], data: Data) -> None:
    if runs and runs[-1][0] + len(runs[-1][1]) == data.offset:
        runs[-1] = (runs[-1][0], runs[-1][1] + data.data)
    else:
        runs.append((data.offset, data.data))


@pytest.fixture
def home(tmp_path: Path) -> Path:
    path = tmp_path / "alice"
    path.mkdir()
    homes.make_odd_home(path)
    return path


def packed(home: Path, leave_out: frozenset[bytes]) -> Path:
    archive = home.parent / "export.tar"
    with archive.open("wb") as out:
        out.writelines(export(home, leave_out))
    return archive


def restored(archive: Path, *arguments: str) -> Path:
    """The directory in which GNU tar unpacked an archive."""
    out = archive.parent / "out"
    out.mkdir()
    restore = ["tar", "--warning=no-timestamp", "-C", out, *RESTORE, archive, *arguments]
    done = subprocess.run(restore, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    return out


def test_plain_tar_restores_a_home_exactly(home: Path) -> None:
    out = restored(packed(home, TOO_DEEP), "home")
    assert os.listdir(out) == ["home"]
    assert homes.compare(home, out / "home", leave_out=tuple(TOO_DEEP)) == []


def test_we_read_what_we_wrote_however_deep(home: Path) -> None:
    found = read(packed(home, frozenset()))
    assert max(map(len, found)) > 4096
    with Fd.open(str(home), DIRECTORY_FLAGS) as top:
        for step in reader.walk(top):
            if step.what == reader.LEAVE:
                continue
            entry, runs = found.pop(step.path)
            wanted = reader.read_entry(step)
            if entry.kind == Kind.LINK:
                assert step.stat.st_nlink > 1
                continue
            assert entry == wanted._replace(atime_ns=0)
            if entry.kind == Kind.FILE:
                with reader.open_content(step) as content:
                    fd = content.fileno()
                    assert runs == [
                        (offset, os.pread(fd, length, offset))
                        for offset, length in reader.data_runs(fd, entry.size)
                    ]
    assert not found


@pytest.mark.parametrize("order", ["--sort=name", "--sort=none"])
def test_we_read_what_gnu_tar_packs_again(home: Path, order: str) -> None:
    archive = packed(home, TOO_DEEP)
    ours = read(archive)
    out = restored(archive)
    again = home.parent / "again.tar"
    pack = ["--format=pax", "--xattrs", "--xattrs-include=*", "--acls", "--sparse", order]
    parts = [os.fsdecode(name) for name in (tar.RECORD, tar.HOME, tar.MANIFEST)]
    subprocess.run(["tar", "-C", out, *pack, "-cf", again, *parts], check=True)
    theirs = read(again)
    assert ours.keys() == theirs.keys()
    for path, (entry, runs) in ours.items():
        other, other_runs = theirs[path]
        # In another order another name is the first of a file.
        if order == "--sort=name" or Kind.LINK not in (entry.kind, other.kind):
            assert (path, other) == (path, entry)
        # Whole blocks of zeros in a file that has holes may become holes.
        if entry == other and len(runs) < 2:
            assert other_runs == runs
