"""What homes take is asked of their disks, which may not answer."""

from __future__ import annotations

import asyncio
from threading import Event
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

from homemgr.daemon.figures import Figures

if TYPE_CHECKING:
    from homemgr.daemon.home import Home
    from homemgr.record.jsontext import JsonObject


def home(name: str) -> Home:
    effective = SimpleNamespace(storage=None, home_directory=f"/home/{name}")
    return cast(
        "Home",
        SimpleNamespace(
            name=name,
            image_path=f"/{name}",
            effective=effective,
            is_active=True,
            is_locked=True,
            job=None,
            figures={},
        ),
    )


class Disk:
    """Answers with what is laid out for it, when it is let."""

    def __init__(self) -> None:
        self.answers = Event()
        self.size = 1
        self.asked: list[tuple[str, str, str, bool]] = []

    def measure(
        self, storage: str, image_path: str, home_directory: str, *, is_active: bool
    ) -> JsonObject:
        self.asked.append((storage, image_path, home_directory, is_active))
        assert self.answers.wait(30)
        return {"diskSize": self.size}


def test_who_looks_sees_what_was_known_while_a_disk_does_not_answer() -> None:
    disk, anna, told = Disk(), home("anna"), list[str]()

    async def look() -> None:
        figures = Figures(disk.measure, lambda one: told.append(one.name))
        await figures.refresh(anna)
        # Whoever comes next asks no second time.
        await figures.refresh(anna)
        assert (anna.figures, told) == ({}, [])
        assert disk.asked == [("directory", "/anna", "/home/anna", False)]
        disk.answers.set()
        while not told:
            await figures.refresh(anna)
        assert anna.figures == {"diskSize": 1}
        # Nothing new, nothing told.
        await figures.refresh(anna)
        assert told == ["anna"]
        figures.close()

    asyncio.run(look())
