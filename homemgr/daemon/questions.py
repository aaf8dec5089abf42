"""Questions about a home that its user may ask at any time, and that take a worker each.

Nobody has to hold the home for them, so nothing else bounds how many there are at once; and as
many as there can be workers would keep everybody else from logging in.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from homemgr import errors

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

#: Workers that answer about one home at once, and callers that wait for one of them.
MAX_AT_ONCE: Final = 2
MAX_WAITING: Final = 100


class Questions:
    """Those about one home."""

    def __init__(self) -> None:
        """Nobody asks yet."""
        self._turns = asyncio.Semaphore(MAX_AT_ONCE)
        self._waiting = 0

    @asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Wait for a turn, which lasts for the block; raises TooManyOperations."""
        if self._waiting >= MAX_WAITING:
            raise errors.TooManyOperations(
                f"{MAX_WAITING} questions about this home area wait for their answers."
            )
        self._waiting += 1
        try:
            await self._turns.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._turns.release()
