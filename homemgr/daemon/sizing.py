"""Sizes of homes: how much one may hold, as somebody says it.

Error names and limits are those of systemd-homed 262.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from homemgr import errors
from homemgr.daemon import snapshots
from homemgr.daemon.attempts import attempt
from homemgr.daemon.changes import record_in
from homemgr.daemon.home import now_usec
from homemgr.daemon.states import Job, Operation
from homemgr.record import signature, storages

if TYPE_CHECKING:
    from homemgr.daemon.home import Home
    from homemgr.record.secret import Secret

log = logging.getLogger(__name__)

#: Instead of a size: the one that the record has.
AS_RECORDED: Final = (1 << 64) - 1


async def resize(home: Home, size: int, secret: Secret) -> None:
    """Hold a home to ``size`` bytes at most, and note that in its record.

    Raises InvalidArgs if neither the call nor the record names a size, BadHomeSize,
    NotSupported, NoDiskSpace, RecordSigned and the credential failures.
    """
    keyring = home.services.keyring
    async with home.exclusively(Operation.RESIZE):
        wanted = _wanted(home, size)
        key = keyring.signer_like(home.record)
        if key is None:
            raise errors.NoPrivateKey
        if wanted != home.effective.disk_size:
            signature.require_ours(home.record, keyring)
        if _may_shrink(home, wanted):
            await snapshots.before(home, "resize")
        await home.services.writing(home.name)
        async with attempt(home, secret):
            result = await home.work(
                Job.RESIZE,
                secret,
                size=wanted,
                private_key=key.to_pem().decode(),
                now_usec=now_usec(),
            )
        await home.store_record(record_in(result).with_local_sections_of(home.record))
    log.info("Home area %s has a size of %s bytes now.", home.name, result.get("size"))


def _wanted(home: Home, size: int) -> int:
    """The size that is meant; a worker says whether that can be."""
    if size == AS_RECORDED:
        recorded = home.effective.disk_size
        if recorded is None:
            raise errors.InvalidArgs(
                f"Cannot resize home area {home.name}: expected a size in the call or in its"
                " record, found neither."
            )
        return recorded
    return size


def _may_shrink(home: Home, wanted: int) -> bool:
    """Whether an image may be cut off; a limit that is lowered takes nothing away."""
    known = home.effective.disk_size
    return not storages.is_tree(home.effective.storage) and (known is None or wanted < known)
