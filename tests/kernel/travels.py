"""Copies of whole trees with the reader and the writer, as a transfer makes them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from homemgr.files import Fd
from homemgr.storage import reader
from homemgr.storage.ledger import Ledger, Row
from homemgr.storage.writer import TreeWriter
from homemgr.transfer.content import ContentDigest
from homemgr.transfer.entry import Entry, Kind

NOBODY = 65534


def make_top(path: Path) -> Path:
    path.mkdir(mode=0o700)
    os.chown(path, NOBODY, NOBODY)
    return path


@contextmanager
def opened(path: Path) -> Iterator[Fd]:
    with Fd.open(str(path), os.O_RDONLY | os.O_DIRECTORY) as fd:
        yield fd


@contextmanager
def writing(path: Path) -> Iterator[TreeWriter]:
    """A writer in the top directory, which looks the same afterwards."""
    with opened(path) as top, TreeWriter(top) as writer:
        writer.enter(b"", None)
        yield writer
        writer.leave()


def file_entry(size: int, mode: int = 0o600) -> Entry:
    return Entry(Kind.FILE, mode, NOBODY, NOBODY, 1, 2, size, b"", ())


def directory_entry(mode: int = 0o700) -> Entry:
    return Entry(Kind.DIRECTORY, mode, NOBODY, NOBODY, 1, 2, 0, b"", ())


def link_entry(target: bytes) -> Entry:
    return Entry(Kind.LINK, 0, 0, 0, 0, 0, 0, target, ())


def symlink_entry(text: bytes) -> Entry:
    return Entry(Kind.SYMLINK, 0o777, NOBODY, NOBODY, 1, 2, 0, text, ())


def fifo_entry() -> Entry:
    return Entry(Kind.FIFO, 0o640, NOBODY, NOBODY, 1, 2, 0, b"", ())


def copy(here: Path, there: Path, ledger: Ledger | None = None) -> None:
    """Everything from one tree into the other, and into a ledger of the other."""
    first: dict[int, bytes] = {}
    with opened(here) as source, opened(there) as target, TreeWriter(target) as writer:
        for step in reader.walk(source):
            digest = mark = b""
            if step.what == reader.LEAVE:
                writer.leave()
                continue
            entry = reader.read_entry(step)
            if step.what == reader.ENTER:
                writer.enter(step.name, entry)
            elif first.setdefault(step.stat.st_ino, step.path) != step.path:
                entry = link_entry(first[step.stat.st_ino])
                mark = writer.node(step.name, entry)
            elif entry.kind == Kind.FILE:
                digest, mark = copy_file(step, entry, writer)
            else:
                mark = writer.node(step.name, entry)
            if ledger is not None:
                ledger.put(step.path, Row(entry, digest, b"", mark))


def copy_file(step: reader.Step, entry: Entry, writer: TreeWriter) -> tuple[bytes, bytes]:
    state = ContentDigest(entry.size)
    with reader.open_content(step) as source, writer.begin(step.name, entry) as file:
        for offset, length in reader.data_runs(source.fileno(), entry.size):
            data = os.pread(source.fileno(), length, offset)
            state.data(offset, data)
            file.data(offset, data)
        return state.finish()[0], file.finish()
