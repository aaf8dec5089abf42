"""The object store of a composefs-style pair: what is in the files that an image names.

The image says for every file which object it is and, as a rule, by which fs-verity digest
that is known. Where objects are sealed with fs-verity the kernel compares the two each time
a file is opened, and the content with the digest each time it is read.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import struct
from typing import TYPE_CHECKING, NamedTuple

from homemgr.errors import ExtensionDamaged, NotSupported
from homemgr.extension.new_mount import created
from homemgr.extension.stack import set_directory, too_old
from homemgr.files import DIRECTORY_FLAGS, GUARDED_FLAGS, Fd
from homemgr.kernel.mounts import fsconfig_set_string, fsopen
from homemgr.kernel.openat2 import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2
from homemgr.kernel.verity import ALGORITHMS, measure

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger(__name__)

_METACOPY = "trusted.overlay.metacopy"
_REDIRECT = "trusted.overlay.redirect"

#: struct ovl_metacopy: version, length, flags, algorithm; then the digest, if there is one.
_HEAD = "BBBB"
_HEAD_SIZE = struct.calcsize(_HEAD)

_RESOLVE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS


class Named(NamedTuple):
    """A file of the image: the object it is, and "algorithm:hex" or nothing."""

    object: str
    digest: str


class Store:
    """An open object store; owns it until `close`."""

    def __init__(self, directory: Fd, *, is_sealed: bool) -> None:
        """Take over ``directory``; ``is_sealed`` has every object checked by the kernel."""
        self._directory = directory
        self._is_sealed = is_sealed

    def behind(self, metadata: Fd) -> Fd:
        """What the pair is together: names and owners from one, content from the other."""
        try:
            return self._composed(metadata)
        except OSError as error:
            if reason := too_old(error):
                raise NotSupported(f"It cannot be put together: {reason} or newer.") from error
            raise

    def _composed(self, metadata: Fd) -> Fd:
        with fsopen("overlay") as fs:
            fsconfig_set_string(fs.fileno(), "source", "homemgr-composefs")
            # Files of the metadata name their object by these two. Only here: the image was
            # verified, and the object store takes names from nowhere else.
            fsconfig_set_string(fs.fileno(), "metacopy", "on")
            fsconfig_set_string(fs.fileno(), "redirect_dir", "on")
            if self._is_sealed:
                fsconfig_set_string(fs.fileno(), "verity", "require")
            set_directory(fs.fileno(), "lowerdir+", metadata)
            set_directory(fs.fileno(), "datadir+", self._directory)
            return created(fs)

    def close(self) -> None:
        """Let go of it; what was composed keeps what it needs."""
        self._directory.close()


def is_sealed(path: str, metadata: Fd, store: Fd) -> bool:
    """Whether the pair at ``path`` has digests in its metadata, and objects that have them.

    One object stands for all: stores are sealed as a whole, and to look at each costs more
    than a login may. Afterwards the kernel refuses every single one that is not.
    """
    # A mount is looked at only; its top can be listed.
    with Fd.open(".", DIRECTORY_FLAGS, dir_fd=metadata.fileno()) as top:
        named = next(_named(top), None)
    if named is None or not named.digest:
        return False
    with _object(path, store, named.object) as found:
        measured = measure(found.fileno())
    if not measured:
        log.info("The objects of %s are not sealed with fs-verity; its digest counts.", path)
        return False
    if measured != named.digest:
        raise ExtensionDamaged(
            f"Object {named.object} of {path} is {measured}, but its metadata expects"
            f" {named.digest}."
        )
    return True


def _named(directory: Fd) -> Iterator[Named]:
    """Files of the image that name an object, in no order."""
    with os.scandir(directory.fileno()) as entries:
        names = sorted((e.name, e.is_dir(follow_symlinks=False)) for e in entries)
    for name, is_directory in names:
        if is_directory:
            with Fd.open(name, DIRECTORY_FLAGS, dir_fd=directory.fileno()) as inner:
                yield from _named(inner)
        elif (named := _name_in(directory, name)) is not None:
            yield named


def _name_in(directory: Fd, name: str) -> Named | None:
    found = os.stat(name, dir_fd=directory.fileno(), follow_symlinks=False)
    if not stat.S_ISREG(found.st_mode):
        return None
    with Fd.open(name, os.O_RDONLY | GUARDED_FLAGS, dir_fd=directory.fileno()) as file:
        try:
            metacopy = os.getxattr(file.fileno(), _METACOPY)
            redirect = os.getxattr(file.fileno(), _REDIRECT)
        except OSError as error:
            # Small files have their content in the image.
            if error.errno != errno.ENODATA:
                raise
            return None
    return Named(os.fsdecode(redirect).lstrip("/"), digest_in(metacopy))


def digest_in(metacopy: bytes) -> str:
    """The digest in what overlayfs stores with a file, as `kernel.verity.measure` writes it."""
    if len(metacopy) <= _HEAD_SIZE:
        return ""
    _, length, _, algorithm = struct.unpack_from(_HEAD, metacopy)
    return f"{ALGORITHMS.get(algorithm, algorithm)}:{metacopy[_HEAD_SIZE:length].hex()}"


def _object(path: str, store: Fd, name: str) -> Fd:
    try:
        return openat2(store.fileno(), name, os.O_RDONLY | GUARDED_FLAGS, _RESOLVE)
    except FileNotFoundError as error:
        raise ExtensionDamaged(f"Object {name} of {path} is missing.") from error
