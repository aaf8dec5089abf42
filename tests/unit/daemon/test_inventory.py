"""Questions and choices at once: a flood costs one look at a time, no choice undoes another."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from homemgr.daemon.config import Config
from homemgr.daemon.extensions import Choices, load
from homemgr.daemon.home import Home, Services
from homemgr.daemon.jobs import JobRunner
from homemgr.daemon.merging import Extensions
from homemgr.record.machine import Machine
from homemgr.record.model import UserRecord


class Looking:
    """A runner whose workers end when they may: at once, unless a test says otherwise."""

    def __init__(self) -> None:
        self.looks = 0
        self.may_end: asyncio.Event | None = None

    async def run(self, verb: str, _arguments: Mapping[str, object]) -> dict[str, object]:
        """Count."""
        assert verb == "inventory"
        self.looks += 1
        number = self.looks
        await (asyncio.sleep(0) if self.may_end is None else self.may_end.wait())
        return {"look": number}


def extensions(directory: Path) -> tuple[Extensions, Looking]:
    looking = Looking()
    choices = Choices(str(directory / "choices"))
    rules = load({"HOMEMGR_EXTENSIONS_CONFIG": str(directory / "none")})
    return Extensions(rules, choices, cast("JobRunner", looking), str(directory)), looking


def test_who_asks_meanwhile_shares_the_next_look(tmp_path: Path) -> None:
    async def run() -> None:
        known, looking = extensions(tmp_path)
        looking.may_end = asyncio.Event()
        first = asyncio.ensure_future(known.inventory())
        while not looking.looks:
            await asyncio.sleep(0)
        later = [asyncio.ensure_future(known.inventory()) for _ in range(50)]
        await asyncio.sleep(0)
        looking.may_end.set()
        # What was begun before they asked might be of before.
        assert await first == {"look": 1}
        answers = await asyncio.gather(*later)
        assert answers == [{"look": 2}] * 50
        assert looking.looks == 2

    asyncio.run(run())


def test_an_older_answer_is_given_only_to_who_is_content_with_it(tmp_path: Path) -> None:
    async def run() -> None:
        known, _ = extensions(tmp_path)
        assert await known.inventory() == {"look": 1}
        assert await known.inventory(max_age_s=60) == {"look": 1}
        assert await known.inventory() == {"look": 2}

    asyncio.run(run())


def test_choices_at_once_are_all_kept(tmp_path: Path) -> None:
    names = [f"tool{number}" for number in range(8)]
    config = tmp_path / "extensions.conf"
    config.write_text("".join(f"[Extension {name}]\nOptional=*\n" for name in names))
    choices = Choices(str(tmp_path / "choices"))

    async def run() -> None:
        rules = load({"HOMEMGR_EXTENSIONS_CONFIG": str(config)})
        known = Extensions(rules, choices, cast("JobRunner", Looking()), str(tmp_path))
        record = UserRecord({"userName": "alice", "disposition": "regular"})
        bound = record.with_binding("0" * 32, {"uid": 60123})
        home = Home(cast("Services", _Alone()), bound, is_fixated=True)
        await asyncio.gather(*(known.choose(home, name, is_chosen=True) for name in names))

    asyncio.run(run())
    assert choices.of("alice") == tuple(names)


class _Alone:
    """What a home needs to tell who it is."""

    config = Config()
    machine = Machine("0" * 32, "box", "/home")


def test_a_note_that_is_too_long_keeps_no_home_from_ending(tmp_path: Path) -> None:
    directory = tmp_path / "homemgr"
    directory.mkdir()
    (directory / "alice.json").write_text(" " * (2 << 20))
    known, _ = extensions(tmp_path)
    home = cast("Home", type("Named", (), {"name": "alice"}))
    merged = known.merged(home)
    assert merged is not None
    assert merged["names"] == []
