"""File systems on devices: told apart, made, looked over and mounted where nobody sees them.

Made and looked over by the programs that belong to each, which get no word of ours but the
device, a label and a UUID.
"""

from __future__ import annotations

import errno
import logging
import os
import subprocess
import uuid
from typing import TYPE_CHECKING, Final

from homemgr.errors import BadHomeSize, DamagedFileSystem, NotSupported, from_os_error
from homemgr.files import Fd
from homemgr.kernel import address_space
from homemgr.kernel.mounts import (
    fs_messages,
    fsconfig_create,
    fsconfig_set_flag,
    fsconfig_set_string,
    fsmount,
    fsopen,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

log = logging.getLogger(__name__)

#: Where each has its magic number, see blkid's list: offset and bytes.
_MAGIC: Final = {
    "ext4": (0x438, b"\x53\xef"),
    "xfs": (0, b"XFSB"),
    "btrfs": (0x10040, b"_BHRfS_M"),
}
#: Where each has its UUID.
_UUID_AT: Final = {"ext4": 1024 + 104, "xfs": 32, "btrfs": 0x10020}
#: Where an ext4 says how large its blocks are, as a power of two and in KiB.
_EXT4_BLOCK: Final = 1024 + 24
#: The same: how many inodes it has; the bytes of each unless somebody says, and how many more
#: than the files of a home it needs, those of the file system itself with them.
_EXT4_INODES: Final = 1024
_EXT4_INODE_BYTES: Final = 256
_EXT4_SPARE_INODES: Final = 1024
#: Bytes of a label.
_LABEL_BYTES: Final = {"ext4": 16, "xfs": 12, "btrfs": 255}
_MAKE: Final = {
    # No blocks kept for root; tables are written while it is used.
    "ext4": ("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=1,nodiscard"),
    "xfs": ("mkfs.xfs", "-q", "-f", "-K"),
    "btrfs": ("mkfs.btrfs", "-q", "-f", "-K"),
}
#: Bytes of the smallest that mkfs makes, in some version of it; an ext4 may be smaller than homes.
_LEAST: Final = {"xfs": 300 << 20, "btrfs": 109 << 20}
_UUID_OPTION: Final = {"ext4": ("-U", "{}"), "xfs": ("-m", "uuid={}"), "btrfs": ("-U", "{}")}
_OPTIONS: Final = {
    "ext4": ("user_xattr",),
    "xfs": ("noquota",),
    "btrfs": ("compress=zstd:1", "user_subvol_rm_allowed"),
}

#: Longer than any of them takes on a disk that works (s).
_TIMEOUT_S = 600
#: The same of those that look at, or move, every block of a large one (s).
_MOVING_S = 86_400
#: e2fsck(8): all is well or mended; and it could not do its work.
_MENDED = range(4)
_NOT_DONE = 8
#: Where an ext4 says in which state it is, in 16 bits: without errors, or with some.
_EXT4_STATE: Final = 1024 + 58
_EXT4_VALID, _EXT4_ERRORS = 1, 2

_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C"}

KINDS: Final = tuple(_MAKE)


def identify(device: int, at: int = 0) -> str | None:
    """Which of `KINDS` is on an open device, or in an image from byte ``at`` on."""
    for kind, (offset, magic) in _MAGIC.items():
        if os.pread(device, len(magic), at + offset) == magic:
            return kind
    return None


def uuid_of(kind: str, device: int, at: int = 0) -> str:
    """The UUID of a file system of this kind, there, as records have it."""
    return str(uuid.UUID(bytes=os.pread(device, 16, at + _UUID_AT[kind])))


def make(kind: str, device: str, label: str, uid: str, entries: int = 0) -> None:
    """Make an empty file system, for ``entries`` files and directories and some more.

    Raises NotSupported, BadHomeSize if it is too small for so many, SystemFailure with what mkfs
    says.
    """
    if kind not in _MAKE:
        known = ", ".join(KINDS)
        raise NotSupported(f"File system {kind!r} is not supported for homes; choose {known}.")
    short = label.encode()[: _LABEL_BYTES[kind]].decode(errors="ignore")
    words = ["-L", short, *(word.format(uid) for word in _UUID_OPTION[kind])]
    _make(kind, device, words)
    # Others make inodes when they are needed. How many an ext4 gets is for its size and for
    # /etc/mke2fs.conf to say, and what it gets is all it has until it grows.
    if kind == "ext4" and _ext4_inodes(device) < (wanted := _with_growth(entries)):
        _require_inodes_fit(device, wanted, entries)
        _make(kind, device, ["-N", str(wanted), *words])


def _make(kind: str, device: str, words: Sequence[str]) -> None:
    status, said = _run([*_MAKE[kind], *words, device])
    if status and (size := _size_of(device)) < _LEAST.get(kind, 0):
        raise BadHomeSize(
            f"A file system {kind} of {size} bytes cannot be made; it has {_LEAST[kind]} bytes at"
            " least. Give the home more by --disk-size=, or another kind by --fs-type=."
        )
    if status:
        raise from_os_error(OSError(errno.EIO, said), f"{_MAKE[kind][0]} on {device}")


def _with_growth(entries: int) -> int:
    """Inodes for those who are known to come, half as many that are not, and ext4's own."""
    return entries + entries // 2 + _EXT4_SPARE_INODES if entries else 0


def _require_inodes_fit(device: str, wanted: int, entries: int) -> None:
    """Raise BadHomeSize if the tables of inodes would take more than half of the device."""
    size = _size_of(device)
    least = 2 * wanted * _EXT4_INODE_BYTES
    if size < least:
        raise BadHomeSize(
            f"A file system of {size} bytes has no room for {entries} files and directories:"
            f" {least - size} bytes are missing."
        )


def _size_of(device: str) -> int:
    with Fd.open(device, os.O_RDONLY) as fd:
        return os.lseek(fd.fileno(), 0, os.SEEK_END)


def _ext4_inodes(device: str) -> int:
    with Fd.open(device, os.O_RDONLY) as fd:
        return int.from_bytes(os.pread(fd.fileno(), 4, _EXT4_INODES), "little")


def check(kind: str, device: str, path: str) -> None:
    """Mend what can be mended without a question, however long that takes.

    Killed in the middle it would begin anew each time. Raises DamagedFileSystem, about the image
    at ``path``, if there are errors left: written to, more would be lost.
    """
    if kind != "ext4":
        # The others do it when they are mounted.
        return
    try:
        status, said = _run(["e2fsck", "-p", device], None)
    except NotSupported as missing:
        log.warning("A file system is not looked over: %s", missing)
        return
    if status in _MENDED:
        return
    words = " ".join(said.split())
    # It may be too old for a file system that is in order.
    if status < 0 or not status & _NOT_DONE or not _is_valid(device):
        raise DamagedFileSystem(
            f"The file system of {path} has errors, and `e2fsck -p` has not mended them"
            f" ({status}): {words}"
        )
    log.warning("The file system on %s could not be looked over (%d): %s", device, status, words)


def _is_valid(device: str) -> bool:
    """Whether an ext4 says that it is in order; it may be so because nobody looked."""
    with Fd.open(device, os.O_RDONLY) as fd:
        state = int.from_bytes(os.pread(fd.fileno(), 2, _EXT4_STATE), "little")
    return state & (_EXT4_VALID | _EXT4_ERRORS) == _EXT4_VALID


def shrink_ext4(device: str, size: int) -> None:
    """Have an ext4 that is not mounted take ``size`` bytes. Raises BadHomeSize if it cannot.

    Killed in the middle it may be beyond repair: only ever done to a copy.
    """
    _run(["e2fsck", "-f", "-p", device], _MOVING_S)
    status, said = _run(["resize2fs", device, f"{size >> 10}K"], _MOVING_S)
    if status:
        raise BadHomeSize(f"Its files need more than {size} bytes: {said}")


def smallest_ext4(device: str) -> int:
    """About how many bytes an ext4 that is not mounted needs at least."""
    _run(["e2fsck", "-f", "-p", device], _MOVING_S)
    status, said = _run(["resize2fs", "-P", device], _MOVING_S)
    word = said.split()[-1] if said else ""
    if status or not word.isdigit():
        raise from_os_error(OSError(errno.EIO, said), f"resize2fs on {device}")
    with Fd.open(device, os.O_RDONLY) as fd:
        log_of_block = int.from_bytes(os.pread(fd.fileno(), 4, _EXT4_BLOCK), "little")
    return int(word) << (10 + log_of_block)


def mount(kind: str, device: str, options: Sequence[str] = ()) -> Fd:
    """The file system as a mount that is attached nowhere; OSError with what it has to say.

    One that is mounted already is the same file system again.
    """
    with fsopen(kind) as fs:
        fsconfig_set_string(fs.fileno(), "source", device)
        for option in (*_OPTIONS.get(kind, ()), *options):
            name, has_value, value = option.partition("=")
            if has_value:
                fsconfig_set_string(fs.fileno(), name, value)
            else:
                fsconfig_set_flag(fs.fileno(), name)
        return created(fs)


def created(fs: Fd, attributes: int = 0) -> Fd:
    """The file system whose options are all set, as a mount with these ``attributes``.

    OSError with all it has to say.
    """
    try:
        fsconfig_create(fs.fileno())
    except OSError as error:
        said = fs_messages(fs.fileno())
        raise OSError(error.errno, "; ".join([str(error.strerror), *said])) from error
    return fsmount(fs.fileno(), attributes)


def _run(argv: Sequence[str], timeout_s: int | None = _TIMEOUT_S) -> tuple[int, str]:
    """Exit status, negative if it was killed, and the end of what the program said.

    What looks through a large file system takes the memory that it takes.
    """
    try:
        with address_space.raised():
            done = subprocess.run(
                argv,
                env=_ENVIRONMENT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=timeout_s,
                check=False,
            )
    except FileNotFoundError as error:
        raise NotSupported(f"The program {argv[0]} is not installed.") from error
    except subprocess.TimeoutExpired as error:
        late = OSError(errno.ETIMEDOUT, f"no end within {timeout_s} s")
        raise from_os_error(late, argv[0]) from error
    return done.returncode, done.stdout.decode(errors="replace").strip()[-500:]
