"""Room on disk for an image: taken before it is used, given back after it. Best effort.

Neither a login nor a logout fails, or waits for long, because of it: the log says what was not
done, and the next one goes on with it.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import signal
import time
from typing import TYPE_CHECKING, Final

from homemgr.kernel import process, space
from homemgr.kernel.statfs import file_system_type
from homemgr.record.names import is_device

if TYPE_CHECKING:
    from homemgr.files import Fd

log = logging.getLogger(__name__)

#: The most that a login or a logout waits for either (s).
_PATIENCE_S: Final = 5.0
#: How long a worker gives back by itself (s), and how much at a time: a group of blocks of an ext4,
#: of which older kernels skip the rest once they have seen a part. Even if every second block is
#: free that is a second at most.
_MOMENT_S: Final = 0.2
_TRIMMED: Final = 128 << 20
#: Those that give back all of themselves range by range: ext4 and xfs, by what `file_system_type`
#: gives. A btrfs counts ranges by places that are on no device, and leaves most of them alone.
_IN_RANGES: Final = (0xEF53, 0x58465342)
#: And for a process that was killed, which the device may hold up (s).
_END_S: Final = 2.0
#: What is reserved between two looks at the clock.
_STEP: Final = 1 << 30
#: What the kernel counts blocks of files in, whatever these have.
_SECTOR: Final = 512
_UNABLE: Final = (errno.EOPNOTSUPP, errno.ENOTTY, errno.ENOSYS)


def reserve(image: Fd, path: str) -> None:
    """Have a file own all of its size, so that what is written to it finds room."""
    status, disk = os.fstat(image.fileno()), os.fstatvfs(image.fileno())
    size, missing = status.st_size, status.st_size - status.st_blocks * _SECTOR
    # Half of it would be no use to this home, and the end of all room for others.
    if missing > disk.f_bavail * disk.f_frsize:
        log.warning(
            "%s: %d of its %d bytes have no room on the disk below it, which is full. When it stays"
            " so, writing to the home fails.",
            path,
            missing,
            size,
        )
        return
    deadline = time.monotonic() + _PATIENCE_S
    # In steps, since one call would know no deadline.
    for offset in range(0, size, _STEP):
        if time.monotonic() > deadline:
            log.warning("%s: only %d of %d bytes were reserved in time.", path, offset, size)
            return
        try:
            space.allocate(image.fileno(), offset, min(_STEP, size - offset))
        except OSError as error:
            if error.errno not in _UNABLE:
                log.warning("%s: its room cannot be reserved: %s.", path, error.strerror)
            return


def give_back(directory: Fd, path: str) -> None:
    """Have the image of the file system of ``directory`` lose what is deleted in it."""
    # What a device does with that takes as long as it likes, a file is quick.
    start: int | None = 0
    if not is_device(path):
        try:
            start = _give_back_quickly(directory)
        except OSError as error:
            _tell(path, os.strerror(error.errno or 0) if error.errno not in _UNABLE else "")
            return
    if start is not None:
        _give_back_apart(directory, path, start)


def _give_back_quickly(directory: Fd) -> int | None:
    """Do it for a moment; gives the byte at which to go on, None if there is nothing left.

    Mostly there is not: then no process has to be made for it, which would take several times as
    long.
    """
    if file_system_type(directory.fileno()) not in _IN_RANGES:
        return 0
    disk, deadline = os.fstatvfs(directory.fileno()), time.monotonic() + _MOMENT_S
    size = disk.f_blocks * disk.f_frsize
    for start in range(0, size, _TRIMMED):
        if time.monotonic() > deadline:
            return start
        is_last = start + _TRIMMED >= size
        space.trim(directory.fileno(), start, space.EVERYTHING if is_last else _TRIMMED)
    return None


def _give_back_apart(directory: Fd, path: str, start: int) -> None:
    parent = os.getpid()
    # A process of its own, so that trimming which takes too long can be ended.
    pid = os.fork()
    if not pid:
        status = 1
        try:
            process.end_with_parent(parent)
            space.trim(directory.fileno(), start)
            status = 0
        except OSError as error:
            status = error.errno or status
        finally:
            # Nothing of what the parent has to do at its end is to be done twice.
            os._exit(status)
    _tell(path, _reason(pid))


def _tell(path: str, reason: str) -> None:
    if reason:
        log.warning("%s: what is deleted in it keeps its room on disk: %s.", path, reason)


def _reason(pid: int) -> str:
    """Why the process did not do it; empty if it did, or if nobody wants it done."""
    pidfd = os.pidfd_open(pid)
    try:
        if not _has_ended(pidfd, _PATIENCE_S):
            os.kill(pid, signal.SIGKILL)
            if not _has_ended(pidfd, _END_S):
                return f"the device did not answer within {_PATIENCE_S + _END_S} s"
        _, status = os.waitpid(pid, 0)
    finally:
        os.close(pidfd)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        return f"it took longer than {_PATIENCE_S} s"
    return os.strerror(code) if code and code not in _UNABLE else ""


def _has_ended(pidfd: int, within_s: float) -> bool:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(within_s * 1000))
