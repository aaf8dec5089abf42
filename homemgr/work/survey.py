"""A look at a whole home before it travels: how large it is, and what it asks of a file system."""

from __future__ import annotations

import stat
import unicodedata
from typing import TYPE_CHECKING

from homemgr.storage import reader
from homemgr.storage.ledger import proof
from homemgr.transfer.needs import Ability, Need, Needs
from homemgr.transfer.policy import is_acl, is_of_user
from homemgr.work.allowance import Size

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Collection

    from homemgr.files import Fd
    from homemgr.storage.reader import Step

#: Control characters, and what FAT and NTFS do not have in names.
_ODD_BYTES = bytes(range(0x20)) + b'"*:<>?\\|\x7f'
_ODD_ENDS = (b".", b" ")

_SECOND = 1_000_000_000
#: Where signed seconds of 32 bits end.
_YEAR_2038 = 1 << 31

_DESCRIBED = (Ability.XATTR_VALUE, Ability.ACLS)


def survey(
    top: Fd,
    leave_out: frozenset[bytes],
    asked: Collection[Ability],
    see: Callable[[bytes, bytes], None] | None = None,
) -> tuple[Size, Needs]:
    """How large the tree below ``top`` is, and how much it needs of what is asked.

    ``leave_out`` are paths that do not travel. ``see`` is told of the path and the `proof` of
    every name.
    """
    looking = _Survey(asked)
    files = blocks = content = 0
    #: Files with several names, by device and inode: each is there, and travels, once.
    met: set[tuple[int, int]] = set()
    for step in reader.walk(top, leave_out=leave_out):
        what, found = step.what, step.stat
        if what != reader.LEAVE:
            files += 1
            if what != reader.ENTRY:
                blocks += found.st_blocks
            elif found.st_nlink == 1 or not _was_met(found, met):
                blocks += found.st_blocks
                content += found.st_size
            if see is not None:
                see(step.path, proof(found))
        if asked:
            try:
                looking.look(step)
            except reader.NAMELESS as error:
                reader.note_path(error, step.path)
                raise
    return Size(files, blocks * 512, content), looking.needs


def _was_met(found: os.stat_result, met: set[tuple[int, int]]) -> bool:
    """Whether this is a further name of a file that was ``met``; notes its first."""
    inode = (found.st_dev, found.st_ino)
    if inode in met:
        return True
    met.add(inode)
    return False


class _Survey:
    """What was needed most so far."""

    def __init__(self, asked: Collection[Ability]) -> None:
        self._asked = frozenset(asked)
        self._most = dict.fromkeys(self._asked, Need(0, b""))
        self._is_described = bool(self._asked.intersection(_DESCRIBED))
        #: Names as they look to who does not tell alike ones apart, of each directory we are in.
        self._alike: list[set[str]] = []

    @property
    def needs(self) -> Needs:
        """What is needed at all, of what was asked."""
        return {a: self._most[a] for a in Ability if a in self._most and self._most[a].most}

    def look(self, step: Step) -> None:
        """Take a step of the walk into account."""
        if step.what == reader.LEAVE:
            self._alike.pop()
            return
        self._name(step)
        if Ability.TIMES in self._asked:
            self._time(step)
        if step.what == reader.ENTER:
            self._alike.append(set())
        else:
            self._kind(step)
        if self._is_described:
            self._described(step)

    def _note(self, ability: Ability, number: int, step: Step) -> None:
        if ability in self._most and number > self._most[ability].most:
            self._most[ability] = Need(number, step.path)

    def _name(self, step: Step) -> None:
        name = step.name
        self._note(Ability.NAME_LENGTH, len(name), step)
        if Ability.ODD_NAMES in self._asked and _is_odd(name):
            self._note(Ability.ODD_NAMES, 1, step)
        if Ability.ALIKE_NAMES in self._asked and name:
            text = unicodedata.normalize("NFC", name.decode("utf-8", "surrogateescape").casefold())
            if text in self._alike[-1]:
                self._note(Ability.ALIKE_NAMES, 1, step)
            self._alike[-1].add(text)

    def _time(self, step: Step) -> None:
        time_ns = step.stat.st_mtime_ns
        if time_ns % _SECOND or not -_YEAR_2038 <= time_ns // _SECOND < _YEAR_2038:
            self._note(Ability.TIMES, 1, step)

    def _kind(self, step: Step) -> None:
        found = step.stat
        if stat.S_ISREG(found.st_mode):
            self._note(Ability.FILE_SIZE, found.st_size, step)
            self._note(Ability.HARD_LINKS, found.st_nlink, step)
            if found.st_blocks * 512 < found.st_size:
                self._note(Ability.HOLES, 1, step)
        elif stat.S_ISLNK(found.st_mode):
            self._note(Ability.SYMLINK_LENGTH, found.st_size, step)
        elif stat.S_ISFIFO(found.st_mode):
            self._note(Ability.FIFOS, 1, step)

    def _described(self, step: Step) -> None:
        try:
            attributes = reader.attributes(step)
        except reader.FileVanished:
            return
        for name, value in attributes:
            if is_acl(name):
                self._note(Ability.ACLS, 1, step)
            elif is_of_user(name):
                self._note(Ability.XATTR_VALUE, max(1, len(value)), step)


def _is_odd(name: bytes) -> bool:
    if name.translate(None, _ODD_BYTES) != name or name.endswith(_ODD_ENDS):
        return True
    try:
        name.decode("utf-8")
    except UnicodeDecodeError:
        return True
    return False
