"""Another size for a home in an image that is open: file, partition, devices and file system.

What grows does so from the outside in, what shrinks from the inside out, so that nothing ever
reaches beyond what it lies in, whatever is killed in between. Then the outer is larger than the
inner, which the same call once more puts right; a login is happy with either.
"""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

from homemgr.errors import BadHomeSize, NoDiskSpace, NotSupported, from_os_error
from homemgr.kernel import file_system_size, loop
from homemgr.kernel.statfs import file_system_type
from homemgr.kernel.synchronization import syncfs
from homemgr.record.sizing import Standing
from homemgr.record.volume_settings import volume_settings
from homemgr.storage import image_file, image_layout, sizes
from homemgr.storage.turns import turn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from homemgr.files import Fd
    from homemgr.storage.image_layout import Layout
    from homemgr.storage.image_parts import Part
    from homemgr.storage.kind import Image
    from homemgr.storage.top import Top

#: The file systems there are in images, by what `file_system_type` gives.
_KINDS: Final = {0xEF53: "ext4", 0x58465342: "xfs", 0x9123683E: "btrfs"}
#: The one that gets smaller while it is in use.
_SHRINKING: Final = "btrfs"
_BLOCK: Final = 4096
#: The least that a btrfs can be.
_LEAST_BTRFS: Final = 256 << 20
#: Beside what is in use a file system needs room to move it about, and so do we.
_SPARE: Final = 16 << 20
#: No resize is about less than that.
_BIT: Final = 1 << 20
#: Of what is free beside an image, this part is left to others by the largest size.
_LEFT: Final = 16


class Opened(NamedTuple):
    """A home whose devices are there."""

    image: Image
    top: Top
    #: Whether nobody else uses it.
    is_ours: bool
    #: The part of the image in which the home lies.
    part_in: Callable[[Fd], Part]
    #: The loop device of that part.
    loop: Callable[[], Fd]
    #: Bytes in the part before the file system.
    offset: int = 0
    #: Has the device of the file system show that many bytes, if it is not the loop device.
    resize_device: Callable[[int], None] = lambda size: None


class _Found(NamedTuple):
    """What it looks like before."""

    file: Fd
    part: Part
    layout: Layout
    kind: str
    is_disk: bool
    #: Bytes that it takes, and how many more there could be.
    now: int
    free: int


def resize(opened: Opened, wanted: int) -> int | None:
    """Give it ``wanted`` bytes, or a word of `sizes`; None if it has to be closed for that.

    Raises BadHomeSize, NoDiskSpace, and NotSupported for a disk that has no partition table.
    """
    with image_file.open_image(opened.image.path) as file:
        image_layout.settle(file)
        found = _look(opened, file)
        if _goes_closed(opened, found, wanted):
            return None
        size = _chosen(opened, found, wanted)
        new = image_layout.resized(found.layout, found.part, size, keeps_size=found.is_disk)
        if size < found.now:
            with _room_to_move(opened, found, size):
                _shrink(opened, found, new)
        else:
            _grow(opened, found, new)
    return size


def may_shrink(top: Top) -> bool:
    """Whether a file system gets smaller while it is in use; as quickly as that can be told."""
    return _KINDS.get(file_system_type(top.fd.fileno())) == _SHRINKING


def standing(opened: Opened) -> Standing:
    """How the home stands now. Raises NotSupported for a disk that has no partition table."""
    with image_file.open_image(opened.image.path) as file:
        image_layout.settle(file)
        found = _look(opened, file)
        inside = os.fstatvfs(opened.top.fd.fileno())
        held = found.now if found.is_disk else image_file.extent(file)[1]
        size = found.now - _not_taken(opened, found, inside)
        return Standing(
            size=size,
            used=max(0, size - inside.f_bavail * inside.f_frsize),
            least=_least(found, inside),
            held=min(held, found.now),
            free=found.free,
            disk=os.fstat(file.fileno()).st_dev,
            shrinks=found.kind == _SHRINKING and not found.is_disk,
        )


def _look(opened: Opened, file: Fd) -> _Found:
    path, part, is_disk = opened.image.path, opened.part_in(file), image_layout.is_disk(file)
    kind = _KINDS.get(file_system_type(opened.top.fd.fileno()), "")
    layout = image_layout.layout_of(file, path, part)
    if not is_disk:
        return _Found(file, part, layout, kind, is_disk, layout.size, _free_beside(file))
    if part.guid is None:
        raise NotSupported(f"{path} is a disk: the home has all of it, and no other size.")
    image_layout.require_reproducible(file, path)
    # As when it is made there: what a home takes of a disk is its partition.
    most = image_layout.most_on_disk(layout, part)
    return _Found(file, part, layout, kind, is_disk, part.size, max(0, most - part.size))


def _free_beside(file: Fd) -> int:
    disk = os.fstatvfs(file.fileno())
    return disk.f_bavail * disk.f_frsize


def payload(layout: Layout, part: Part, offset: int) -> int:
    """Bytes of a file system that begins at ``offset`` in ``part``."""
    return (layout.home_size(part) - offset) // _BLOCK * _BLOCK


def _goes_closed(opened: Opened, found: _Found, wanted: int) -> bool:
    """Whether an ext4 shall shrink that nobody uses."""
    may_be_copied = opened.is_ours and not found.is_disk
    return may_be_copied and found.kind == "ext4" and sizes.rounded(wanted) < found.now


def _chosen(opened: Opened, found: _Found, wanted: int) -> int:
    now, free = found.now, found.free
    if wanted == sizes.LARGEST:
        left = 0 if found.is_disk else free // _LEFT
        return min(sizes.MOST, sizes.rounded(now + free - left))
    inside = os.fstatvfs(opened.top.fd.fileno())
    used, least = _taken(inside), _least(found, inside)
    size = least if wanted == sizes.SMALLEST else sizes.rounded(wanted)
    if size > sizes.MOST:
        raise BadHomeSize(f"{opened.image.path} can have {sizes.MOST} bytes at most.")
    if size < least:
        raise BadHomeSize(_why_not(opened, found, size, least, used))
    may_be_sparse = volume_settings(opened.image.effective).discard and not found.is_disk
    if size - now > free and not may_be_sparse:
        raise NoDiskSpace(
            f"{opened.image.path} cannot grow by {size - now} bytes: {free} bytes are free there."
        )
    return size


def _not_taken(opened: Opened, found: _Found, inside: os.statvfs_result) -> int:
    """Bytes at the end that the file system does not use yet, as a resize was killed.

    Others than btrfs do not tell how much they use of their device.
    """
    if found.kind != "btrfs":
        return 0
    left = payload(found.layout, found.part, opened.offset) - inside.f_blocks * inside.f_frsize
    # What makes a file system may leave a bit of its device.
    return left if left > _BIT else 0


def _taken(inside: os.statvfs_result) -> int:
    return (inside.f_blocks - inside.f_bfree) * inside.f_frsize


def _least(found: _Found, inside: os.statvfs_result) -> int:
    """The least size while it is open."""
    if found.kind != _SHRINKING:
        return found.now
    used, overhead = _taken(inside), found.now - inside.f_blocks * inside.f_frsize
    needed = max(_LEAST_BTRFS, used + used // 8 + _SPARE) + overhead
    return min(found.now, -sizes.rounded(-needed))


def _why_not(opened: Opened, found: _Found, size: int, least: int, used: int) -> str:
    begin = f"{opened.image.path} cannot shrink to {size} bytes: "
    if found.kind == "xfs":
        return begin + "xfs only grows."
    if found.kind == "ext4" and found.is_disk:
        return begin + "ext4 shrinks safely only as a copy, for which a disk has no room."
    if found.kind == "ext4":
        return begin + "ext4 shrinks only while nobody is logged in; deactivate the home first."
    return begin + f"{used} bytes are in use, so it needs {least} at least."


def _grow(opened: Opened, found: _Found, new: Layout) -> None:
    if new.home_size(found.part) < found.part.size:
        # Its partition ends behind where it would end by our rule.
        new = new._replace(parts=found.layout.parts)
    if new != found.layout:
        is_sparse = volume_settings(opened.image.effective).discard
        image_layout.grow(found.file, found.layout, new, is_sparse=is_sparse)
    _set_device(opened, new.home_size(found.part))
    size = payload(new, found.part, opened.offset)
    opened.resize_device(size)
    fd = opened.top.fd.fileno()
    grow = {
        "ext4": file_system_size.grow_ext4,
        "xfs": file_system_size.grow_xfs,
        "btrfs": file_system_size.resize_btrfs,
    }[found.kind]
    try:
        grow(fd, size)
    except OSError as error:
        raise from_os_error(error, f"Growing the file system of {opened.image.path}") from error


@contextmanager
def _room_to_move(opened: Opened, found: _Found, size: int) -> Iterator[None]:
    """Have room to move what lies behind the new end into holes of the image, or NoDiskSpace.

    That takes room on the disk before any is given back. Where there is none the kernel cannot
    write to the file system, and lets nobody else do so from then on.
    """
    held = found.now if found.is_disk else image_file.extent(found.file)[1]
    used = _taken(os.fstatvfs(opened.top.fd.fileno()))
    needed = min(found.now - held, min(used, found.now - size) + _SPARE)
    if needed <= 0:
        yield
        return
    with turn(found.file):
        # Not what was seen before it: others have just taken what they needed, or given it back.
        free = _free_beside(found.file)
        if needed > free:
            raise NoDiskSpace(
                f"{opened.image.path} cannot shrink to {size} bytes: {needed} bytes on its disk"
                f" are needed to move files in it, {free} are free."
            )
        yield


def _shrink(opened: Opened, found: _Found, new: Layout) -> None:
    size = payload(new, found.part, opened.offset)
    # Whatever becomes of this, what its user has written is there.
    syncfs(opened.top.fd.fileno())
    try:
        file_system_size.resize_btrfs(opened.top.fd.fileno(), size)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EINVAL):
            raise
        raise BadHomeSize(
            f"{opened.image.path} cannot shrink to {new.size} bytes: its files need more"
            f" ({error.strerror})."
        ) from error
    opened.resize_device(size)
    home_size = new.home_size(found.part)
    image_layout.shrink(found.file, found.layout, new, lambda: _set_device(opened, home_size))


def _set_device(opened: Opened, size: int) -> None:
    """Have the loop device of the part end where the part does."""
    with opened.loop() as device:
        loop.set_size_limit(device.fileno(), size)
