"""What in a home was not simply its user's, in a file: one JSON object on each line.

Its first line says how far it is: ``planned`` by the survey, ``applied`` with the times of the
last change after that, ``selected`` once it is decided what is given back as it was. Each state
is written to a new file that takes the place of the one before, synced.
"""

from __future__ import annotations

import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from homemgr.files import GUARDED_FLAGS, Fd

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import TextIO

_PLANNED, _APPLIED, _SELECTED = "planned", "applied", "selected"

Xattrs = tuple[tuple[bytes, bytes], ...]


class Odd(NamedTuple):
    """An entry that was not simply the user's own: as it was, and as it is to be."""

    path: bytes
    inode: int
    uid: int
    gid: int
    mode: int
    xattrs: Xattrs
    new_mode: int
    new_xattrs: Xattrs
    #: When the inode had been changed last at the survey.
    surveyed_ns: int = 0
    #: When the inode was changed last, once it is as it is to be.
    changed_ns: int | None = None

    def line(self) -> str:
        """As a line of the file."""
        told = self._asdict()
        told |= {"path": os.fsdecode(self.path)}
        told |= {name: _hex(told[name]) for name in ("xattrs", "new_xattrs")}
        return json.dumps(told)

    @classmethod
    def of(cls, line: str) -> Odd:
        """From a line."""
        told = json.loads(line)
        told |= {name: _bytes(told[name]) for name in ("xattrs", "new_xattrs")}
        return cls(**{**told, "path": os.fsencode(told["path"])})


def _hex(xattrs: Xattrs) -> dict[str, str]:
    return {name.decode(): value.hex() for name, value in xattrs}


def _bytes(told: dict[str, str]) -> Xattrs:
    return tuple((name.encode(), bytes.fromhex(value)) for name, value in told.items())


class _New:
    """A file that takes the place of the ledger when it is complete."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def add(self, one: Odd) -> None:
        self._file.write(one.line() + "\n")


class _Plan:
    """The exceptions in the order of the walk, and the new file with their times."""

    def __init__(self, exceptions: Iterator[Odd], new: _New) -> None:
        self._exceptions = exceptions
        self._new = new

    def next(self) -> Odd | None:
        """The next one to come; None after the last."""
        return next(self._exceptions, None)

    def done(self, one: Odd, changed_ns: int) -> None:
        """Note when it was changed."""
        self._new.add(one._replace(changed_ns=changed_ns))


class Ledger:
    """The file ``name`` in a directory that is root's alone."""

    def __init__(self, directory: str, name: str) -> None:
        """Know where it is; nothing is read yet."""
        self._directory = directory
        self._name = name

    @property
    def is_selected(self) -> bool:
        """Whether it was decided already what is given back as it was."""
        return self._state() == _SELECTED

    def exceptions(self) -> Iterator[Odd]:
        """All of them, in the order of the survey."""
        with self._open() as file:
            file.readline()
            for line in file:
                yield Odd.of(line)

    @contextmanager
    def planning(self) -> Iterator[_New]:
        """A new ledger, which counts when the block ends well."""
        with self._replaced(_PLANNED) as new:
            yield new

    @contextmanager
    def applying(self) -> Iterator[_Plan]:
        """Carry it out; what was found is kept when the block ends well."""
        with self._replaced(_APPLIED) as new:
            yield _Plan(self.exceptions(), new)

    def select(self, unchanged: set[int]) -> None:
        """Decide: those with these inodes are given back as they were, others get inode 0."""
        with self._replaced(_SELECTED) as new:
            for one in self.exceptions():
                new.add(one if one.inode in unchanged else one._replace(inode=0))

    def _state(self) -> str:
        with self._open() as file:
            return str(json.loads(file.readline())["state"])

    def _open(self) -> TextIO:
        flags = os.O_RDONLY | GUARDED_FLAGS
        fd = Fd.open(os.path.join(self._directory, self._name), flags)
        return open(fd.take(), encoding="utf-8")

    @contextmanager
    def _replaced(self, state: str) -> Iterator[_New]:
        path = os.path.join(self._directory, self._name)
        # One at a time works on a home, so what a killed run left can be written over.
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | GUARDED_FLAGS
        with (
            Fd.open(self._directory, os.O_RDONLY | os.O_DIRECTORY) as parent,
            open(Fd.open(path + ".new", flags, 0o600).take(), "w", encoding="utf-8") as file,
        ):
            file.write(json.dumps({"state": state}) + "\n")
            yield _New(file)
            file.flush()
            os.fsync(file.fileno())
            os.rename(path + ".new", path)
            os.fsync(parent.fileno())
