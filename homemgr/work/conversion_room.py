"""Whether there is room for a home that is made anew: before a byte is copied, and meanwhile."""

from __future__ import annotations

import errno
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.files import Fd
from homemgr.kernel import reflink
from homemgr.record.names import FILE_SUFFIXES
from homemgr.storage import limits, staging
from homemgr.storage.abilities import probe
from homemgr.storage.embedded import IDENTITY
from homemgr.storage.guarded import open_guarded
from homemgr.transfer.needs import lacking
from homemgr.work.allowance import Size
from homemgr.work.staged import require_room

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from homemgr.transfer.needs import Needs
    from homemgr.work.conversion import Target

#: A disk with less than this is full (bytes): what is written to an image needs whole blocks.
_FULL_BYTES = 1 << 20


def require_outside(target: Target, room: Fd, size: Size) -> None:
    """Raise NoDiskSpace unless the disk has the room for what will be in an image.

    One that takes it only as it is filled would be damaged by a disk that is full.
    """
    if target.name in FILE_SUFFIXES and not target.stays:
        require_room(room, Size(0, 0), size._replace(files=1))


def require_fit(target: Target, source: Fd, top: Fd, size: Size, needs: Needs) -> None:
    """Raise NoDiskSpace, BadHomeSize or NotSupported if the home cannot be stored in ``top``."""
    limit = None if target.name in FILE_SUFFIXES else limits.taken(top)
    # Blocks that are shared count too, but nobody is stopped by them until he writes.
    if limit is not None and 0 < limit.limit < size.bytes:
        raise _over_its_size(target)
    try:
        # What is shared takes no room; how much that will be is not known before.
        require_room(top, Size(0, 0), size._replace(bytes=0) if can_share(source, top) else size)
    except errors.NoDiskSpace as error:
        if target.name not in FILE_SUFFIXES:
            raise
        # A new file system has nothing that could be freed.
        raise _too_small(target, error.message) from error
    if missing := lacking(needs, probe(top)):
        raise errors.NotSupported(
            f"The file system of {target.image_path} cannot hold the home area: it lacks {missing}."
        )


@contextmanager
def told_if_full(target: Target, room: Fd, size: Size, copied: Callable[[], int]) -> Iterator[None]:
    """Have it said what has become full inside the block, and how much was still to come.

    ``copied`` says how many bytes of contents were. Raises NoDiskSpace; BadHomeSize if it is the
    new image, or the size that the new home is kept to.
    """
    try:
        yield
    except (OSError, errors.SystemFailure, errors.DamagedFileSystem) as error:
        is_image = target.name in FILE_SUFFIXES
        # What is written to an image on a full disk fails in ways of its own.
        is_file = is_image and not target.stays
        is_outside = is_file and staging.free_bytes(room) < _FULL_BYTES
        number = error.errno if isinstance(error, OSError) else 0
        if number not in (errno.ENOSPC, errno.EDQUOT) and not is_outside:
            raise
        said = (
            f"There is no space left for {max(0, size.content - copied())} of the {size.content}"
            " bytes of the home area, which stays as it was."
        )
        if is_image and not is_outside:
            raise _too_small(target, said) from error
        if number == errno.EDQUOT:
            raise _over_its_size(target) from error
        where = os.path.dirname(target.image_path)
        raise errors.NoDiskSpace(f"The disk of {where} is full. {said}") from error


def can_share(source: Fd, top: Fd) -> bool:
    """Whether files of the one can share blocks with files of the other; found by trying."""
    try:
        with (
            open_guarded(source, IDENTITY, os.fstat(source.fileno()).st_uid) as one,
            Fd.open(".", os.O_TMPFILE | os.O_RDWR, 0o600, dir_fd=top.fileno()) as other,
        ):
            reflink.clone(one.fileno(), other.fileno())
    except (OSError, errors.HomeError):
        return False
    return True


def _over_its_size(target: Target) -> errors.BadHomeSize:
    return errors.BadHomeSize(
        "The home area holds more than its size allows, which would be kept to at"
        f" {target.image_path}; it stays as it was. Give it more bytes by --disk-size=."
    )


def _too_small(target: Target, why: str) -> errors.BadHomeSize:
    advice = (
        "Take a larger device, or more of this one by --disk-size=."
        if target.stays
        else "Give the new image more bytes by --disk-size=."
    )
    return errors.BadHomeSize(f"{why} {advice}")
