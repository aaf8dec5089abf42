"""Whether a path can be trusted: who could change where it leads.

Walks from the root directory by descriptor and looks at every directory on the
way. Knows no file systems and mounts nothing.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress

from homemgr.errors import FileNotFound, InvalidArgs, UnsafePath
from homemgr.files import DIRECTORY_FLAGS, Fd
from homemgr.kernel.walk import walk
from homemgr.record.names import is_remote

#: Keeps files of nobody from processes that run as nobody.
_BASE_MODE = 0o700


def open_safe_parent(path: str, *, for_new: bool = False) -> Fd:
    """The directory that holds ``path``, if only root can change it and what leads to it.

    For what is newly stored there (``for_new``) only root may even enter it, so that
    files of nobody are out of reach at rest. Otherwise `UnsafePath` names the culprit.
    """
    if is_remote(path):
        raise InvalidArgs(f"{path} is on a file server, where this cannot be done from here.")
    parent = _open_directory(os.path.dirname(check_path(path)))
    if for_new:
        _require_private(parent)
    return parent


def check_path(path: str) -> str:
    """``path``, if it is absolute and has no detours; `InvalidArgs` otherwise."""
    if not path.startswith("/") or os.path.normpath(path) != path or path.startswith("//"):
        raise InvalidArgs(f"{path!r} is not an absolute path without '.', '..' or double slashes.")
    if path == "/" or "\0" in path:
        raise InvalidArgs(f"{path!r} cannot be the place of a home area.")
    return path


def ensure_base(path: str) -> Fd:
    """The base directory of new home areas, made root:root 0700 if it is not there yet."""
    with open_safe_parent(path) as parent:
        name = os.path.basename(path)
        # What is there already is judged below, like what we make.
        with suppress(FileExistsError):
            os.mkdir(name, _BASE_MODE, dir_fd=parent.fileno())
            os.fsync(parent.fileno())
        base = _open_base(parent.fileno(), name, path)
    if _is_repairable(base.fileno()):
        os.fchmod(base.fileno(), _BASE_MODE)
    _require_private(base)
    return base


def location(fd: int) -> str:
    """Where an open file is now, for messages."""
    return os.readlink(f"/proc/self/fd/{fd}")


def _open_base(parent: int, name: str, path: str) -> Fd:
    try:
        return Fd.open(name, DIRECTORY_FLAGS, dir_fd=parent)
    except OSError as error:
        raise UnsafePath(f"The base directory {path} must be a directory: {error}.") from error


def _is_repairable(fd: int) -> bool:
    # Nothing in it can have been reached through a wrong mode, so putting it right is safe.
    found = os.fstat(fd)
    is_wrong = stat.S_IMODE(found.st_mode) != _BASE_MODE
    return is_wrong and (found.st_uid, found.st_gid) == (0, 0) and not os.listdir(fd)


def _require_private(directory: Fd) -> None:
    found = os.fstat(directory.fileno())
    mode = stat.S_IMODE(found.st_mode)
    if (found.st_uid, found.st_gid) == (0, 0) and not mode & 0o077:
        return
    owner = f"{found.st_uid}:{found.st_gid} with mode {mode:04o}"
    where = location(directory.fileno())
    directory.close()
    raise UnsafePath(
        f"Directory {where} belongs to {owner}; new home areas are stored only where root:root"
        " with mode 0700 keeps everybody else out."
    )


def _open_directory(path: str) -> Fd:
    """Open ``path`` component by component, judging every directory and link on the way."""
    try:
        found = walk(path, _require_directory)
    except FileNotFoundError as error:
        where = error.filename
        raise FileNotFound(f"Directory {where} on the way to {path} does not exist.") from error
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise UnsafePath(f"Path {path} leads through too many symbolic links.") from error
    with found:
        # So far only looked at: a real descriptor can be listed and synced.
        return Fd.open(".", DIRECTORY_FLAGS, dir_fd=found.fileno())


def _require_directory(fd: int) -> None:
    require_safe_way(fd)
    if not stat.S_ISDIR(os.fstat(fd).st_mode) and not stat.S_ISLNK(os.fstat(fd).st_mode):
        raise UnsafePath(f"{location(fd)} is not a directory.")


def require_safe_way(fd: int) -> None:
    """Raise UnsafePath for a directory or link on a way that others than root can change."""
    found = os.fstat(fd)
    if stat.S_ISLNK(found.st_mode):
        _require_safe_link(fd, found.st_uid)
        return
    if not stat.S_ISDIR(found.st_mode):
        return
    # Sticky or not: whoever may create entries here may be first with the name we want.
    if found.st_uid == 0 and not found.st_mode & 0o022:
        return
    mode = stat.S_IMODE(found.st_mode)
    raise UnsafePath(
        f"Directory {location(fd)} belongs to uid {found.st_uid} with mode {mode:04o}; expected"
        " root as owner and no write permission for group and others."
    )


def _require_safe_link(fd: int, owner: int) -> None:
    if owner != 0:
        raise UnsafePath(
            f"Symbolic link {location(fd)} belongs to uid {owner}; expected root,"
            " because its owner decides where it leads."
        )
