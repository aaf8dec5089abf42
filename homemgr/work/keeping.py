"""What has been sent is noted down while a pass goes on: a break sends little of it again."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from homemgr.storage.ledger import Ledger
    from homemgr.transfer.frames import Frame

#: The ledger is committed at least so often (s); the receiver's is about as often.
_KEEP_S = 10.0


class Keeping:
    """Sends the frames of a pass, and commits the ledger in between.

    That it may then have what did not arrive does no harm: before a pass both sides compare.
    """

    def __init__(self, ledger: Ledger, send: Callable[[Frame], None]) -> None:
        """Send with ``send`` what ``ledger`` is told of at the same time."""
        self._ledger = ledger
        self._send = send
        self._kept_at = time.monotonic()

    def __call__(self, frame: Frame) -> None:
        """Send one frame; raises what ``send`` and the ledger raise."""
        self._send(frame)
        if time.monotonic() - self._kept_at > _KEEP_S:
            self._ledger.commit()
            self._kept_at = time.monotonic()
