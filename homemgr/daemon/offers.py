"""Homes on partitions that are plugged in: offered as they come, given up when they are pulled out.

A partition takes nobody's place: not that of a user of this machine, and of two that are called
alike the one that came first is offered, the other when that has gone. Nothing of a partition is
looked at before its user has said who he is. As in systemd-homed 262 such a home shows unfixated
until then, and as absent when it was used once and is away.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.daemon import accounts, login
from homemgr.daemon.home import image_is_there
from homemgr.daemon.states import Operation
from homemgr.daemon.sticks import BY_UUID, Sticks
from homemgr.record.names import is_device

if TYPE_CHECKING:
    from homemgr.daemon.discovery import Image
    from homemgr.daemon.home import Home
    from homemgr.daemon.manager import Manager

log = logging.getLogger(__name__)

#: Waiting times before attempts to give up a home whose disk is gone.
_DELAYS_S = (0.0, 0.5, 2.0, 5.0, 15.0)


class Offers:
    """Keeps the homes of ``manager`` in step with the partitions there are."""

    def __init__(self, manager: Manager) -> None:
        """Know of no partition."""
        self.sticks = Sticks()
        self._manager = manager
        self._losing: dict[str, asyncio.Task[None]] = {}

    def close(self) -> None:
        """Give nothing up any more."""
        for task in self._losing.values():
            task.cancel()

    def image_at(self, path: str) -> Image | None:
        """The home on the partition that this node, or link to it, means; blocks."""
        node = os.path.realpath(path)
        return next((i for i in self.sticks if os.path.realpath(i.path) == node), None)

    async def look(self) -> None:
        """See which homes on devices came and went; the caller lets one look at a time."""
        await self._look_for_known(self.sticks.take_pulled())
        for image in self.sticks:
            await self._offer(image)

    async def _look_for_known(self, pulled: set[str]) -> None:
        homes = [h for h in self._manager.registry if is_device(h.image_path)]
        paths = [home.image_path for home in homes]
        present = await asyncio.to_thread(lambda: [image_is_there(path) for path in paths])
        for home, path, is_linked in zip(homes, paths, present, strict=True):
            # Homes come and go while a thread looks.
            if not home.is_known or home.image_path != path:
                continue
            is_there = is_linked and not self._is_gone(home)
            if home.is_mounted:
                if path in pulled or not is_there:
                    self._lose(home)
            elif is_there != home.is_present:
                is_welcome = not self._is_gone(home)
                if not await self._manager.look_again(home, is_welcome=is_welcome):
                    # Something goes on with it: afterwards, whatever that came to.
                    self._lose(home)
        self.sticks.forget_but({home.image_path for home in self._manager.registry})

    def _is_gone(self, home: Home) -> bool:
        """Whether the partition of a home is away, or is called after somebody else by now."""
        if self.sticks.is_away(home.image_path):
            return True
        if home.is_fixated or not home.image_path.startswith(BY_UUID):
            return False
        return not any((i.path, i.user) == (home.image_path, home.name) for i in self.sticks)

    # -- those that came --------------------------------------------------------------------

    async def _offer(self, image: Image) -> None:
        home = self._manager.registry.by_name(image.user)
        if home is not None:
            if home.name != image.user or home.image_path != image.path:
                self.sticks.ignore(image, _taken(home, image))
            return
        if self._manager.transfers.register.hides(image.path):
            return
        if await accounts.name_taken(image.user):
            self.sticks.ignore(image, f"{image.user} is an account or a group of this machine")
            return
        try:
            await self._manager.admit_image(image)
        except errors.HomeError as error:
            self.sticks.ignore(image, error.message)
        else:
            log.info("Home area %s can be used: %s is there.", image.user, image.path)

    # -- those that went --------------------------------------------------------------------

    def _lose(self, home: Home) -> None:
        if home.name not in self._losing:
            self._losing[home.name] = asyncio.create_task(self._give_up(home))

    async def _give_up(self, home: Home) -> None:
        for delay_s in _DELAYS_S:
            await asyncio.sleep(delay_s)
            try:
                async with home.exclusively(Operation.LOSE, queued=True, background=True):
                    if home.is_mounted:
                        await login.lose(home)
                break
            except errors.NoSuchHome:
                break
            except errors.HomeError as error:
                log.error("Home area %s, whose disk is gone, stays: %s", home.name, error)
        # From here on it may be lost once more.
        del self._losing[home.name]
        await self._manager.discover_partitions()


def _taken(home: Home, image: Image) -> str:
    if home.name != image.user:
        return f"{image.user} is another name of user {home.name}"
    if not home.image_path:
        return (
            f"user {home.name} is registered without files; if these are his,"
            f" `homemgr adopt {image.path}`"
        )
    return f"user {home.name} has a home at {home.image_path} already"
