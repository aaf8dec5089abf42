"""One image of a disk at a time gets smaller, if that takes room on the disk first.

Each looks at what is free beside it: several at once would count on the same bytes.
"""

from __future__ import annotations

import logging
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from homemgr.errors import HomeInUse
from homemgr.files import GUARDED_FLAGS, Fd
from homemgr.kernel.lock import try_lock_byte
from homemgr.storage.paths import location

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger(__name__)

#: Whose turn it is: a byte for each disk, locked by who has it and lost with him.
FILE: Final = "/run/homemgr/turns"

#: How long a turn is waited for, and how often it is asked for (s).
_PATIENCE_S: Final = 30.0
_PAUSE_S: Final = 0.02


@contextmanager
def turn(image: Fd) -> Iterator[None]:
    """Have it on the disk that holds ``image``; HomeInUse if others take too long."""
    os.makedirs(os.path.dirname(FILE), 0o755, exist_ok=True)
    with Fd.open(FILE, os.O_RDWR | os.O_CREAT | GUARDED_FLAGS, 0o600) as lock:
        _wait_for(lock, image)
        yield


def _wait_for(lock: Fd, image: Fd) -> None:
    disk = os.fstat(image.fileno()).st_dev
    if try_lock_byte(lock.fileno(), disk):
        return
    log.debug("%s waits for its turn to get smaller.", location(image.fileno()))
    deadline = time.monotonic() + _PATIENCE_S
    while not try_lock_byte(lock.fileno(), disk):
        if time.monotonic() > deadline:
            raise HomeInUse(
                f"{location(image.fileno())} cannot get smaller while others on its disk do so;"
                " try again when they are done."
            )
        time.sleep(_PAUSE_S)
