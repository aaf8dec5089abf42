"""One worker at a time for each home area, whichever service started it.

The service lets one job run on a home, but a worker outlives a service that was
killed, and the next service knows nothing of it. So a worker holds a lock of the
home while it works; it goes with the process, however that ends.
"""

from __future__ import annotations

import hashlib
import logging
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.files import GUARDED_FLAGS, Fd
from homemgr.kernel.lock import try_lock_byte

if TYPE_CHECKING:
    from collections.abc import Iterator

    from homemgr.work.task import Task

log = logging.getLogger(__name__)

#: Longer than any job but those that copy or delete a large home; shorter than clients wait.
_PATIENCE_S = 30.0

_PAUSE_S = 0.02


@contextmanager
def alone_with_home(task: Task) -> Iterator[None]:
    """Hold the home of ``task``; waits a while for another worker and then raises HomeBusy.

    Jobs that concern no single home name no lock and hold none.
    """
    path = task.argument("lock_file")
    if not isinstance(path, str):
        yield
        return
    # Below /run, where nothing is after a boot.
    os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
    with Fd.open(path, os.O_RDWR | os.O_CREAT | GUARDED_FLAGS, 0o600) as lock:
        _wait_for(lock, task)
        yield


def _wait_for(lock: Fd, task: Task) -> None:
    name = task.record.name
    place = position(name)
    if try_lock_byte(lock.fileno(), place):
        return
    log.warning("Home area %s: a worker of an earlier service still runs, waiting for it.", name)
    deadline = time.monotonic() + _PATIENCE_S
    # Tried again and again, so that whether it is still wanted is asked in between.
    while not try_lock_byte(lock.fileno(), place):
        if time.monotonic() > deadline:
            raise errors.HomeBusy(
                f"A worker that an earlier service started is still at work on home area {name};"
                " try again when it is done (`ps -C homemgrd-job` shows it)."
            )
        # A client that has given up, or a service that is gone, wants no further change.
        task.channel.require_wanted()
        time.sleep(_PAUSE_S)


def position(name: str) -> int:
    """Where in the lock file the lock of home ``name`` is; a file position has 63 bits."""
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:7], "big")
