"""A run that reads a home through its use: what has to be opened can be read as long as it is open.

While it reads, the home stays in use when its last session has ended, and is deactivated after
it. Who wants the home closed or locked all the same has it end first: read without its key, an
encrypted home would look as if files were missing.

A run whose other end takes nothing any more would keep the home open for ever: once the last
session has ended it has to get on.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from homemgr.daemon.home import Home

log = logging.getLogger(__name__)

#: After the last session a run that has not got on for this long is ended (s): as long as a
#: dead connection takes to be found out, and longer than a disk that writes out what has come.
STALLED_S = 60.0


class Reader:
    """One run at a time for each home; counts from `begin` to `end`."""

    def __init__(
        self, home: Home, call_off: Callable[[], None], how_far: Callable[[], object]
    ) -> None:
        """``call_off`` has whoever reads ``home`` end soon, which calls `end`.

        ``how_far`` gives something that differs whenever the run has got on.
        """
        self._home = home
        self._call_off = call_off
        self._how_far = how_far
        self._has_ended = asyncio.Event()
        self._watch: asyncio.TimerHandle | None = None
        #: Whether it was to end for the home to be closed or locked.
        self.is_stopped = False
        #: Whether that was because the other end took nothing any more.
        self.is_stalled = False
        #: Whether the last session has ended meanwhile.
        self.is_last = False

    def begin(self) -> None:
        """From here on the home stays in use; it is in use, and its caller holds it."""
        self._has_ended.clear()
        self._home.reader = self

    def end(self) -> None:
        """Nothing of the home is open any more; more than once is no error."""
        if self._home.reader is not self:
            return
        self._home.reader = None
        self._has_ended.set()
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if self.is_last and not self._home.references.held:
            self._home.on_abandoned(self._home)
        self.is_last = False

    def end_soon(self) -> None:
        """Have it end, without waiting for that."""
        self.is_stopped = True
        self._call_off()

    def put_off(self) -> None:
        """The last session has ended: the home is closed after this, which has to get on."""
        self.is_last = True
        if self._watch is None:
            self._look_later()

    def _look_later(self) -> None:
        loop = asyncio.get_running_loop()
        self._watch = loop.call_later(STALLED_S, self._look, self._how_far())

    def _look(self, before: object) -> None:
        self._watch = None
        if self._home.references.held:
            # Somebody came back; with his end it is put off anew.
            return
        if self._how_far() != before:
            self._look_later()
            return
        name = self._home.name
        log.warning("Home area %s is read no further: nothing has left for %d s.", name, STALLED_S)
        self.is_stalled = True
        self.end_soon()

    async def stop(self) -> None:
        """Have it end, and return when it has."""
        self.end_soon()
        await self._has_ended.wait()


async def stop_reading(home: Home) -> None:
    """Whoever reads ``home`` through its use has ended when this returns."""
    if home.reader is not None:
        await home.reader.stop()


def put_off(home: Home) -> bool:
    """Have ``home``, whose last session has ended, deactivated later; False if nobody reads it."""
    if home.reader is None:
        return False
    home.reader.put_off()
    return True
