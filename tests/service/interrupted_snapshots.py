"""Snapshots when the power goes, see `interrupted`."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from homemgr.kernel.identity import filesystem_identity
from homemgr.storage.snapshot_shelf import DIRECTORY as SNAPSHOTS
from tests import homes
from tests.service import converting
from tests.service.interrupted import APART, USER, Interrupted, is_of_top

if TYPE_CHECKING:
    pass


class Snapshot(Interrupted):
    """The home is kept as it is."""

    _number = 0

    def names(self) -> list[str]:
        """All snapshots."""
        (text,) = converting.call(self.service, "ListSnapshots", "s", USER)
        return [str(row["name"]) for row in json.loads(str(text))]

    def take(self, name: str) -> None:
        """Make one."""
        self.job("CreateSnapshot", USER, json.dumps({"name": name, "full_copy": True}))

    def remove(self, name: str) -> None:
        """Delete one."""
        converting.call(self.service, "RemoveSnapshot", "ss", USER, name)

    def prepare(self) -> None:
        """Have none."""
        for name in self.names():
            self.remove(name)
        self._number += 1
        self.name = f"snap{self._number}"

    def work(self) -> None:
        """Make it."""
        self.take(self.name)

    def has_happened(self) -> bool:
        """It is complete or not there."""
        shelf = self.base / SNAPSHOTS / USER
        found = sorted(os.listdir(shelf)) if shelf.exists() else []
        assert found == self.names(), found
        if not found:
            return False
        assert found == [self.name], found
        (home,) = self.base.glob(f"{USER}.*")
        copy = shelf / self.name / "home"
        if home.is_file():
            assert copy.read_bytes() == home.read_bytes()
            return True
        differing = homes.compare(home, copy, leave_out=APART)
        assert [words for words in differing if not is_of_top(words)] == []
        return True


class Unsnapping(Snapshot):
    """A snapshot is deleted."""

    def prepare(self) -> None:
        """Have one."""
        super().prepare()
        super().work()

    def work(self) -> None:
        """Delete it."""
        self.remove(self.name)

    def has_happened(self) -> bool:
        """It is there in full, or gone."""
        return not super().has_happened()


class Restoring(Snapshot):
    """The home is again what it was; what it was until then is kept."""

    def write(self, word: str) -> None:
        """Have something in the home that it had not, on disk."""
        with self.open() as home:
            uid = home.stat().st_uid
            with filesystem_identity(uid, uid):
                (home / "diary").write_text(word)
            os.sync()

    def prepare(self) -> None:
        """Have a snapshot that says so, and a home that says something else."""
        super().prepare()
        self.write("then")
        self.take(self.name)
        self.write("now")

    def work(self) -> None:
        """Restore it."""
        self.job("RestoreSnapshot", USER, self.name, "{}")

    def has_happened(self) -> bool:
        """It is one or the other, and what it was is not lost."""
        with self.open() as home:
            said = (home / "diary").read_text()
        assert said in ("then", "now")
        others = [name for name in self.names() if name != self.name]
        assert len(others) == (said == "then"), others
        shelf = self.base / SNAPSHOTS / USER
        for name, word in ((self.name, "then"), *((name, "now") for name in others)):
            diary = shelf / name / "home/diary"
            # What an image holds is seen once it is restored.
            assert diary.parent.is_file() or diary.read_text() == word
        return said == "then"
