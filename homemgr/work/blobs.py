"""Verbs copy and publish: the files that go with a record, on their way from client to public.

What is behind a client's descriptor may never answer. This process reads it, since
nothing waits for this one.
"""

from __future__ import annotations

import fcntl
import os
import signal
import stat
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.files import DIRECTORY_FLAGS, Fd, write_all
from homemgr.record import names
from homemgr.storage import public_blobs

if TYPE_CHECKING:
    from homemgr.work.task import Task

#: What was checked cannot become something else.
_SEALS = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL

_CHUNK = 1 << 18


def copy(task: Task) -> dict[str, object]:
    """Copy the files of a client, first half of the descriptors, to the second half.

    Raises InvalidArgs for what is no readable file with the name of a blob, or too large.
    """
    told = task.texts("names")
    sources, targets = task.fds[: len(told)], task.fds[len(told) :]
    # The end of this process is the only end that some reads have.
    signal.setitimer(signal.ITIMER_REAL, _number(task, "seconds"))
    limit = left = int(_number(task, "limit"))
    for name, source, target in zip(told, sources, targets, strict=True):
        _check(name, source.fileno())
        try:
            left -= _copy(source.fileno(), target.fileno(), left)
        except OSError as error:
            reason = os.strerror(error.errno or 0)
            raise errors.InvalidArgs(f"blobs: {name} cannot be read: {reason}.") from error
        if left < 0:
            raise errors.InvalidArgs(f"blobs: they have more than {limit} bytes.")
        fcntl.fcntl(target.fileno(), fcntl.F_ADD_SEALS, _SEALS)
    return {}


def _number(task: Task, name: str) -> float:
    value = task.argument(name)
    assert isinstance(value, int | float)
    return value


def _copy(source: int, target: int, limit: int) -> int:
    """Copy all, but hardly more than ``limit`` bytes; gives how many."""
    os.lseek(source, 0, os.SEEK_SET)
    written = 0
    while written <= limit and (chunk := os.read(source, _CHUNK)):
        write_all(target, chunk)
        written += len(chunk)
    return written


def _check(name: str, fd: int) -> None:
    if not names.is_blob_name(name):
        raise errors.InvalidArgs(
            f"blobs: {name!r} is no blob name: expected letters, digits, -._~."
        )
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    # By its access mode an O_PATH descriptor looks as if it were open for reading.
    if flags & os.O_PATH or flags & os.O_ACCMODE == os.O_WRONLY:
        raise errors.InvalidArgs(f"blobs: {name} is not open for reading.")
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise errors.InvalidArgs(f"blobs: {name} is no regular file.")


def publish(task: Task) -> dict[str, object]:
    """Make files all that is public of a user, in one step."""
    blobs = dict(zip(task.texts("names"), (fd.fileno() for fd in task.fds), strict=True))
    with Fd.open(task.text("blob_root"), DIRECTORY_FLAGS) as root:
        public_blobs.publish(root, task.text("user"), blobs)
    return {}
