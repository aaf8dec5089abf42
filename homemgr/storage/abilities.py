"""What the file system below a directory can do, found out by trying it there.

Never by its name: the same file system takes other names, attributes and sizes with other
options, and what a server behind a mount can do nobody knows before. Everything is tried
as nobody, who writes homes, in a directory that is gone afterwards.
"""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from homemgr.errors import NotSupported
from homemgr.files import DIRECTORY_FLAGS, GUARDED_FLAGS, Fd
from homemgr.kernel.file_flags import get_flags, set_flags
from homemgr.kernel.identity import filesystem_identity
from homemgr.storage.file_writer import part_name
from homemgr.storage.idmapping import NOBODY
from homemgr.storage.paths import location
from homemgr.storage.top import require_mapping
from homemgr.storage.tree import delete_tree
from homemgr.transfer import acl, flags
from homemgr.transfer.codec import MAX_SIZE, MAX_TARGET, MAX_XATTR_VALUE
from homemgr.transfer.entry import MAX_NAME
from homemgr.transfer.needs import Ability, Limits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: What Linux takes at most; file systems that take as much have no limit of their own.
_MOST = {
    Ability.FILE_SIZE: MAX_SIZE,
    Ability.NAME_LENGTH: MAX_NAME,
    Ability.SYMLINK_LENGTH: MAX_TARGET,
    Ability.XATTR_VALUE: MAX_XATTR_VALUE,
}

#: What file systems answer to something they cannot store.
_NOT_STORED = (
    errno.EPERM,
    errno.EINVAL,
    errno.EOPNOTSUPP,
    errno.ENOSYS,
    errno.ENAMETOOLONG,
    errno.EILSEQ,
    errno.E2BIG,
    errno.ERANGE,
    errno.ENOSPC,
    errno.EFBIG,
)

#: Not UTF-8, and characters that FAT and NTFS do not have in names.
_ODD_NAME = b'\xff\xfe\x01:*?"<>|\\ .'

#: The same for who does not mind case, or in which of two ways an accent is written.
_ALIKE = (("homemgr", "HomeMgr"), ("\u00e9", "e\u0301"))

#: Larger than what any file system allocates for one byte.
_SPARSE_BYTES = 16 << 20

#: Before 1970 and after 2038, and none of them even in microseconds.
_TIMES_NS = (-1_000_000_123, 5_000_000_000_123_456_789)

_XATTR = "user.homemgr-probe"
_MODE = 0o2640
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | GUARDED_FLAGS


def probe(stage: Fd) -> Limits:
    """What is limited on the file system of ``stage``, an empty or half-filled home.

    `NotSupported` if it can hold no home at all: without idmapped mounts, owners or modes.
    """
    require_mapping(stage)
    with filesystem_identity(NOBODY, NOBODY), _ground(stage) as directory:
        return _Probe(directory).limits()


def storable_flags(stage: Fd) -> frozenset[bytes]:
    """The flags of chattr, as words, that the file system of ``stage`` stores."""
    with filesystem_identity(NOBODY, NOBODY), _ground(stage) as directory:
        return _Probe(directory).flags()


@contextmanager
def _ground(stage: Fd) -> Iterator[int]:
    """A directory to try things in; the stage looks the same afterwards."""
    before = os.fstat(stage.fileno())
    name = os.fsdecode(part_name())
    os.mkdir(name, 0o700, dir_fd=stage.fileno())
    try:
        with Fd.open(name, DIRECTORY_FLAGS, dir_fd=stage.fileno()) as directory:
            yield directory.fileno()
    finally:
        delete_tree(stage, name)
        os.utime(stage.fileno(), ns=(before.st_atime_ns, before.st_mtime_ns))


class _Probe:
    """Tries one after the other in an empty directory."""

    def __init__(self, directory: int) -> None:
        self._directory = directory

    def limits(self) -> Limits:
        self._require_ownership()
        tried: dict[Ability, Callable[[int], None]] = {
            Ability.FILE_SIZE: self._seek,
            Ability.NAME_LENGTH: lambda n: self._make(b"n" * n),
            Ability.SYMLINK_LENGTH: self._symlink,
            Ability.XATTR_VALUE: self._set_xattr,
        }
        limits = {ability: _largest(_MOST[ability], attempt) for ability, attempt in tried.items()}
        found = {ability: limit for ability, limit in limits.items() if limit < _MOST[ability]}
        single: dict[Ability, Callable[[], bool]] = {
            Ability.ODD_NAMES: self._keeps_odd_name,
            Ability.ALIKE_NAMES: self._tells_apart,
            Ability.FIFOS: self._makes_fifo,
            Ability.HOLES: self._keeps_holes,
            Ability.ACLS: self._takes_acl,
            Ability.TIMES: self._keeps_times,
        }
        found |= {ability: 0 for ability, is_able in single.items() if not is_able()}
        if not self._links():
            found[Ability.HARD_LINKS] = 1
        return found

    def flags(self) -> frozenset[bytes]:
        """Those that stay when they are given to a file, or a directory."""
        kept = set()
        for word, bit in flags.CARRIED.items():
            of_directory = word in flags.OF_DIRECTORIES
            with self._directory_of_its_own() if of_directory else self._file("flagged") as one:
                with suppress(OSError):
                    set_flags(one.fileno(), get_flags(one.fileno()) | bit)
                if get_flags(one.fileno()) & bit:
                    kept.add(word)
        return frozenset(kept)

    @contextmanager
    def _directory_of_its_own(self) -> Iterator[Fd]:
        """A new directory, gone at the end."""
        os.mkdir("directory", 0o700, dir_fd=self._directory)
        try:
            with Fd.open("directory", DIRECTORY_FLAGS, dir_fd=self._directory) as directory:
                yield directory
        finally:
            os.rmdir("directory", dir_fd=self._directory)

    def _require_ownership(self) -> None:
        """Raise NotSupported where files have not the owner and mode that they are given."""
        with self._file("owned") as file, suppress(OSError):
            os.fchmod(file.fileno(), _MODE)
            found = os.fstat(file.fileno())
            if (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (NOBODY, NOBODY, _MODE):
                return
        where = location(self._directory)
        raise NotSupported(
            f"The file system of {where} does not store owners and modes of files; ext4, xfs and"
            " btrfs do."
        )

    @contextmanager
    def _file(self, name: str | bytes) -> Iterator[Fd]:
        """A new file of that name, gone at the end."""
        with Fd.open(os.fsdecode(name), _NEW, dir_fd=self._directory) as file:
            try:
                yield file
            finally:
                os.unlink(name, dir_fd=self._directory)

    def _opened_anew(self) -> Fd:
        """The directory, to be read: btrfs lists what was there when it was opened."""
        return Fd.open(".", DIRECTORY_FLAGS, dir_fd=self._directory)

    def _make(self, name: bytes) -> None:
        with self._file(name):
            pass

    def _seek(self, size: int) -> None:
        # Beyond the largest size of a file the kernel refuses; nothing is stored for it.
        with self._file("large") as file:
            os.lseek(file.fileno(), size, os.SEEK_SET)

    def _symlink(self, length: int) -> None:
        os.symlink(b"x" * length, "symlink", dir_fd=self._directory)
        os.unlink("symlink", dir_fd=self._directory)

    def _set_xattr(self, length: int) -> None:
        with self._file("attributed") as file:
            os.setxattr(file.fileno(), _XATTR, b"x" * length)

    def _keeps_odd_name(self) -> bool:
        try:
            with self._file(_ODD_NAME), self._opened_anew() as directory:
                return _ODD_NAME in [os.fsencode(name) for name in os.listdir(directory.fileno())]
        except OSError as error:
            return _not_stored(error)

    def _tells_apart(self) -> bool:
        for one, other in _ALIKE:
            with self._file(one):
                try:
                    self._make(os.fsencode(other))
                except FileExistsError:
                    return False
        return True

    def _makes_fifo(self) -> bool:
        try:
            os.mkfifo("fifo", 0o600, dir_fd=self._directory)
        except OSError as error:
            return _not_stored(error)
        os.unlink("fifo", dir_fd=self._directory)
        return True

    def _keeps_holes(self) -> bool:
        with self._file("sparse") as file:
            os.pwrite(file.fileno(), b"x", _SPARSE_BYTES)
            return os.fstat(file.fileno()).st_blocks * 512 < _SPARSE_BYTES

    def _takes_acl(self) -> bool:
        lines = [
            acl.AclEntry(acl.USER_OBJ, acl.NO_ID, 7),
            acl.AclEntry(acl.USER, NOBODY, 7),
            acl.AclEntry(acl.GROUP_OBJ, acl.NO_ID, 5),
            acl.AclEntry(acl.MASK, acl.NO_ID, 7),
            acl.AclEntry(acl.OTHER, acl.NO_ID, 0),
        ]
        value = acl.build(lines)
        try:
            for name in (acl.DEFAULT, acl.ACCESS):
                os.setxattr(self._directory, name, value)
        except OSError as error:
            return _not_stored(error)
        return True

    def _keeps_times(self) -> bool:
        with self._file("timed") as file:
            for time_ns in _TIMES_NS:
                os.utime(file.fileno(), ns=(time_ns, time_ns))
                if os.fstat(file.fileno()).st_mtime_ns != time_ns:
                    return False
        return True

    def _links(self) -> bool:
        with self._file("first"):
            try:
                os.link(
                    "first",
                    "second",
                    src_dir_fd=self._directory,
                    dst_dir_fd=self._directory,
                    follow_symlinks=False,
                )
            except OSError as error:
                return _not_stored(error)
            os.unlink("second", dir_fd=self._directory)
        return True


def _largest(most: int, attempt: Callable[[int], None]) -> int:
    """The largest number up to ``most`` that ``attempt`` takes; 0 if it takes not even 1."""
    taken, refused = 0, most + 1
    number = most
    while refused - taken > 1:
        try:
            attempt(number)
            taken = number
        except OSError as error:
            _not_stored(error)
            refused = number
        number = (taken + refused) // 2
    return taken


def _not_stored(error: OSError) -> bool:
    """False; raises ``error`` if it says something else than that it cannot be stored."""
    if error.errno not in _NOT_STORED:
        raise error
    return False
