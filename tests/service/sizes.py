"""Users who take all the room that they get, and what is said of it."""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.service.site import Service

MIB = 1 << 20
#: Of a home, more than it takes by itself.
SIZE = 8 * MIB
#: What file systems take beside the content of files, and of limits for themselves.
SLACK = MIB


def figures(service: Service, name: str) -> dict[str, int]:
    """What the service says of a home beside its record."""
    (status,) = service.user_record(name)["status"].values()
    return dict(status)


def as_user(uid: int, work: Callable[[], None]) -> int:
    """Do it as a user and nobody else; the number of the error, 0 for none."""
    child = os.fork()
    if child == 0:
        status = 255
        with suppress(BaseException):
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            status = _errno_of(work)
        os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _errno_of(work: Callable[[], None]) -> int:
    try:
        work()
    except OSError as error:
        return error.errno or 255
    return 0


def _append(path: Path, size: int) -> None:
    with path.open("ab", buffering=0) as file:
        while size:
            size -= file.write(os.urandom(min(size, 1 << 16)))
        os.fsync(file.fileno())


def take(service: Service, name: str, size: int) -> int:
    """Have the user write that much into the file ``ballast``; the error that stops him, or 0."""
    home = service.path_of(name)
    return as_user(home.stat().st_uid, lambda: _append(home / "ballast", size))


def take_up_to_the_limit(service: Service, name: str, limit: int) -> None:
    """Write until it fails as it does when a quota is used up, and near ``limit``.

    For projects xfs says that the disk is full, which to them it is (xfs_quota(8)).
    """
    refused = take(service, name, 2 * limit)
    seen = figures(service, name)
    assert refused == (errno.ENOSPC if seen["fileSystemType"] == "xfs" else errno.EDQUOT)
    assert limit - SLACK <= seen["diskUsage"] <= limit
