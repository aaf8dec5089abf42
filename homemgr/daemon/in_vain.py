"""Runs of which nothing came: no trace of them stays that somebody would have to clear away.

A wrong password, an origin that is not trusted or a disk that is too small is found out before
anything has travelled. The next try, which may be another one, then begins anew.
"""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.daemon.transfer_states import SENDING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from homemgr.daemon.activity import Activity
    from homemgr.daemon.places import Places
    from homemgr.daemon.transfer_register import TransferRegister
    from homemgr.daemon.transfer_states import TransferState

log = logging.getLogger(__name__)


@asynccontextmanager
async def sending(register: TransferRegister, user: str, activity: Activity) -> AsyncIterator[None]:
    """Have the transfer out be known as it was before the block, if that fails at once."""
    before = register.find("out", user)
    try:
        yield
    except (errors.HomeError, asyncio.CancelledError):
        state = register.find("out", user)
        # A pass that was begun has told of it.
        if state is not None and state.phase == SENDING and not activity.progress:
            await _put_back(register, state, before)
        raise


async def _put_back(
    register: TransferRegister, state: TransferState, before: TransferState | None
) -> None:
    try:
        if before is None:
            await register.drop("out", state.user)
        elif before.phase == SENDING and before != state:
            await register.save("out", before)
    except errors.HomeError as error:
        log.warning("%s", error)


async def forget_new(register: TransferRegister, places: Places, user: str) -> None:
    """Forget what was to arrive in a run that began it, if nothing of it is on disk."""
    state = register.find("in", user)
    if state is None or not state.is_worthless:
        return
    place = os.path.join(os.path.dirname(state.image_path), state.aside_name)
    if not await asyncio.to_thread(os.path.lexists, place):
        await _forget(register, places, state)


async def forget_arrival(register: TransferRegister, places: Places, user: str) -> None:
    """Have nothing wait for the next run: a file is read from its beginning, or not at all."""
    state = register.find("in", user)
    if state is None or not state.is_worthless:
        return
    await _forget(register, places, state)
    # The worker has done so, unless it was killed.
    await places.abandon(state)


async def _forget(register: TransferRegister, places: Places, state: TransferState) -> None:
    if state.went_on:
        await register.save("in", state.passed_on(state.went_on))
    else:
        await register.drop("in", state.user)
    places.release(state)
