"""Storage `subvolume`: the home is a subvolume of btrfs, for all else like a directory.

What it has more are snapshots, see `storage.snapshot`, and a limit, see
`storage.limits`.
"""

from __future__ import annotations

import errno
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from homemgr.errors import NotSupported
from homemgr.files import DIRECTORY_FLAGS, Fd
from homemgr.kernel.btrfs import create_subvolume, is_subvolume, make_read_only, make_writable
from homemgr.storage.paths import location

if TYPE_CHECKING:
    from collections.abc import Iterator


#: What file systems answer that have none.
_NO_SUBVOLUMES: Final = (errno.ENOTTY, errno.EOPNOTSUPP, errno.ENOSYS)


def make_subvolume(parent: Fd, name: str) -> None:
    """Make an empty subvolume; NotSupported where there are none.

    In a directory that others may enter they may enter it too.
    """
    try:
        create_subvolume(parent.fileno(), name)
    except OSError as error:
        if error.errno not in _NO_SUBVOLUMES:
            raise
        raise NotSupported(
            f"{location(parent.fileno())} is not on btrfs: homes there cannot be subvolumes;"
            " use storage directory."
        ) from error


@contextmanager
def movable(parent: Fd, name: str) -> Iterator[None]:
    """Let ``name``, if it is a read-only subvolume, be put elsewhere until the end of the block.

    Its owner can make it read-only, and so are those that `btrfs receive` makes; to be put into
    another directory changes it. Of all else this is no business.
    """
    try:
        top = Fd.open(name, DIRECTORY_FLAGS, dir_fd=parent.fileno())
    except NotADirectoryError:
        yield
        return
    with top, written(top):
        yield


@contextmanager
def written(top: Fd) -> Iterator[None]:
    """Let the tree ``top`` be written to until the end of the block, if it is such a subvolume."""
    was_read_only = is_subvolume(top.fileno()) and make_writable(top.fileno())
    try:
        yield
    finally:
        if was_read_only:
            # What was done counts for more.
            with suppress(OSError):
                make_read_only(top.fileno())
