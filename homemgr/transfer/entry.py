"""What one name in a home is: `Entry`, and the paths and names it can be under.

A *path* is bytes from the top of the home, names joined by ``/``; the top is ``b""``.
Limits are those of the kernel, see limits.h, xattr(7) and path_resolution(7).
"""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from homemgr.errors import StreamError

#: NAME_MAX.
MAX_NAME = 255

#: Paths below an open directory may be longer than PATH_MAX; somewhere is an end.
MAX_PATH = 1 << 20


class Kind(IntEnum):
    """The type of a name. `SOCKET`, `CHARACTER` and `BLOCK` are met but never travel."""

    DIRECTORY = 1
    FILE = 2
    SYMLINK = 3
    FIFO = 4
    #: A further name of a file that came earlier in walk order: depth first, names
    #: in the order of their bytes.
    LINK = 5
    SOCKET = 6
    CHARACTER = 7
    BLOCK = 8


class Entry(NamedTuple):
    """All of a name but the name itself and the content.

    In a `Kind.LINK` everything but ``kind`` and ``target`` is 0 or empty: it is the
    first name that says it.
    """

    kind: Kind
    #: Permission bits with set-id and sticky: 0 to 0o7777.
    mode: int
    #: Ids as they are on disk.
    uid: int
    gid: int
    #: Nanoseconds since the epoch, negative before it.
    mtime_ns: int
    atime_ns: int
    #: Logical bytes of a `Kind.FILE`, 0 for all others.
    size: int
    #: The text of a `Kind.SYMLINK`; the path of the first name for a `Kind.LINK`;
    #: ``b"MAJOR:MINOR"`` in decimal for devices; empty for all others.
    target: bytes
    #: Extended attributes, ACLs among them as the kernel gives them, sorted by name.
    xattrs: tuple[tuple[bytes, bytes], ...]


def check_name(name: bytes) -> None:
    """`StreamError` unless ``name`` can be that of something in a directory."""
    if not 0 < len(name) <= MAX_NAME or b"/" in name or b"\0" in name or name in (b".", b".."):
        raise StreamError(f"{name[:MAX_NAME]!r} cannot be a file name.")


def check_path(path: bytes) -> None:
    """`StreamError` unless every name in ``path`` can be one; the top is not accepted."""
    names = path.split(b"/") if len(path) <= MAX_PATH else [b""]
    if (
        b"" in names
        or b"." in names
        or b".." in names
        or b"\0" in path
        or len(max(names, key=len)) > MAX_NAME
    ):
        raise StreamError(f"{path[:MAX_NAME]!r} cannot be a path in a home.")


def join(directory: bytes, name: bytes) -> bytes:
    """The path of ``name`` in ``directory``."""
    return directory + b"/" + name if directory else name


def split(path: bytes) -> tuple[bytes, bytes]:
    """The path of the directory and the name in it; both are empty for the top."""
    directory, _, name = path.rpartition(b"/")
    return directory, name
