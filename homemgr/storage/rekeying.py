"""Other passwords for a volume key, in steps between which a kill leaves the right ones.

New slots are added before the record is written and old ones removed after it. Which are which
is noted beside them, with digests of both records: whatever was killed, whoever opens the home
next sees by the record that is there which of them have to go. See `settle`. Accelerators go
first and come last: what is left of one without its slot would be of no use, but is never there.
"""

from __future__ import annotations

import errno
import hashlib
import itertools
import json
import logging
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NoReturn

from homemgr.errors import HostileHome, NoDiskSpace
from homemgr.storage import accelerators, key_slots
from homemgr.storage.embedded import read_identity

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from homemgr.storage.sealing import Sealed
    from homemgr.storage.top import Top

log = logging.getLogger(__name__)

#: Extended attribute of the top directory while slots are being replaced.
_NOTE = "trusted.homemgr.rekeying"


@contextmanager
def replacing(
    top: Top, sealed: Sequence[Sealed], identity: bytes | None, dropped: Sequence[int] | None = None
) -> Iterator[None]:
    """Have the slots ``sealed`` while the block runs; after it only those that the record needs.

    Of the old ones all go then, or those with the numbers ``dropped`` if that is given. Raises
    NoDiskSpace, and nothing was changed, if there is no room for more of them.
    """
    fd = top.fd.fileno()
    # There is little room for attributes, and these only save time. A slot that stays gets its
    # accelerator again when it is opened.
    key_slots.forget_likeliest(fd)
    accelerators.forget_all(fd)
    taken = key_slots.numbers(fd)
    old = taken if dropped is None else dropped
    free = (number for number in itertools.count() if number not in taken)
    new = list(itertools.islice(free, len(sealed)))
    note: dict[str, object] = {"old": old, "new": new, "is_complete": False}
    if identity is not None:
        # Noted before the first of them is there: a kill leaves no slot that nothing tells of.
        note |= {"before": digest(read_identity(top)), "after": digest(identity)}
        try:
            os.setxattr(fd, _NOTE, json.dumps(note).encode())
        except OSError as error:
            _refuse(top, len(sealed), error)
    _add(top, {number: one.slot for number, one in zip(new, sealed, strict=True)})
    try:
        if identity is not None:
            # Only now may `settle` remove old ones: before, the new ones may not all be there.
            os.setxattr(fd, _NOTE, json.dumps({**note, "is_complete": True}).encode())
            os.fsync(fd)
        yield
    finally:
        settle(top)
    # Nor may there be one where the record was not written, and new slots are gone again.
    there = key_slots.numbers(fd)
    for number, one in zip(new, sealed, strict=True):
        if number in there:
            accelerators.write(fd, number, one.accelerator)


def settle(top: Top) -> None:
    """Remove slots that the home's record does not need, if a change of passwords left any."""
    fd = top.fd.fileno()
    try:
        note = json.loads(os.getxattr(fd, _NOTE))
        now = present(top)
        if note["is_complete"] and now == note["after"]:
            _remove(fd, note["old"])
        elif now == note["before"]:
            _remove(fd, note["new"])
        else:
            log.warning("%s was changed elsewhere; all its key slots stay.", top.image_path)
    except OSError as error:
        if error.errno == errno.ENODATA:
            return
        # Too many slots keep nobody out; the next time somebody opens the home they go.
        log.warning("%s keeps key slots it does not need: %s", top.image_path, error.strerror)
        return
    except (ValueError, KeyError, TypeError):
        log.warning("The note of a change of passwords in %s is none.", top.image_path)
    with suppress(OSError):
        os.removexattr(fd, _NOTE)


def present(top: Top) -> str:
    """Which record is in the home: its digest, or nothing if it cannot be read."""
    try:
        return digest(read_identity(top))
    except HostileHome:
        return ""


def digest(identity: bytes | None) -> str:
    """What tells one record from another; of none it is that of nothing."""
    return hashlib.sha256(identity or b"").hexdigest()


def _add(top: Top, slots: dict[int, bytes]) -> None:
    fd = top.fd.fileno()
    try:
        for number, sealed in slots.items():
            # CREATE, because a slot that is there already is somebody's only way in.
            os.setxattr(fd, key_slots.attribute(number), sealed, os.XATTR_CREATE)
        os.fsync(fd)
    except OSError as error:
        _remove(fd, slots)
        with suppress(OSError):
            os.removexattr(fd, _NOTE)
        _refuse(top, len(slots), error)


def _refuse(top: Top, count: int, error: OSError) -> NoReturn:
    """Raise for a slot, or the note about it, that could not be written."""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.E2BIG):
        raise error
    raise NoDiskSpace(
        f"There is no room for {count} more key slots of {top.image_path}, and"
        " the old ones stay until the new ones are there. Nothing was changed."
    ) from error


def _remove(fd: int, numbers: Iterator[int] | Sequence[int] | dict[int, bytes]) -> None:
    for number in numbers:
        # Whoever opened the home after a kill may have made one.
        accelerators.forget(fd, int(number))
        try:
            os.removexattr(fd, key_slots.attribute(int(number)))
        except OSError as error:
            # Gone already: who removed it was killed before the note went.
            if error.errno != errno.ENODATA:
                raise
    os.fsync(fd)
