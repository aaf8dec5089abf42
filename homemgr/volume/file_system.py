"""File systems on devices: told apart, made, looked over and mounted where nobody sees them.

Made and looked over by the programs that belong to each, which get no word of ours but the
device, a label and a UUID.
"""

from __future__ import annotations

import errno
import logging
import os
import subprocess
from typing import TYPE_CHECKING, Final

from homemgr.errors import NotSupported, from_os_error
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

    from homemgr.files import Fd

log = logging.getLogger(__name__)

#: Where each has its magic number, see blkid's list: offset and bytes.
_MAGIC: Final = {
    "ext4": (0x438, b"\x53\xef"),
    "xfs": (0, b"XFSB"),
    "btrfs": (0x10040, b"_BHRfS_M"),
}
#: Bytes of a label.
_LABEL_BYTES: Final = {"ext4": 16, "xfs": 12, "btrfs": 255}
_MAKE: Final = {
    # No blocks kept for root; tables are written while it is used.
    "ext4": ("mkfs.ext4", "-q", "-F", "-m", "0", "-E", "lazy_itable_init=1,nodiscard"),
    "xfs": ("mkfs.xfs", "-q", "-f", "-K"),
    "btrfs": ("mkfs.btrfs", "-q", "-f", "-K"),
}
_UUID_OPTION: Final = {"ext4": ("-U", "{}"), "xfs": ("-m", "uuid={}"), "btrfs": ("-U", "{}")}
_OPTIONS: Final = {
    "ext4": ("user_xattr",),
    "xfs": ("noquota",),
    "btrfs": ("compress=zstd:1", "user_subvol_rm_allowed"),
}

#: Longer than any of them takes on a disk that works (s).
_TIMEOUT_S = 600
#: e2fsck(8): errors that it did not mend.
_NOT_MENDED = 4

_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C"}

KINDS: Final = tuple(_MAKE)


def identify(device: int) -> str | None:
    """Which of `KINDS` is on an open device."""
    for kind, (offset, magic) in _MAGIC.items():
        if os.pread(device, len(magic), offset) == magic:
            return kind
    return None


def make(kind: str, device: str, label: str, uuid: str) -> None:
    """Make an empty file system. Raises NotSupported, SystemFailure with what mkfs says."""
    if kind not in _MAKE:
        known = ", ".join(KINDS)
        raise NotSupported(f"File system {kind!r} is not supported for homes; choose {known}.")
    short = label.encode()[: _LABEL_BYTES[kind]].decode(errors="ignore")
    named = [word.format(uuid) for word in _UUID_OPTION[kind]]
    status, said = _run([*_MAKE[kind], "-L", short, *named, device])
    if status:
        raise from_os_error(OSError(errno.EIO, said), f"{_MAKE[kind][0]} on {device}")


def check(kind: str, device: str) -> None:
    """Mend what can be mended without a question; the rest is logged, and stops nobody."""
    if kind != "ext4":
        # The others do it when they are mounted.
        return
    try:
        status, said = _run(["e2fsck", "-p", device])
    except NotSupported as missing:
        log.warning("A file system is not looked over: %s", missing)
        return
    if status >= _NOT_MENDED:
        log.warning("The file system on %s is not in order (%d): %s", device, status, said)


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


def _run(argv: Sequence[str]) -> tuple[int, str]:
    """Exit status and the end of what the program said."""
    try:
        done = subprocess.run(
            argv,
            env=_ENVIRONMENT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except FileNotFoundError as error:
        raise NotSupported(f"The program {argv[0]} is not installed.") from error
    except subprocess.TimeoutExpired as error:
        late = OSError(errno.ETIMEDOUT, f"no end within {_TIMEOUT_S} s")
        raise from_os_error(late, argv[0]) from error
    return done.returncode, done.stdout.decode(errors="replace").strip()[-500:]
