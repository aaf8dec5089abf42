"""The file system an extension is stored in, as a mount that is attached nowhere.

Read-only, nosuid, nodev from the start. What it holds is judged elsewhere; ids are
shown as they are stored until somebody maps them.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from homemgr.errors import ExtensionDamaged, ExtensionNotUsable
from homemgr.extension import digest, disk, objects, superblock, verified
from homemgr.extension.find import Kind
from homemgr.extension.new_mount import ATTRIBUTES, mount_new
from homemgr.extension.shelf import Shelf
from homemgr.extension.trusted import is_private, open_trusted
from homemgr.kernel import loop
from homemgr.kernel.mounts import (
    MS_PRIVATE,
    OPEN_TREE_CLONE,
    mount_setattr,
    open_tree,
)
from homemgr.kernel.statfs import EROFS_SUPER_MAGIC, OVERLAYFS_SUPER_MAGIC, file_system_type
from homemgr.kernel.syscall import AT_EMPTY_PATH
from homemgr.volume.reading import reader

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from homemgr.extension.find import Candidate
    from homemgr.extension.objects import Store
    from homemgr.files import Fd

#: The two halves of a composefs pair.
_METADATA, _OBJECTS = "meta.erofs", "objects"

#: How a kernel that cannot mount a file without a loop device says so.
_NO_FILE_MOUNT = (errno.ENOTBLK, errno.EINVAL, errno.EOPNOTSUPP)

#: File systems that are themselves stacked on another one, as far as anybody can tell.
_STACKED = (OVERLAYFS_SUPER_MAGIC, EROFS_SUPER_MAGIC)


class Trust(NamedTuple):
    """What has to be known to believe an image."""

    architecture: str
    refuse_unverifiable_signature: bool
    places: digest.Places
    #: Where mounts of images are shared.
    shelf: Shelf = Shelf()


class Volume:
    """A detached mount of an extension's whole tree, and its object store if it has one.

    Owns both until the end of its ``with`` block or `close`.
    """

    def __init__(
        self,
        base: Fd,
        depth: int,
        *,
        is_image: bool = True,
        is_sealed: bool = True,
        objects: Store | None = None,
    ) -> None:
        """Take over ``base`` and ``objects``."""
        self.base = base
        #: How many file systems a layer made of it is stacked on.
        self.depth = depth
        #: Whether its format cannot be written to, by nobody and in no way.
        self.is_image = is_image
        #: Whether nobody but root can get to what it is stored in.
        self.is_sealed = is_sealed
        self._objects = objects

    def view(self, directory: Fd) -> Fd:
        """``directory``, which is in the mount, with the data of its files behind it.

        Ids are mapped as they are at this moment.
        """
        if self._objects is None:
            return directory.duplicate()
        return self._objects.behind(directory)

    def close(self) -> None:
        """Let go; with the last descriptor inside it the mount is gone."""
        self.base.close()
        if self._objects is not None:
            self._objects.close()

    def __enter__(self) -> Volume:
        """Own until the end of the block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Let go, whatever happened."""
        self.close()


def open_volume(candidate: Candidate, trust: Trust) -> Volume:
    """Mount what is stored at the candidate's path, after it was found to be trusted."""
    if candidate.kind is Kind.COMPOSEFS:
        return _open_pair(candidate.path, trust)
    with open_trusted(candidate.path) as stored:
        if candidate.kind is Kind.DIRECTORY:
            return _open_directory(candidate.path, stored)
        return _open_image(candidate.path, stored, trust)


def image_path(candidate: Candidate) -> str:
    """The file whose digest has to be known; empty for a directory."""
    if candidate.kind is Kind.COMPOSEFS:
        return f"{candidate.path}/{_METADATA}"
    return "" if candidate.kind is Kind.DIRECTORY else candidate.path


def _open_directory(path: str, stored: Fd) -> Volume:
    if not stat.S_ISDIR(os.fstat(stored.fileno()).st_mode):
        raise ExtensionNotUsable(f"{path} must be a directory.")
    # Without AT_RECURSIVE: what is mounted inside the tree is not part of it.
    with ExitStack() as undo:
        mount = undo.enter_context(
            open_tree(stored.fileno(), "", AT_EMPTY_PATH | OPEN_TREE_CLONE),
        )
        mount_setattr(
            mount.fileno(), "", AT_EMPTY_PATH, attr_set=ATTRIBUTES, propagation=MS_PRIVATE
        )
        undo.pop_all()
    return Volume(mount, _depth(stored), is_image=False, is_sealed=is_private(stored))


def _open_image(path: str, image: Fd, trust: Trust) -> Volume:
    _require_file(path, image)
    wanted = digest.stored(path, trust.places)
    if wanted is not None:
        digest.verify(image, path, wanted, trust.places)
    size = os.fstat(image.fileno()).st_size
    found = _identify(path, reader(image.fileno(), 0, size), size)
    if found.kind == "gpt":
        return _open_disk(path, image, trust, is_known=wanted is not None)
    _require_digest(path, is_known=wanted is not None)
    return _mounted(image, found.kind, trust.shelf)


def _open_disk(path: str, image: Fd, trust: Trust, *, is_known: bool) -> Volume:
    found = disk.partitions(path, image)
    is_required = trust.refuse_unverifiable_signature
    device = disk.open_signed(path, image, found, trust.architecture, is_required=is_required)
    if device is not None:
        with device:
            size = os.lseek(device.fileno(), 0, os.SEEK_END)
            kind = _kind_in_partition(path, device, 0, size)
            # The mount keeps the device from here on.
            return Volume(mount_new(kind, verified.path_of(device)), 0)
    _require_digest(path, is_known=is_known)
    partition = disk.choose(path, found, trust.architecture)
    kind = _kind_in_partition(path, image, partition.start, partition.size)
    return _on_loop(image, kind, partition.start, partition.size)


def _kind_in_partition(path: str, image: Fd, start: int, size: int) -> str:
    found = _identify(f"The partition in {path}", reader(image.fileno(), start, size), size)
    if found.kind == "gpt":
        raise ExtensionNotUsable(f"The partition in {path} holds another partition table.")
    return found.kind


def _require_digest(path: str, *, is_known: bool) -> None:
    """Nobody signed it, so somebody must have said what it is."""
    if not is_known:
        raise digest.unknown(path)


def _require_file(path: str, image: Fd) -> None:
    if not stat.S_ISREG(os.fstat(image.fileno()).st_mode):
        raise ExtensionNotUsable(f"{path} must be a regular file.")


def _open_pair(path: str, trust: Trust) -> Volume:
    image_path, objects_path = f"{path}/{_METADATA}", f"{path}/{_OBJECTS}"
    with ExitStack() as undo:
        image = undo.enter_context(open_trusted(image_path))
        _require_file(image_path, image)
        wanted = digest.expected(image_path, trust.places)
        digest.verify(image, image_path, wanted, trust.places)
        size = os.fstat(image.fileno()).st_size
        found = _identify(image_path, reader(image.fileno(), 0, size), size)
        if found.kind != "erofs":
            raise ExtensionNotUsable(f"{image_path} must be erofs, but it is {found.kind}.")
        stored = undo.enter_context(open_trusted(objects_path))
        if not stat.S_ISDIR(os.fstat(stored.fileno()).st_mode):
            raise ExtensionNotUsable(f"{objects_path} must be a directory.")
        # On a loop device, not straight from the file: that would be one file system
        # more under the home's overlay than the kernel allows.
        base = undo.enter_context(_on_loop(image, found.kind, 0, 0)).base
        is_sealed = objects.is_sealed(path, base, stored)
        store = objects.Store(stored.duplicate(), is_sealed=is_sealed)
        return Volume(base.duplicate(), _depth(stored) + 1, objects=store)


def _mounted(image: Fd, kind: str, shelf: Shelf) -> Volume:
    """Without a loop device where file system, kernel and stack depth allow that."""
    depth = _depth(image)
    if kind == "erofs" and depth == 0:
        try:
            source = f"/proc/self/fd/{image.fileno()}"
            return Volume(shelf.mount(image, partial(mount_new, kind, source)), depth + 1)
        except OSError as error:
            if error.errno not in _NO_FILE_MOUNT:
                raise
    return _on_loop(image, kind, 0, 0)


def _on_loop(image: Fd, kind: str, offset: int, size: int) -> Volume:
    attached = loop.attach_shared(image.fileno(), offset=offset, size_limit=size)
    # The mount keeps the device from here on, and the device the image.
    with attached.device:
        return Volume(mount_new(kind, attached.path), 0)


def _identify(what: str, read: Callable[[int, int], bytes], size: int) -> superblock.Superblock:
    try:
        found = superblock.identify(read)
    except ValueError as error:
        raise ExtensionNotUsable(f"{what} cannot be used: {error}.") from error
    if found.bytes_claimed > size:
        raise ExtensionDamaged(
            f"{what} is cut off: its {found.kind} has {found.bytes_claimed} bytes, of which"
            f" {size} are there."
        )
    return found


def _depth(stored: Fd) -> int:
    """How many file systems what is stored here is already stacked on, as far as one can tell."""
    return int(file_system_type(stored.fileno()) in _STACKED)
