"""Sizes of homes: how much one may hold, and sharing space out among them.

Files of all homes belong to nobody on disk, so no quota by owner can tell them apart, and
no storage of this service has a size of its own. Error names are those of systemd-homed 262.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, NoReturn

from homemgr import errors
from homemgr.daemon.states import Operation

if TYPE_CHECKING:
    from homemgr.daemon.home import Home

log = logging.getLogger(__name__)

#: Instead of a size: the one that the record has.
AS_RECORDED = (1 << 64) - 1


def note_created(home: Home) -> None:
    """Log that the size asked for is not kept to; systemd-homed makes such a home as well."""
    if _names_size(home):
        log.warning("The size in the record of home area %s has no effect.", home.name)


async def resize(home: Home, size: int) -> NoReturn:
    """Refuse with NotSupported; InvalidArgs if neither ``size`` (bytes) nor the record has one."""
    async with home.exclusively(Operation.RESIZE):
        if size == AS_RECORDED and not _names_size(home):
            raise errors.InvalidArgs(
                f"Cannot resize home area {home.name}: expected a size in the call or in its"
                " record, found neither."
            )
        raise errors.NotSupported(
            f"Cannot resize home area {home.name}: with storage {home.effective.storage} it has"
            " no size of its own and takes what its file system has."
        )


def _names_size(home: Home) -> bool:
    return any(home.effective.is_set(name) for name in ("diskSize", "diskSizeRelative"))


def rebalance() -> NoReturn:
    """Refuse with RebalanceNotNeeded."""
    raise errors.RebalanceNotNeeded
