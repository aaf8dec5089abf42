"""Into an image: its root becomes this process's, and all code is what is loaded by then.

Every path, link and ``..`` is resolved by the kernel within the image from then on, whoever
follows it. Nothing of the image is run: neither its Python, nor what its nsswitch.conf names,
nor a library of it. See chroot(2), pid_namespaces(7).
"""

from __future__ import annotations

import codecs
import importlib
import os
import pkgutil
import pwd
import sys
from importlib.machinery import BuiltinImporter, FrozenImporter

from homemgr import crypt
from homemgr.errors import NotSupported, from_os_error
from homemgr.files import DIRECTORY_FLAGS, Fd
from homemgr.kernel import mounts, name_service
from homemgr.kernel.openat2 import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2
from homemgr.kernel.process import CLONE_NEWNS, CLONE_NEWPID, unshare
from homemgr.kernel.syscall import AT_FDCWD, AT_RECURSIVE

#: The rooms whose modules may be asked for while the image is the root.
_ROOMS = ("bus", "daemon", "extension", "kernel", "record", "storage", "token", "transfer", "work")
#: Of the standard library, what is otherwise loaded at first use.
_MODULES = ("concurrent.futures.thread", "_strptime", "linecache", "traceback")
_ENCODINGS = ("ascii", "latin-1", "utf-8", "idna")
#: File systems that only we see: our own processes, and a place for what lasts as long as we do.
_OURS = (("proc", "proc"), ("run", "tmpfs"))


def load_everything() -> None:
    """Load all code that may be needed: in the image there is none that is ours."""
    for room in _ROOMS:
        package = importlib.import_module(f"homemgr.{room}")
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    for name in _MODULES:
        importlib.import_module(name)
    for name in _ENCODINGS:
        codecs.lookup(name)
    crypt.preload()
    # Once before, so that whatever it takes is loaded; from then on the image's own files.
    name_service.files_only()
    pwd.getpwuid(0)


def leave_namespaces(root: Fd) -> None:
    """Have mounts of our own, and processes among themselves from the next fork on.

    The working directory is ``root`` then, among the mounts of our own, where ``root`` is not.
    """
    os.fchdir(root.fileno())
    unshare(CLONE_NEWNS | CLONE_NEWPID)
    mounts.mount_setattr(AT_FDCWD, "/", AT_RECURSIVE, propagation=mounts.MS_PRIVATE)


def enter() -> None:
    """Make the working directory the root of this process, and load nothing any more.

    Raises NotSupported if it is not the root of a system.
    """
    sys.meta_path[:] = [BuiltinImporter, FrozenImporter]
    sys.path.clear()
    with Fd.open(".", DIRECTORY_FLAGS) as root:
        for name, file_system in _OURS:
            _mount(root, name, file_system)
    os.chroot(".")
    os.chdir("/")


def _mount(root: Fd, name: str, file_system: str) -> None:
    rules = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
    try:
        place = openat2(root.fileno(), name, DIRECTORY_FLAGS, rules)
    except OSError as error:
        raise NotSupported(
            f"The image has no directory /{name}, so it is not the root of a system."
        ) from error
    try:
        with place, mounts.fsopen(file_system) as made:
            mounts.fsconfig_create(made.fileno())
            attributes = (
                mounts.MOUNT_ATTR_NOSUID | mounts.MOUNT_ATTR_NODEV | mounts.MOUNT_ATTR_NOEXEC
            )
            with mounts.fsmount(made.fileno(), attributes) as mount:
                flags = mounts.MOVE_MOUNT_F_EMPTY_PATH | mounts.MOVE_MOUNT_T_EMPTY_PATH
                mounts.move_mount(mount.fileno(), "", place.fileno(), "", flags)
    except OSError as error:
        raise from_os_error(error, f"Mounting {file_system} in the image") from error
