"""How what arrives is made and opened: as the record with which it comes says, with its words."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.record import password
from homemgr.record.secret import Secret
from homemgr.record.storages import abilities_of
from homemgr.storage import directory, rooms, staging, subvolume
from homemgr.storage.kind import Area, Content, Image, Words
from homemgr.storage.kinds import STORAGES, storage_named
from homemgr.storage.top import Top

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homemgr.files import Fd
    from homemgr.record.model import UserRecord
    from homemgr.work.staged import Place
    from homemgr.work.task import Task


class Opening:
    """Knows the words for a home with a key; raises BadPassword where they are missing."""

    def __init__(self, task: Task, record: UserRecord, *, is_subvolume: bool = False) -> None:
        """Of ``record``, as the origin has introduced it; ``is_subvolume`` if it is one there."""
        self._task = task
        self._record = record
        self._is_subvolume = is_subvolume
        self._words = Words()
        self._entries = 0

    def take_words(self, words: Sequence[str]) -> None:
        """Know the words, one for each of the record's hashes; BadPassword if one is missing."""
        effective = self._record.on(self._task.machine)
        found = password.require_all(effective, Secret(words), self._task.verify)
        self._words = self._task.words(found)

    def require_same_words(self, record: UserRecord) -> None:
        """Raise TransferBusy if other words than those unlock the home by now."""
        if self._words.words and self._hashes_of(record) != self.hashes:
            raise errors.TransferBusy(
                "The password was changed while the home area travelled; run the same command"
                " again, with the new one."
            )

    @property
    def hashes(self) -> str:
        """A digest of what says which words unlock the home; empty if it needs none."""
        return self._hashes_of(self._record) if self._words.words else ""

    def _hashes_of(self, record: UserRecord) -> str:
        return password.digest_of_hashes(record.on(self._task.machine))

    def image(self, path: str) -> Image:
        """The home as its storage has to know it."""
        return Image(path, self._record.without("binding").on(self._task.machine))

    def area(self, place: Place, path: str) -> Area:
        """What lies at ``path``, open."""
        if place.is_tree:
            return Area(directory.open_home(path))
        self._require_words(place)
        return storage_named(place.storage).open(self.image(path), self._words, is_active=False)

    def found(self, place: Place, parent: Fd, hashes: str) -> Area | None:
        """What has come so far, open; None if that is nothing, or other words unlock it.

        It was made for a record with these ``hashes``: a word that was revoked since would go
        on to unlock it, and a new one would not, though those that stay do.
        """
        self._require_words(place)
        if not place.is_there or hashes != self.hashes:
            return None
        if place.is_tree:
            return Area(Top(self._tree(place, parent), place.stage_name))
        try:
            return self.area(place, place.stage_path)
        except errors.BadPassword:
            # Nothing is lost but the time to send it again.
            return None

    def expect(self, entries: int) -> None:
        """Know how many names will come: what is made from here on is made for those."""
        self._entries = entries

    def made(self, place: Place, parent: Fd) -> Area:
        """Room for all of it, open: empty and nobody's, whatever was there if it is no tree."""
        if place.is_tree:
            return Area(Top(self._tree(place, parent), place.stage_name))
        rooms.clear(place.room, STORAGES.values())
        with rooms.make(place.room) as room:
            content = Content(0o700, None, self._record.embedded().pretty(), {}, self._entries)
            storage = storage_named(place.storage)
            image = self.image(place.stage_path)
            storage.create(image, room, os.path.basename(place.stage_path), content, self._words)
        return self.area(place, place.stage_path)

    def _require_words(self, place: Place) -> None:
        if abilities_of(place.storage).has_key and not self._words.words:
            raise errors.BadPassword(f"No password of {place.user} was given.")

    def _tree(self, place: Place, parent: Fd) -> Fd:
        make = directory.make_directory
        if place.storage == "subvolume":
            make = subvolume.make_subvolume
        elif self._is_subvolume and not place.storage:
            make = staging.make_subvolume_if_possible
        return staging.open_stage(parent, place.stage_name, make)
