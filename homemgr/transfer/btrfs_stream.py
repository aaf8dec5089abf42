"""Which names differ between two snapshots, out of what btrfs sends to make one of the other.

The stream is version 1 of fs/btrfs/send.h in Linux, little endian: ``btrfs-stream``, a NUL,
the version u32, then commands: length of the body u32, command u16, CRC u32, and the body,
which is attributes: number u16, length u16, value. The CRC is not looked at, as the stream
comes out of our own kernel.

The commands are not carried out, only their paths are kept. They are those of the moment when
a command is carried out, and become others when it renames a directory above: so all below
the new name of what was renamed or made counts as changed, and no renaming need be followed.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from typing import TYPE_CHECKING

from homemgr.errors import StreamError
from homemgr.transfer.selection import Selecting

if TYPE_CHECKING:
    from homemgr.transfer.selection import Selection

MAGIC = b"btrfs-stream\0"

#: The longest body of a command; version 1 has no data of more than 48 KiB, none longer with it.
MAX_BODY = 64 << 10

_VERSION = struct.Struct("<I")
_COMMAND = struct.Struct("<IHI")
_ATTRIBUTE = struct.Struct("<HH")


class Command(IntEnum):
    """Those that mean something else here than that the name at `Attribute.PATH` changed."""

    SNAPSHOT = 2
    MKDIR = 4
    RENAME = 9
    LINK = 10
    END = 21
    #: In place of `WRITE` and `CLONE` if no content is wanted; the last of version 1.
    UPDATE_EXTENT = 22


class Attribute(IntEnum):
    """Those that are paths."""

    PATH = 15
    PATH_TO = 16
    PATH_LINK = 17


class ChangedNames:
    """Takes the stream as it comes, and holds at most one command that is not complete."""

    def __init__(self) -> None:
        """Begin before the first byte."""
        self._held = bytearray()
        self._is_begun = False
        self._is_ended = False
        self._selecting = Selecting()

    def feed(self, data: bytes) -> None:
        """Take more; `StreamError` if it is no such stream, or tells of too many names."""
        held = self._held
        held += data
        at = 0
        if not self._is_begun:
            at = len(MAGIC) + _VERSION.size
            if len(held) < at:
                return
            if not held.startswith(MAGIC) or _VERSION.unpack_from(held, len(MAGIC)) != (1,):
                raise StreamError("This is no stream of btrfs, or of another version than 1.")
            self._is_begun = True
        while len(held) - at >= _COMMAND.size:
            length, command, _ = _COMMAND.unpack_from(held, at)
            if length > MAX_BODY:
                raise StreamError("A command of btrfs is too long.")
            end = at + _COMMAND.size + length
            if end > len(held):
                break
            self._take(command, bytes(held[at + _COMMAND.size : end]))
            at = end
        del held[:at]

    def finish(self) -> Selection:
        """The names that differ; `StreamError` if the stream was cut off."""
        if not self._is_ended or self._held:
            raise StreamError("A stream of btrfs is cut short.")
        return self._selecting.selection

    def _take(self, command: int, body: bytes) -> None:
        if self._is_ended:
            raise StreamError("A stream of btrfs goes on after its end.")
        if command == Command.END:
            self._is_ended = True
            return
        if not Command.SNAPSHOT <= command <= Command.UPDATE_EXTENT:
            raise StreamError(f"Command {command} of btrfs is not known.")
        if command == Command.SNAPSHOT:
            return
        found = _attributes(body)
        try:
            path = found[Attribute.PATH]
            if command == Command.RENAME:
                self._selecting.name(path)
                self._selecting.tree(found[Attribute.PATH_TO])
            elif command == Command.MKDIR:
                self._selecting.tree(path)
            else:
                self._selecting.name(path)
            if command == Command.LINK:
                self._selecting.name(found[Attribute.PATH_LINK])
        except KeyError as error:
            raise StreamError(f"Command {command} of btrfs has no path.") from error


def _attributes(body: bytes) -> dict[int, bytes]:
    found = {}
    at = 0
    while at < len(body):
        if at + _ATTRIBUTE.size > len(body):
            raise StreamError("A command of btrfs is cut short.")
        number, length = _ATTRIBUTE.unpack_from(body, at)
        at += _ATTRIBUTE.size
        found[number] = body[at : at + length]
        at += length
    if at != len(body):
        raise StreamError("A command of btrfs is not as long as it says.")
    return found
