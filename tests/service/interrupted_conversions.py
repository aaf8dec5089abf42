"""Conversions when the power goes, see `interrupted`: of homes, and of classic accounts."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

from homemgr.storage.snapshot_shelf import DIRECTORY as SNAPSHOTS
from tests.service import converting
from tests.service.interrupted import FIELDS, USER, Interrupted
from tests.service.site import wait_until
from tests.service.test_classic import Account, assert_account, assert_home_area, contents

if TYPE_CHECKING:
    from tests.service.cutting import Machine


class Conversion(Interrupted):
    """Into another kind, and back with the next round."""

    def __init__(self, machine: Machine, kind: str, other: str) -> None:
        """Begin with a home of ``kind``."""
        super().__init__(machine, kind)
        self._other = other

    def state(self) -> str:
        """The phase on disk; empty if there is none."""
        known = converting.known(self.service)
        return str(known[USER]["phase"]) if known else ""

    def rooms(self) -> list[Path]:
        """That of the old home."""
        return self.all_rooms() if self.state() else []

    def all_rooms(self) -> list[Path]:
        """Rooms that there are."""
        return [room for place in self.places() for room in converting.rooms(place)]

    def storage(self) -> str:
        """What the home is."""
        if (self.base / f"{USER}.homeimage").exists():
            return "image"
        return converting.storage_of(self.service, USER)

    def prepare(self) -> None:
        """Keep nothing of the last one."""
        if self.state():
            converting.call(self.service, "ConfirmConversion", "s", USER)
        self.goal = self._other if self.kind == self.storage() else self.kind

    def work(self) -> None:
        """Convert it."""
        size = FIELDS[self.goal].get("diskSize")
        more = {"disk_size": size} if size else {}
        converting.convert(self.service, USER, *self.words, storage=self.goal, **more)

    def has_happened(self) -> bool:
        """Either the new one is there and the old one kept, or nothing was ever done."""
        state, storage = self.state(), self.storage()
        assert (state, storage == self.goal) in (("", False), ("kept", True)), (state, storage)
        assert len(self.all_rooms()) == bool(state)
        return bool(state)


class Relocation(Conversion):
    """To another place and back: by a copy, or a rename with which the snapshots go."""

    def __init__(self, machine: Machine, kind: str) -> None:
        """Make the other place, and a snapshot."""
        self._elsewhere = machine.disk.parts[0].path / "elsewhere"
        self._elsewhere.mkdir(0o700)
        #: Where both lie on one file system nothing is kept.
        self._is_copied = len(machine.disk.parts) > 1
        super().__init__(machine, kind, kind)
        options = {"name": "one", "full_copy": True}
        self.job("CreateSnapshot", USER, json.dumps(options))

    def places(self) -> list[Path]:
        """Both."""
        return [self.base, self._elsewhere]

    def image(self) -> Path:
        """Where the record says that it is."""
        (binding,) = self.service.user_record(USER)["binding"].values()
        return Path(binding["imagePath"])

    def prepare(self) -> None:
        """To the other one."""
        super().prepare()
        here, there = (place / f"{USER}.homedir" for place in self.places())
        self._before = self.image()
        self._goal = there if self._before == here else here

    def work(self) -> None:
        """Move it."""
        converting.convert(self.service, USER, to=str(self._goal))

    def has_happened(self) -> bool:
        """It is in one place, and there are its snapshots."""
        state, image = self.state(), self.image()
        assert image in (self._before, self._goal)
        has_moved = image == self._goal
        assert state == ("kept" if has_moved and self._is_copied else "")
        homes_there = [home for place in self.places() for home in place.glob(f"{USER}.*")]
        assert homes_there == [image]
        if not self._is_copied:
            shelves = [shelf for place in self.places() for shelf in place.glob(f"{SNAPSHOTS}/*")]
            assert shelves == [image.parent / SNAPSHOTS / USER]
            assert os.listdir(shelves[0]) == ["one"]
        return has_moved


class Kept(Conversion):
    """Something is done with the old home, which was kept."""

    def prepare(self) -> None:
        """Convert it, unless that was done and nothing came of the rest."""
        if not self.state():
            super().prepare()
            super().work()


class Undoing(Kept):
    """The old home takes its place again."""

    def work(self) -> None:
        """Go back."""
        converting.undo(self.service, USER)

    def has_happened(self) -> bool:
        """Either it is back and the new one gone, or nothing was done."""
        return not super().has_happened()


class Confirming(Kept):
    """The old home is deleted."""

    def work(self) -> None:
        """Keep nothing of it."""
        converting.call(self.service, "ConfirmConversion", "s", USER)

    def has_happened(self) -> bool:
        """The new one is the home."""
        state = self.state()
        assert (self.storage(), state in ("", "kept")) == (self.goal, True), state
        return not state


class Classic(Interrupted):
    """A classic account becomes a home area."""

    def __init__(self, machine: Machine, kind: str) -> None:
        """Make the account."""
        super().__init__(machine, kind)
        self.bob = Account(self.service, self.service.site.home_root / "bob")
        self.bob.make()
        os.sync()
        self.files, self.contents = self.bob.files(), contents(self.bob.home)

    def prepare(self) -> None:
        """Have it be an account."""
        if self.bob.phase():
            self.undo()

    def undo(self) -> None:
        """Make it an account again."""
        self.job("UndoAccountConversion", "bob")

    def work(self) -> None:
        """Convert it."""
        (job,) = converting.call(self.service, "ConvertAccount", "st", "bob", 0)
        converting.wait(self.service, str(job))

    def has_happened(self) -> bool:
        """It is one or the other."""
        wait_until(lambda: self.bob.phase() in ("", "converted"), "it to be finished", 10)
        wait_until(lambda: self.service.states().get("bob", "inactive") == "inactive", "bob", 10)
        left = [*self.machine.site.accounts.glob(".#*")]
        assert left == [], left
        if not self.bob.phase():
            assert_account(self.bob, self.files)
            assert contents(self.bob.home) == self.contents
            return False
        assert_home_area(self.bob)
        assert contents(self.bob.image) == self.contents
        return True


class Unclassic(Classic):
    """It becomes an account again."""

    def prepare(self) -> None:
        """Have it be a home area."""
        if not self.bob.phase():
            super().work()

    def work(self) -> None:
        """Undo it."""
        self.undo()

    def has_happened(self) -> bool:
        """The other way round."""
        return not super().has_happened()
