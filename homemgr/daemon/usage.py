"""What homes take of their disks, asked of a worker: it may have to look at every file.

No home is held for it: who logs in or out meanwhile is not kept waiting.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from homemgr.errors import HomeAbsent

if TYPE_CHECKING:
    from homemgr.daemon.home import Home


async def usage(home: Home, *, counts_files: bool) -> dict[str, object]:
    """Bytes by name, with user and storage; ``counts_files`` even where quota knows.

    Raises HomeAbsent, NotSupported, TooManyOperations.
    """
    if not home.is_present:
        raise HomeAbsent(f"Home area {home.name} has no files here.")
    storage = home.effective.storage or "directory"
    async with home.questions.turn():
        found = await home.services.runner.run(
            "usage",
            {
                "image_path": home.image_path,
                "storage": storage,
                "home_directory": home.effective.home_directory,
                "is_active": home.is_active and not home.is_locked,
                "counts_files": counts_files,
            },
            about=home.name,
        )
    return {"user": home.name, "storage": storage, **found}
