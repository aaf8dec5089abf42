"""Follow a path from the root directory component by component, see path_resolution(7).

Whoever calls is shown the descriptor of everything on the way, links included, before
the next step is taken from it. Has no opinion on what it meets.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from homemgr.files import Fd

if TYPE_CHECKING:
    from collections.abc import Callable

#: A look at what a name is, without opening it.
_LOOK = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC

#: As many symbolic links as the kernel itself follows in one path.
_LINK_LIMIT = 40


def walk(path: str, judge: Callable[[int], None]) -> Fd:
    """An O_PATH descriptor of what ``path`` leads to, shown to ``judge`` like all before it.

    OSError tells in ``filename`` what was missing; ELOOP if there are too many links.
    """
    current = Fd.open("/", _LOOK)
    try:
        judge(current.fileno())
        pending, links = _components(path), 0
        while pending:
            following = _look(current.fileno(), pending.pop())
            with following:
                judge(following.fileno())
                target = _target(following.fileno())
                if target is None:
                    current.close()
                    current = Fd(following.take())
                    continue
            links += 1
            if links > _LINK_LIMIT:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
            pending += _components(target)
            # A relative link goes on from the directory that holds it.
            if target.startswith("/"):
                current.close()
                current = Fd.open("/", _LOOK)
        return Fd(current.take())
    finally:
        current.close()


def _components(path: str) -> list[str]:
    return [name for name in reversed(path.split("/")) if name not in ("", ".")]


def _look(parent: int, name: str) -> Fd:
    try:
        return Fd.open(name, _LOOK, dir_fd=parent)
    except OSError as error:
        where = os.path.join(os.readlink(f"/proc/self/fd/{parent}"), name)
        raise OSError(error.errno, os.strerror(error.errno or 0), where) from error


def _target(fd: int) -> str | None:
    """Where the symbolic link ``fd`` leads; None if it is none."""
    if not stat.S_ISLNK(os.fstat(fd).st_mode):
        return None
    return os.readlink("", dir_fd=fd)
