"""Open what only root could have put there and only root can change.

Judges every directory, link and file on the way by its descriptor; after that
everything is done by the descriptor that was judged.
"""

from __future__ import annotations

import os
import stat

from homemgr.errors import ExtensionNotTrusted
from homemgr.files import DIRECTORY_FLAGS, Fd
from homemgr.kernel.walk import walk

#: More directories than any path has.
_DEPTH_LIMIT = 4096


def open_trusted(path: str) -> Fd:
    """The file or directory at ``path`` for reading; FileNotFoundError if there is none."""
    try:
        found = walk(path, _judge)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise ExtensionNotTrusted(f"{path} cannot be reached: {error}.") from error
    with found:
        if stat.S_ISDIR(os.fstat(found.fileno()).st_mode):
            return Fd.open(".", DIRECTORY_FLAGS, dir_fd=found.fileno())
        # The very inode that was judged, whatever has the name by now.
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
        return Fd.open(f"/proc/self/fd/{found.fileno()}", flags)


def is_private(directory: Fd) -> bool:
    """Whether nobody but root can get to ``directory``, because of it or what it is in."""
    current = directory.duplicate()
    try:
        for _ in range(_DEPTH_LIMIT):
            here = os.fstat(current.fileno())
            if not here.st_mode & 0o011 and here.st_uid == 0:
                return True
            above = Fd.open("..", os.O_PATH | os.O_DIRECTORY, dir_fd=current.fileno())
            current.close()
            current = above
            if os.path.samestat(here, os.fstat(current.fileno())):
                break
        return False
    finally:
        current.close()


def _judge(fd: int) -> None:
    found = os.fstat(fd)
    where = os.readlink(f"/proc/self/fd/{fd}")
    kind = stat.S_IFMT(found.st_mode)
    if kind not in (stat.S_IFLNK, stat.S_IFDIR, stat.S_IFREG):
        raise ExtensionNotTrusted(f"{where} is neither a file nor a directory.")
    # The mode of a link means nothing; whoever may replace it is judged with its directory.
    if found.st_uid == 0 and (kind == stat.S_IFLNK or not found.st_mode & 0o022):
        return
    raise ExtensionNotTrusted(
        f"{where} belongs to uid {found.st_uid} with mode {stat.S_IMODE(found.st_mode):04o};"
        " expected root as owner and no write permission for group and others."
    )
