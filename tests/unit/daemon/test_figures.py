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


def home(name: str, directory: str = "/") -> Home:
    effective = SimpleNamespace(storage=None, home_directory=f"/home/{name}")
    return cast(
        "Home",
        SimpleNamespace(
            name=name,
            image_path=f"{directory}{name}",
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
        #: What is not below it answers at once.
        self.dead = "/"

    def measure(
        self, storage: str, image_path: str, home_directory: str, *, is_active: bool
    ) -> JsonObject:
        self.asked.append((storage, image_path, home_directory, is_active))
        assert not image_path.startswith(self.dead) or self.answers.wait(30)
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


def test_a_dead_disk_holds_up_no_others() -> None:
    disk, told = Disk(), list[str]()
    disk.dead = "/dead/"

    async def look() -> None:
        figures = Figures(disk.measure, lambda one: told.append(one.name))
        dead = [home(f"dead{number}", "/dead/") for number in range(20)]
        await asyncio.gather(*map(figures.refresh, dead))
        alive = home("anna", "/home/")
        while not told:
            await figures.refresh(alive)
        assert alive.figures == {"diskSize": 1}
        assert [path for _, path, *_ in disk.asked] == ["/dead/dead0", "/home/anna"]
        disk.answers.set()
        while len(told) < 21:
            await asyncio.gather(*map(figures.refresh, dead))
        assert all(one.figures == {"diskSize": 1} for one in dead)
        figures.close()

    asyncio.run(look())
