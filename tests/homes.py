"""Homes with everything odd that a file system can hold, and a comparer that sees all of it.

The comparer shares no code with the product: it reads with its own calls, by descriptor from
directory to directory, as some paths are longer than a path may be.
"""

from __future__ import annotations

import os
import random
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

NOBODY = 65534
#: Files that nobody looks through one by one.
MANY = 3000
#: At most so many whose contents are smaller than a block.
SMALL = 300

#: ACL entries as xattr(7) has them on disk: version 2, then tag, permissions, id.
_ACL = struct.Struct("<HHI")
_ANYBODY = 0xFFFFFFFF

NAMES = (
    b"plain",
    b"with space",
    b"new\nline",
    b"tab\tquote\"'",
    b"-dash",
    b"\xff\xfe not utf-8 \x80",
    "caf\u00e9 composed".encode(),
    "cafe\u0301 composed".encode(),
    "\u65e5\u672c\u8a9e".encode(),
    b"." + b"x" * 254,
    b"...",
)

TIMES_NS = (
    0,
    -1,
    -86_400_000_000_001,  # before 1970, with a fraction
    -2_000_000_000_123_456_789,  # 1906
    1_234_567_890_987_654_321,
    2**31 * 10**9 + 1,  # after 2038
    4_000_000_000_999_999_999,  # 2096
)


@contextmanager
def entered(directory: int, name: bytes) -> Iterator[int]:
    """A directory made below another."""
    os.mkdir(name, 0o755, dir_fd=directory)
    with opened(directory, name) as fd:
        yield fd


@contextmanager
def opened(directory: int, name: bytes) -> Iterator[int]:
    """A directory below another."""
    fd = os.open(
        name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_NOATIME, dir_fd=directory
    )
    try:
        yield fd
    finally:
        os.close(fd)


def write(directory: int, name: bytes, *pieces: tuple[int, bytes], size: int = 0) -> None:
    """A file of pieces at offsets, holes between them."""
    fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=directory)
    try:
        for offset, data in pieces:
            os.pwrite(fd, data, offset)
        if size:
            os.ftruncate(fd, size)
    finally:
        os.close(fd)


def acl(*extra: tuple[int, int, int], mask: int = 7) -> bytes:
    """An ACL of owner, group, others, and some more entries (tag, permissions, id)."""
    entries = [
        (0x01, 7, _ANYBODY),
        *[entry for entry in extra if entry[0] == 0x02],
        (0x04, 5, _ANYBODY),
        *[entry for entry in extra if entry[0] == 0x08],
        (0x10, mask, _ANYBODY),
        (0x20, 0, _ANYBODY),
    ]
    return struct.pack("<I", 2) + b"".join(_ACL.pack(*entry) for entry in entries)


def make_odd_home(top: Path, seed: int = 1, *, many: int = MANY) -> None:
    """Fill the directory ``top`` with every case that has to survive a journey, all nobody's.

    One of its directories has ``many`` files, another one small ones, no more than `SMALL`.
    """
    chance = random.Random(seed)
    fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_NOATIME)
    try:
        for part in (_names, _contents, _holes, _kinds, _links, _attributes, _deep):
            with entered(fd, part.__name__.encode()) as directory:
                part(directory, chance)
        with entered(fd, b"_large") as directory:
            _large(directory, many)
        with opened(fd, b"_contents") as directory:
            _small(directory, chance, min(many, SMALL))
        _give_times(fd, chance)
    finally:
        os.close(fd)
    give_away(top)


def give_away(top: Path) -> None:
    """Make everything nobody's; times of change apart nothing else changes."""
    fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_NOATIME)
    try:
        for directory, name, found in _walk(fd):
            os.chown(name, NOBODY, NOBODY, dir_fd=directory, follow_symlinks=False)
            if not stat.S_ISLNK(found.st_mode):
                os.chmod(name, stat.S_IMODE(found.st_mode), dir_fd=directory)
        os.fchown(fd, NOBODY, NOBODY)
    finally:
        os.close(fd)


def _names(directory: int, chance: random.Random) -> None:
    for name in NAMES:
        write(directory, name, (0, name))
    with entered(directory, b"directories") as below:
        for name in NAMES:
            with entered(below, name):
                pass


def _contents(directory: int, chance: random.Random) -> None:
    for size in (0, 1, 511, 4096, 65_535, 65_536, 65_537, 131_072, 131_073, 1_048_577, 3_000_001):
        write(directory, b"%d" % size, (0, chance.randbytes(size)), size=size)


def _small(directory: int, chance: random.Random, count: int) -> None:
    for number in range(count):
        write(directory, b"small-%03d" % number, (0, chance.randbytes(chance.randrange(2000))))


def _holes(directory: int, chance: random.Random) -> None:
    block = 1 << 16
    data = chance.randbytes(block)
    write(directory, b"all hole", size=1 << 22)
    write(directory, b"small all hole", size=40_000)
    write(directory, b"at the start", (1 << 21, data))
    write(directory, b"in the middle", (0, data), (1 << 21, data))
    write(directory, b"at the end", (0, data), size=1 << 21)
    write(directory, b"many", *((at * 4 * block, data) for at in range(20)), size=90 * block)
    write(directory, b"huge", (1 << 39, data), size=1 << 40)


def _kinds(directory: int, chance: random.Random) -> None:
    for mode in (0o000, 0o400, 0o600, 0o644, 0o777, 0o1777, 0o4755, 0o2755, 0o6711):
        name = b"mode-%04o" % mode
        write(directory, name, (0, b"x"))
        os.chmod(name, mode, dir_fd=directory)
        os.mkdir(b"directory-%04o" % mode, dir_fd=directory)
        os.chmod(b"directory-%04o" % mode, mode, dir_fd=directory)
    os.mkfifo(b"fifo", 0o620, dir_fd=directory)
    os.symlink(b"/nowhere/at all", b"dangling", dir_fd=directory)
    # xfs has no longer ones, ext4 with small blocks neither.
    os.symlink(b"t" * 1000, b"long", dir_fd=directory)
    os.symlink(b"\xff\n", b"odd", dir_fd=directory)


def _links(directory: int, chance: random.Random) -> None:
    write(directory, b"m-first", (0, chance.randbytes(100_000)))
    os.symlink(b"m-first", b"symbolic", dir_fd=directory)
    with entered(directory, b"a") as before, entered(directory, b"z") as after:
        for place in (before, after):
            os.link(b"m-first", b"again", src_dir_fd=directory, dst_dir_fd=place)
            os.link(
                b"symbolic", b"both", src_dir_fd=directory, dst_dir_fd=place, follow_symlinks=False
            )


def _attributes(directory: int, chance: random.Random) -> None:
    write(directory, b"xattrs", (0, b"x"))
    where = b"/proc/self/fd/%d/" % directory
    for name, value in (("user.text", b"text"), ("user.empty", b""), ("user.\u00e4", b"\0\xff")):
        os.setxattr(where + b"xattrs", name, value)
    write(directory, b"acl", (0, b"x"))
    os.setxattr(where + b"acl", "system.posix_acl_access", acl((0x02, 4, NOBODY)))
    with entered(directory, b"inherits") as below:
        os.setxattr(below, "user.on", b"directory")
        os.setxattr(below, "system.posix_acl_default", acl((0x08, 5, NOBODY), mask=5))
        write(below, b"inherited", (0, b"x"))
        with entered(below, b"inheriting"):
            pass
        write(below, b"without", (0, b"x"))
        os.removexattr(b"/proc/self/fd/%d/without" % below, "system.posix_acl_access")


def _deep(directory: int, chance: random.Random) -> None:
    """A path longer than PATH_MAX."""
    here = os.dup(directory)
    for number in range(120):
        os.mkdir(b"%03d-%b" % (number, b"d" * 60), dir_fd=here)
        below = os.open(b"%03d-%b" % (number, b"d" * 60), os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    write(here, b"bottom", (0, b"reached"))
    os.close(here)


def _large(directory: int, many: int) -> None:
    for number in range(many):
        write(directory, b"%04d" % number, (0, b"%d" % number))


def _give_times(fd: int, chance: random.Random) -> None:
    # Contents come before their directory, whose times giving them theirs does not change.
    for directory, name, _ in _walk(fd):
        times = (chance.choice(TIMES_NS), chance.choice(TIMES_NS))
        os.utime(name, ns=times, dir_fd=directory, follow_symlinks=False)


def _walk(fd: int) -> Iterator[tuple[int, bytes, os.stat_result]]:
    """Everything below, contents before their directory: descriptor of it, name, stat."""
    for name in sorted(os.listdir(fd), key=os.fsencode):
        encoded = os.fsencode(name)
        found = os.stat(encoded, dir_fd=fd, follow_symlinks=False)
        if stat.S_ISDIR(found.st_mode):
            with opened(fd, encoded) as below:
                yield from _walk(below)
        yield fd, encoded, found


def compare(
    one: Path, other: Path, *, leave_out: tuple[bytes, ...] = (), atimes: bool = False
) -> list[str]:
    """All differences between two trees, in words; empty if there is none.

    Looking does not change what is seen. Times of access count with ``atimes`` only.
    """
    here, there = (Seen.of(path, leave_out, atimes=atimes) for path in (one, other))
    return here.differences(there)


class Seen:
    """What a tree looks like at one time, by path; to be compared within one process."""

    def __init__(self) -> None:
        self.entries: dict[bytes, dict[str, object]] = {}
        self.groups: dict[tuple[int, int], list[bytes]] = {}

    @classmethod
    def of(cls, top: Path, leave_out: tuple[bytes, ...] = (), *, atimes: bool = False) -> Seen:
        """Look at all of it, as `compare` does."""
        seen = cls()
        fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY | os.O_NOATIME)
        try:
            seen._look(fd, b"", leave_out)
            seen.entries[b""] = _facts(fd, b".", os.fstat(fd))
        finally:
            os.close(fd)
        if not atimes:
            for facts in seen.entries.values():
                del facts["atime"]
        return seen

    def _look(self, fd: int, above: bytes, leave_out: tuple[bytes, ...]) -> None:
        for name in sorted(map(os.fsencode, os.listdir(fd))):
            path = above + b"/" + name if above else name
            if path in leave_out:
                continue
            found = os.stat(name, dir_fd=fd, follow_symlinks=False)
            self.entries[path] = _facts(fd, name, found)
            if stat.S_ISDIR(found.st_mode):
                with opened(fd, name) as below:
                    self._look(below, path, leave_out)
            elif found.st_nlink > 1:
                self.groups.setdefault((found.st_dev, found.st_ino), []).append(path)

    def differences(self, other: Seen) -> list[str]:
        """In words."""
        words = [f"only here: {path!r}" for path in self.entries.keys() - other.entries.keys()]
        words += [f"only there: {path!r}" for path in other.entries.keys() - self.entries.keys()]
        for path in self.entries.keys() & other.entries.keys():
            here, there = self.entries[path], other.entries[path]
            words += [
                f"{path!r}: {fact} {here[fact]!r:.80} is {there[fact]!r:.80} there"
                for fact in here
                if here[fact] != there[fact]
            ]
        if sorted(self.groups.values()) != sorted(other.groups.values()):
            words.append("hard links differ")
        return words


def _facts(directory: int, name: bytes, found: os.stat_result) -> dict[str, object]:
    """Everything that counts about one entry."""
    where = b"/proc/self/fd/%d/%b" % (directory, name)
    facts: dict[str, object] = {
        "mode": f"{found.st_mode:o}",
        "owner": (found.st_uid, found.st_gid),
        "mtime": found.st_mtime_ns,
        # Whoever reads where a symbolic link leads changes that.
        "atime": 0 if stat.S_ISLNK(found.st_mode) else found.st_atime_ns,
        "xattrs": {
            key: os.getxattr(where, key, follow_symlinks=False)
            for key in os.listxattr(where, follow_symlinks=False)
            # xfs has ACLs under names of its own too.
            if not key.startswith("trusted.SGI_ACL_")
        },
    }
    if stat.S_ISREG(found.st_mode):
        facts["size"] = found.st_size
        facts["content"] = _content(directory, name, found.st_size)
    elif stat.S_ISLNK(found.st_mode):
        facts["target"] = os.readlink(name, dir_fd=directory)
    return facts


def _content(directory: int, name: bytes, size: int) -> list[tuple[int, int, int]]:
    """Runs of data: offset, length, hash."""
    runs = []
    fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NOATIME, dir_fd=directory)
    try:
        at = 0
        while at < size:
            try:
                at = os.lseek(fd, at, os.SEEK_DATA)
            except OSError:
                break
            end = os.lseek(fd, at, os.SEEK_HOLE)
            runs.append((at, end - at, hash(os.pread(fd, end - at, at))))
            at = end
    finally:
        os.close(fd)
    return runs
