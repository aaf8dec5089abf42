"""Work that goes on when whoever asked for it has been answered: his part of it is over."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.wire.outline import outline

if TYPE_CHECKING:
    from collections.abc import Coroutine

log = logging.getLogger(__name__)

#: Says that the caller's part is over.
Told = Callable[[], None]

#: Kept from being collected while they run.
_running: set[asyncio.Task[None]] = set()


async def until_told(work: Callable[[Told], Coroutine[None, None, None]]) -> None:
    """Do ``work`` until it ends or says so, and raise what it raises before that.

    Who is ended before that ends it as well.
    """
    told = asyncio.Event()
    task = asyncio.get_running_loop().create_task(work(told.set))
    _running.add(task)
    task.add_done_callback(_running.discard)
    waiting = asyncio.ensure_future(told.wait())
    try:
        await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
        task.add_done_callback(_note)
        if not told.is_set():
            # Nothing but its end, unless it is over.
            task.cancel()
    if not told.is_set():
        task.result()


def _note(task: asyncio.Task[None]) -> None:
    """Have the log tell of a bug that nobody else is told of."""
    error = None if task.cancelled() else task.exception()
    if error is not None and not isinstance(error, errors.HomeError):
        log.error("Bug in what goes on after an answer: %s", outline(error))
