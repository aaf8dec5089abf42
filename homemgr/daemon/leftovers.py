"""What a killed daemon left half done: found at the start of the next, and finished.

Also whether the images of all known homes are there. Both ask file systems that may
not answer; those that hold images of their own places are waited for a moment only.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING

from homemgr import errors, files
from homemgr.daemon import closing
from homemgr.daemon.home import image_is_there
from homemgr.record.names import is_remote

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

    from homemgr.daemon.home import Home, Services
    from homemgr.daemon.registry import Registry

log = logging.getLogger(__name__)

#: How long the start waits for file systems that hold nothing but images of their own.
_PATIENCE_S = 3.0


class Leftovers:
    """Finishes what was left, for the homes of one registry."""

    def __init__(self, services: Services, registry: Registry) -> None:
        """Do nothing yet."""
        self._services = services
        self._registry = registry
        self._late: set[asyncio.Task[None]] = set()

    def close(self) -> None:
        """Wait no longer for what does not answer."""
        for task in self._late:
            task.cancel()

    # -- leftovers ---------------------------------------------------------------------

    async def forget_unfinished(self) -> None:
        """Delete files of state that were being written: they may hold what was deleted since."""
        for directory in self._services.config.written_directories:
            try:
                await asyncio.to_thread(files.forget_unfinished, directory)
            except OSError as error:
                log.warning("Unfinished files in %s stay: %s", directory, error.strerror)

    async def sweep(self) -> None:
        """Remove leftovers of operations that a kill interrupted."""
        usual = self._services.config.usual_directories
        await self._sweep(usual, blob_root=self._services.config.blob_root)
        removals = await asyncio.to_thread(lambda: list(self._services.store.removed()))
        by_directory: dict[str, list[str]] = {}
        for home in self._registry:
            by_directory.setdefault(os.path.dirname(home.image_path), [])
        for name, record in removals:
            image_path = record.on(self._services.machine).image_path or ""
            by_directory.setdefault(os.path.dirname(image_path), []).append(name)
        for directory in {"", *usual, *filter(is_remote, by_directory)}:
            by_directory.pop(directory, None)
        # Nobody makes or deletes anything among the nodes of devices.
        by_directory = {d: n for d, n in by_directory.items() if not d.startswith("/dev/")}
        for directory, names in by_directory.items():
            await self._in_time(self._finish(directory, names), directory)

    async def _finish(self, directory: str, names: Iterable[str]) -> None:
        """Delete leftovers in ``directory``, and then the records that told of them."""
        # In one that is away there may be what is still to be deleted: the record goes on to tell.
        if await self._sweep((directory,)) and await asyncio.to_thread(os.path.isdir, directory):
            for name in names:
                log.info("Finished the removal that %s tells of.", name)
                await asyncio.to_thread(self._services.store.finish_removal, name)

    async def _sweep(self, directories: Iterable[str], **more: str) -> bool:
        """Sweep some directories; False if that failed."""
        request = {"directories": list(directories), **more}
        try:
            result = await self._services.runner.run("sweep", request)
        except errors.HomeError as error:
            log.warning("Leftovers of earlier operations stay: %s", error)
            return False
        removed = result.get("removed")
        assert isinstance(removed, list)
        # By path: who has the name by now may have his image on a disk that is away.
        by_image = {home.image_path: home for home in self._registry}
        for image_path in removed:
            home = by_image.get(str(image_path))
            if home is not None:
                await self._finish_removal_of(home)
        return True

    async def _finish_removal_of(self, home: Home) -> None:
        async with home.undisturbed() as is_quiet:
            if is_quiet and not await asyncio.to_thread(image_is_there, home.image_path):
                log.info("Finishing the removal of home area %s.", home.name)
                try:
                    await home.drop_record()
                except errors.HomeError as error:
                    log.warning("%s", error)

    async def close_homes(self) -> None:
        """Take keys out of memory that nobody needs, and see which homes are locked."""
        homes = [home for home in self._registry if home.abilities.has_key]
        if homes:
            await self._in_time(_close(homes), "homes that may have been left open")

    # -- images ------------------------------------------------------------------------

    async def look_for_images(self) -> None:
        """See for each home whether its files are there; what cannot be told counts as there."""
        is_usual = self._services.config.is_usual
        elsewhere = [home for home in self._registry if not is_usual(home.image_path)]
        await _look_at([home for home in self._registry if is_usual(home.image_path)])
        if elsewhere:
            await self._in_time(_look_at(elsewhere), "images in places of their own")

    async def _in_time(self, work: Coroutine[None, None, None], what: str) -> None:
        """Wait a moment for ``work``, and then let it go on by itself."""
        task = asyncio.create_task(work)
        self._late.add(task)
        task.add_done_callback(self._late.discard)
        await asyncio.wait({task}, timeout=_PATIENCE_S)
        if not task.done():
            log.warning("No answer yet from %s; starting without.", what)


async def _close(homes: list[Home]) -> None:
    done = await asyncio.gather(*(closing.settle(home) for home in homes))
    for home, is_closed in zip(homes, done, strict=True):
        if not is_closed:
            closing.see_to(home)


async def _look_at(homes: list[Home]) -> None:
    paths = [home.image_path for home in homes]
    present = await asyncio.to_thread(lambda: [image_is_there(path) for path in paths])
    for home, path, is_present in zip(homes, paths, present, strict=True):
        # Asked again: a disk may have kept us waiting, and nobody waits for this to end.
        if home.is_known and home.image_path == path and home.is_present != is_present:
            home.is_present = is_present
            home.services.changed(home)
