"""Look whether a classic home directory can become a home area, and write down what is odd in it.

The tree is hostile, and in use by others perhaps. Nothing is changed: what cannot be taken over is
refused, and of the rest a `Ledger` tells what is not simply the user's own, how it is, and what
is to become of it. That is for the policy of transfers to say: what could not travel loses its
rights here as well, but stays.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final, NamedTuple

from homemgr.errors import NotSupported
from homemgr.kernel.statx import place
from homemgr.storage import reader
from homemgr.storage.owner_ledger import Ledger, Odd, Xattrs
from homemgr.storage.owners import OFTEN, SETID, entries, rights_of
from homemgr.transfer import policy
from homemgr.transfer.entry import Entry, Kind
from homemgr.transfer.report import Note, Report

if TYPE_CHECKING:
    from homemgr.files import Fd
    from homemgr.storage.owners import Owner, Progress
    from homemgr.storage.reader import Step

#: How many paths a refusal names.
_NAMED: Final = 5

_KINDS = {
    stat.S_IFDIR: Kind.DIRECTORY,
    stat.S_IFREG: Kind.FILE,
    stat.S_IFLNK: Kind.SYMLINK,
    stat.S_IFIFO: Kind.FIFO,
}


class Surveyed(NamedTuple):
    """What is in a home directory."""

    files: int
    bytes: int
    report: Report
    exceptions: int


class _Refusals:
    """What stands in the way, gathered so that it is told in one go."""

    def __init__(self) -> None:
        self._found: dict[str, list[bytes]] = {}

    def add(self, what: str, path: bytes) -> None:
        self._found.setdefault(what, []).append(path)

    def check(self) -> None:
        """Raise NotSupported if there is anything."""
        if not self._found:
            return
        parts = []
        for what, paths in self._found.items():
            named = ", ".join(ascii(os.fsdecode(path))[1:-1] or "." for path in paths[:_NAMED])
            more = f" and {len(paths) - _NAMED} more" if len(paths) > _NAMED else ""
            parts.append(f"{what}: {named}{more}")
        raise NotSupported(
            f"The home directory holds what cannot be in a home area; {'; '.join(parts)}."
            " Remove these, or move them away, and try again. Nothing was changed."
        )


def survey(
    top: Fd, owner: Owner, ledger: Ledger, progress: Progress, *, reserved: frozenset[bytes]
) -> Surveyed:
    """Look at everything below ``top`` and write the ledger.

    Raises NotSupported for device nodes, files with names elsewhere, files marked immutable or
    append-only, subvolumes, and what has one of the ``reserved`` paths; HomeBusy if something is
    mounted inside.
    """
    device = os.fstat(top.fileno()).st_dev
    look = _Survey(policy.Policy(owner.uid, owner.gid, is_wide=False), reserved, device)
    with ledger.planning() as plan:
        for step in entries(top):
            odd = look.entry(step)
            if odd is not None:
                plan.add(odd)
            if look.files % OFTEN == 0:
                progress(look.files, look.bytes)
        look.check()
    return Surveyed(look.files, look.bytes, look.report, look.odd)


class _Survey:
    """What one walk finds."""

    def __init__(self, rules: policy.Policy, reserved: frozenset[bytes], device: int) -> None:
        self._rules = rules
        self._reserved = reserved
        self._device = device
        self._refusals = _Refusals()
        #: Of files with several names: how many were seen, how many there are, the first one.
        self._linked: dict[tuple[int, int], tuple[int, int, bytes]] = {}
        self.report = Report()
        self.files = self.bytes = self.odd = 0

    def entry(self, step: Step) -> Odd | None:
        """Count one, and judge it."""
        found = step.stat
        self.files += 1
        if stat.S_ISREG(found.st_mode):
            self.bytes += found.st_size
        if found.st_nlink > 1 and not stat.S_ISDIR(found.st_mode):
            identity = (found.st_dev, found.st_ino)
            seen, _, first = self._linked.get(identity, (0, 0, step.path))
            self._linked[identity] = (seen + 1, found.st_nlink, first)
        for what in self._in_the_way(step):
            self._refusals.add(what, step.path)
        if _is_device(found):
            return None
        odd, notes = _judged(step, self._rules)
        self.report.extend(notes)
        self.odd += odd is not None
        return odd

    def check(self) -> None:
        """Raise NotSupported if anything stands in the way."""
        for seen, links, first in self._linked.values():
            if seen < links:
                self._refusals.add("files with further names elsewhere", first)
        self._refusals.check()

    def _in_the_way(self, step: Step) -> list[str]:
        """Words for what keeps an entry from getting another owner."""
        is_open = step.what == reader.ENTER
        found = place(step.fd) if is_open else place(step.parent, os.fsdecode(step.name))
        words = []
        if step.path in self._reserved:
            words.append("names that a home area needs for itself")
        if _is_device(step.stat):
            words.append("device nodes")
        if found.is_immutable or found.is_append_only:
            words.append("files marked immutable or append-only (see chattr(1))")
        if found.is_mount_root and step.path:
            words.append("mount points")
        # Inside of them inode numbers begin anew.
        if is_open and step.stat.st_dev != self._device:
            words.append("subvolumes")
        return words


def _is_device(found: os.stat_result) -> bool:
    """Whether it gives access to something; overlayfs' marks for deleted files, 0:0, do not."""
    is_character = stat.S_ISCHR(found.st_mode) and found.st_rdev != 0
    return is_character or stat.S_ISBLK(found.st_mode)


def _judged(step: Step, rules: policy.Policy) -> tuple[Odd | None, list[Note]]:
    """What is to become of an entry, if more is to be said than that it becomes nobody's."""
    found = step.stat
    rights = rights_of(step)
    is_own = found.st_uid == rules.disk_uid and found.st_gid == rules.disk_gid
    mode = stat.S_IMODE(found.st_mode)
    # What owners lose with a change of owner has to be known for a second attempt.
    is_simple = not rights and (stat.S_ISDIR(found.st_mode) or not mode & SETID)
    if is_own and is_simple:
        return None, []
    kind = _KINDS.get(stat.S_IFMT(found.st_mode))
    if kind == Kind.SYMLINK:
        # Nobody's rights depend on who owns a link; only the way back needs to know.
        return _exception(step, mode, mode, (), ()), []
    # A socket, or an overlay's mark, is judged like a pipe: it stays, and nobody can use it.
    entry = Entry(kind or Kind.FIFO, mode, found.st_uid, found.st_gid, 0, 0, 0, b"", rights)
    new, notes = policy.sanitise(step.path, entry, rules)
    assert new is not None  # only sockets, devices and links are left out
    return _exception(step, mode, new.mode, rights, new.xattrs), notes


def _exception(step: Step, mode: int, new_mode: int, old: Xattrs, new: Xattrs) -> Odd:
    found = step.stat
    return Odd(
        step.path,
        found.st_ino,
        found.st_uid,
        found.st_gid,
        mode,
        old,
        new_mode,
        new,
        surveyed_ns=found.st_ctime_ns,
    )
