"""What homes take, as it is shown with their records: asked for when somebody looks.

A disk may take its time, or never answer: it is asked in a thread of its own, and who looks
waits a moment and sees what was known before. Homes in one directory, which mostly are on one
disk, are asked for one after the other, so that a dead one holds up no others.
"""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from homemgr.daemon.home import Home
    from homemgr.record.jsontext import JsonObject

#: How long somebody who looks waits for a disk (s); those that are not asleep take a thousandth.
_PATIENCE_S = 0.1

#: How many directories are asked at once: all but one of them may be dead.
_THREADS = 4


class Measure(Protocol):
    """Gives the status members about the size of a home; blocks."""

    def __call__(
        self, storage: str, image_path: str, home_directory: str, *, is_active: bool
    ) -> JsonObject:
        """Of the home that is stored like this."""


class Figures:
    """Measures homes, those in one directory one after the other."""

    def __init__(self, measure: Measure, changed: Callable[[Home], None]) -> None:
        """Measure nothing yet; ``changed`` hears of homes of which something else is known now."""
        self._measure = measure
        self._changed = changed
        # Not the threads that write records: one dead disk must not stop those.
        self._threads = ThreadPoolExecutor(_THREADS, "figures")
        self._turns = defaultdict[str, asyncio.Lock](asyncio.Lock)
        self._running: dict[str, asyncio.Task[None]] = {}

    async def refresh(self, home: Home) -> None:
        """Have `Home.figures` tell the present, or what was known if that takes too long."""
        task = self._running.get(home.name)
        if task is None:
            task = asyncio.create_task(self._look(home))
            self._running[home.name] = task
            task.add_done_callback(lambda _: self._running.pop(home.name, None))
        await asyncio.wait({task}, timeout=_PATIENCE_S)

    async def _look(self, home: Home) -> None:
        async with self._turns[os.path.dirname(home.image_path)]:
            found = await self._measured(home)
        if found != home.figures:
            home.figures = found
            self._changed(home)

    async def _measured(self, home: Home) -> JsonObject:
        effective, image_path = home.effective, home.image_path
        # Who looks into a home that is locked may wait, and one that is being unmounted is kept
        # from that by who looks.
        is_active = home.is_active and not home.is_locked and home.job is None

        def measure() -> JsonObject:
            return self._measure(
                effective.storage or "directory",
                image_path,
                effective.home_directory,
                is_active=is_active,
            )

        return await asyncio.get_running_loop().run_in_executor(self._threads, measure)

    def close(self) -> None:
        """Measure nothing more; a disk that does not answer is not waited for."""
        self._threads.shutdown(wait=False, cancel_futures=True)
