"""The flags of chattr(1) that go with a file, and how an entry has them.

Among the extended attributes of an entry, under a name that none can have: words, joined by
commas, in order. The words are those of the records ``SCHILY.fflags`` in archives, as
libarchive writes them; the numbers those of FS_IOC_GETFLAGS, see ioctl_iflags(2).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from homemgr.transfer.entry import Entry

#: No file system has attributes of such a name: the kernel knows user, trusted, system, security.
NAME = b"homemgr.flags"

#: What users may give to their own files, and what keeps its meaning elsewhere.
CARRIED = {
    b"compress": 0x00000004,
    b"sync": 0x00000008,
    b"nodump": 0x00000040,
    b"noatime": 0x00000080,
    b"nocompress": 0x00000400,
    b"notail": 0x00008000,
    b"dirsync": 0x00010000,
    b"topdir": 0x00020000,
    b"nocow": 0x00800000,
}

#: What only root may give, or what means something on that file system alone. With the first two
#: files could be neither replaced nor deleted where they arrive.
LEFT_BEHIND = {
    b"immutable": 0x00000010,
    b"append": 0x00000020,
    b"journal-data": 0x00004000,
    b"dax": 0x02000000,
    b"projinherit": 0x20000000,
}

#: Of these only directories can have any.
OF_DIRECTORIES = frozenset({b"dirsync", b"topdir"})

#: These have an effect on what is written after them only.
EARLY_BITS = CARRIED[b"nocow"] | CARRIED[b"compress"] | CARRIED[b"nocompress"]

ALL_BITS = sum(CARRIED.values())

_KNOWN = {**CARRIED, **LEFT_BEHIND}
_KNOWN_BITS = sum(_KNOWN.values())


def attribute(bits: int) -> tuple[tuple[bytes, bytes], ...]:
    """What the flags of a file add to the attributes of its entry; nothing of most files."""
    if not bits & _KNOWN_BITS:
        return ()
    return ((NAME, joined(word for word, bit in _KNOWN.items() if bits & bit)),)


def joined(words: Iterable[bytes]) -> bytes:
    """The one form of these words."""
    return b",".join(sorted(set(words)))


def bits_of(entry: Entry) -> int:
    """The flags that an entry has, of those that are carried."""
    for name, value in entry.xattrs:
        if name == NAME:
            return sum(CARRIED.get(word, 0) for word in set(value.split(b",")))
    return 0
