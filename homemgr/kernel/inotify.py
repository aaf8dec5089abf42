"""inotify(7): a descriptor that becomes readable when watched directories change."""

from __future__ import annotations

import os
import struct
from typing import NamedTuple

from homemgr.files import Fd
from homemgr.kernel.syscall import INT, PATH, UINT, libc_call

IN_MOVED_FROM = 0x40
IN_MOVED_TO = 0x80
IN_CREATE = 0x100
IN_DELETE = 0x200
IN_DELETE_SELF = 0x400
#: Refuse to watch what is no directory.
IN_ONLYDIR = 0x1000000
#: Set in events about a directory.
IN_ISDIR = 0x40000000

#: struct inotify_event without the name that follows: wd, mask, cookie, len.
_EVENT = struct.Struct("=iIII")

#: Room for a few hundred events; one is at most 16 + 256 bytes.
_ROOM = 1 << 16

_inotify_init1 = libc_call("inotify_init1", INT)
_inotify_add_watch = libc_call("inotify_add_watch", INT, PATH, UINT)


class Event(NamedTuple):
    """One change; ``name`` is empty if it concerns the watched directory itself."""

    watch: int
    mask: int
    cookie: int
    name: str


def inotify_init() -> Fd:
    """A new instance, non-blocking."""
    return Fd(_inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))


def inotify_add_watch(inotify_fd: int, path: str, mask: int) -> int:
    """Watch ``path``; returns the number its events carry."""
    return _inotify_add_watch(inotify_fd, os.fsencode(path), mask)


def read_events(inotify_fd: int) -> list[Event]:
    """What has happened since the last call; empty if nothing has."""
    try:
        raw = os.read(inotify_fd, _ROOM)
    except BlockingIOError:
        return []
    return decode_events(raw)


def decode_events(raw: bytes) -> list[Event]:
    """The events in what read(2) returned; names are padded with NUL."""
    events: list[Event] = []
    offset = 0
    while offset < len(raw):
        watch, mask, cookie, length = _EVENT.unpack_from(raw, offset)
        start = offset + _EVENT.size
        # Padded so that the next event is aligned.
        name = raw[start : start + length].rstrip(b"\0")
        events.append(Event(watch, mask, cookie, os.fsdecode(name)))
        offset = start + length
    return events
