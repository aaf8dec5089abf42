"""Passwords that somebody sets again while something is kept that they alone unlock.

A conversion keeps the home as it was, and a snapshot of an encrypted image has the key slots of
its time. Both come back only if the passwords that count are those of then, which is told by
their hashes: a fresh one of the same password would be another.
"""

from __future__ import annotations

import itertools
from contextlib import suppress
from typing import TYPE_CHECKING

from homemgr.errors import HomeError
from homemgr.record.snapshots import IMAGE
from homemgr.storage import snapshot_entry
from homemgr.work.snapshot_place import shelf_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from homemgr.work.task import Task

#: To try one takes as long as a guess.
_MOST = 8


def hash_of(task: Task, word: str) -> str:
    """The hash that ``word`` had when something was kept that it unlocks; else a fresh one."""
    known = dict.fromkeys(itertools.chain(task.texts("former_hashes"), _of_snapshots(task)))
    tried = itertools.islice(known, _MOST)
    return next((hashed for hashed in tried if task.verify(word, hashed)), "") or (
        task.hash_password(word)
    )


def _of_snapshots(task: Task) -> Iterator[str]:
    """Hashes of the time of each snapshot of an encrypted image, those of the latest first."""
    if not (task.abilities.has_key and task.storage.image_is_file):
        return
    with suppress(HomeError, OSError), shelf_of(task, alone=False) as place:
        for note in reversed(snapshot_entry.notes(place.shelf)):
            if note.how == IMAGE:
                yield from note.record.on(task.machine).hashed_passwords
