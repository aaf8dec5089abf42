"""How far a transfer is, told to the daemon: not oftener than somebody can read."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from homemgr.job import Channel

#: Between two messages (s).
_INTERVAL_S = 0.2
#: The rate is that of about the last so many seconds.
_MEMORY_S = 5.0


class Telling:
    """Turns counts of entries and bytes into progress with a rate and the time that is left."""

    def __init__(self, channel: Channel, patience: Callable[[], None] = lambda: None) -> None:
        """Tell over ``channel``; ``patience`` is called as often, and may raise."""
        self._channel = channel
        self._patience = patience
        self._phase = ""
        self._files = self._bytes = 0
        self._told_at = 0.0
        self._rate = 0.0
        self._counted_at = time.monotonic()
        self._counted = 0
        self._last = (0, 0)

    def expect(self, files: int, size: int) -> None:
        """Know how much there is."""
        self._files, self._bytes = files, size

    def phase(self, name: str) -> None:
        """Say what is being done from here on."""
        self._phase = name
        self._told_at = 0.0
        self._counted_at, self._counted, self._rate = time.monotonic(), 0, 0.0
        self.count(0, 0)

    def count(self, files: int, size: int) -> None:
        """Say how much of it is done."""
        self._last = (files, size)
        now = time.monotonic()
        if now - self._told_at < _INTERVAL_S:
            return
        self._told_at = now
        self._patience()
        self._measure(now, size)
        left = max(0, self._bytes - size)
        progress: dict[str, object] = {
            "phase": self._phase,
            "files": files,
            "total_files": max(files, self._files),
            "bytes": size,
            "total_bytes": max(size, self._bytes),
            "rate": int(self._rate),
        }
        if self._rate > 0:
            progress["left_s"] = int(left / self._rate)
        self._channel.progress(progress)

    def pause(self) -> None:
        """Say at once what was said last: what comes now takes its time, and says nothing."""
        self._told_at = 0.0
        self.count(*self._last)

    def _measure(self, now: float, size: int) -> None:
        """Bytes a second, the older seconds counting less and less."""
        passed = now - self._counted_at
        if passed <= 0:
            return
        newest = max(0, size - self._counted) / passed
        weight = min(1.0, passed / _MEMORY_S) if self._rate else 1.0
        self._rate += (newest - self._rate) * weight
        self._counted_at, self._counted = now, size
