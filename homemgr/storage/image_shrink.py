"""A smaller size for an image with an ext4 in it, which shrinks only while it is closed.

An ext4 that shrinks is beyond repair if the power goes. So a copy of the image shrinks, encrypted
with the same key if it is, and takes its place in one step: before it nothing has happened,
after it all is done. Where files can share their content the copy costs nothing.
"""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from homemgr.errors import BadHomeSize, NoDiskSpace
from homemgr.files import Fd
from homemgr.kernel.file_flags import get_flags, set_flags
from homemgr.kernel.reflink import clone
from homemgr.record.volume_settings import volume_settings
from homemgr.storage import (
    image_file,
    image_layout,
    image_resize,
    sizes,
)
from homemgr.storage.directory import NEW_PREFIX, RANDOM_BYTES
from homemgr.storage.paths import location, open_safe_parent
from homemgr.storage.sparse import copy_data
from homemgr.volume import file_system

if TYPE_CHECKING:
    from collections.abc import Callable

    from homemgr.storage.image_layout import Layout
    from homemgr.storage.image_parts import Part
    from homemgr.storage.kind import Image

#: What cannot share content says.
_NO_CLONE: Final = (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY)
_MIB: Final = 1 << 20


class Way(NamedTuple):
    """How a kind of image is opened."""

    #: The part of the image in which the home lies.
    part_in: Callable[[Fd], Part]
    #: Opens that part of a file, closed with the stack: the node of the device with the file
    #: system, and at which byte of the part that begins.
    open_in: Callable[[Fd, Part, ExitStack], tuple[str, int]]


def shrink(image: Image, wanted: int, way: Way) -> int:
    """Shrink to ``wanted`` bytes, or a word of `sizes`; gives what it came to.

    Raises BadHomeSize if the files do not fit, NoDiskSpace if a copy does not.
    """
    file_name = os.path.basename(image.path)
    with open_safe_parent(image.path) as parent, ExitStack() as undo:
        file = undo.enter_context(image_file.open_image(image.path))
        image_file.lock(file, image.path)
        image_layout.settle(file)
        name, copy = _copy(file, parent, file_name, undo)
        size = _shrink_copy(image, copy, wanted, way)
        # On disk before it takes the place: a power cut leaves the old image or the new one, whole.
        os.fsync(copy.fileno())
        os.rename(name, file_name, src_dir_fd=parent.fileno(), dst_dir_fd=parent.fileno())
        undo.pop_all()
        os.fsync(parent.fileno())
        copy.close()
        file.close()
    return size


def _copy(file: Fd, parent: Fd, file_name: str, undo: ExitStack) -> tuple[str, Fd]:
    """A copy of the image that a sweep deletes, unless somebody has it locked as we have."""
    name = f"{NEW_PREFIX}{file_name}.{secrets.token_hex(RANDOM_BYTES)}"
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    copy = Fd.open(name, flags, 0o600, dir_fd=parent.fileno())
    undo.callback(os.unlink, name, dir_fd=parent.fileno())
    undo.callback(copy.close)
    fcntl.flock(copy.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    with suppress(OSError):
        # Without copy on write, as such images are on btrfs, only files of that kind share.
        set_flags(copy.fileno(), get_flags(file.fileno()))
    try:
        clone(file.fileno(), copy.fileno())
    except OSError as error:
        if error.errno not in _NO_CLONE:
            raise
        _require_room(file)
        copy_data(file.fileno(), copy.fileno())
    return name, copy


def _require_room(file: Fd) -> None:
    disk, needed = os.fstatvfs(file.fileno()), os.fstat(file.fileno()).st_blocks * 512
    free = disk.f_bavail * disk.f_frsize
    if needed > free:
        raise NoDiskSpace(
            f"{location(file.fileno())} shrinks as a copy, so that nothing is lost if it is"
            f" stopped: that needs {needed} bytes for a while, and {free} are free."
        )


def _shrink_copy(image: Image, copy: Fd, wanted: int, way: Way) -> int:
    part = way.part_in(copy)
    old = image_layout.layout_of(copy, image.path, part)
    with ExitStack() as closing:
        device, offset = way.open_in(copy, part, closing)
        size = _chosen(image, old, image_resize.payload(old, part, offset), device, wanted)
        new = image_layout.resized(old, part, size)
        file_system.shrink_ext4(device, image_resize.payload(new, part, offset))
    image_layout.shrink(copy, old, new, lambda: None)
    if not volume_settings(image.effective).discard:
        with suppress(OSError):
            # As at a login: a disk that has no room for all of it is no reason to fail.
            os.posix_fallocate(copy.fileno(), 0, new.size)
    return size


def _chosen(image: Image, old: Layout, payload: int, device: str, wanted: int) -> int:
    needed = file_system.smallest_ext4(device) + old.size - payload
    # Partitions end at whole MiB.
    least = -(-needed // _MIB) * _MIB + _MIB
    size = min(least, old.size) if wanted == sizes.SMALLEST else sizes.rounded(wanted)
    if size < needed:
        raise BadHomeSize(
            f"{image.path} cannot shrink to {size} bytes: with what is in it it needs {needed}."
        )
    return size
