"""What `homemgr setup` changed, so that `homemgr unsetup` can put exactly that back.

One file inside the tree, written before each change: whatever interrupts a
setup, the journal names every path that may have been touched and what it held.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from homemgr.cli.setup.tree import State
from homemgr.errors import NotSupported
from homemgr.files import write_atomically

if TYPE_CHECKING:
    from homemgr.cli.setup.tree import Tree

PATH = "/var/lib/homemgr/setup.json"
VERSION = 1


@dataclass
class Change:
    """One path: what it held before the first setup, and what setup made of it.

    ``previous`` is what an earlier setup had made of it: still there if the later one
    was interrupted before it came to this path.
    """

    path: str
    before: State | None
    after: State | None
    previous: State | None = None

    def accounts_for(self, now: State | None) -> bool:
        """Whether ``now`` is the work of setup, or still the original."""
        return now in (self.before, self.after, self.previous)


class Journal:
    """The record of one setup: changed paths, created directories, and plain facts.

    Lives as long as the setup does: `erase` is the last act of unsetup.
    """

    def __init__(self, tree: Tree) -> None:
        """Read the journal of ``tree``; a tree without one was never set up."""
        self._tree = tree
        self.changes: list[Change] = []
        self.directories: list[str] = []
        #: Things to remember that are no file: strings and booleans by name.
        self.facts: dict[str, bool] = {}
        self.complete = False
        self.exists = tree.exists(PATH)
        if self.exists:
            self._load(tree.text(PATH))

    def _load(self, text: str) -> None:
        try:
            value = json.loads(text)
            if value["version"] != VERSION:
                raise NotSupported(
                    f"{PATH} was written by another version of homemgr (format "
                    f"{value['version']}, this one reads {VERSION}): run the unsetup of that one."
                )
            self.complete = bool(value["complete"])
            self.directories = [str(d) for d in value["directories"]]
            self.facts = {str(k): bool(v) for k, v in value["facts"].items()}
            states = ("before", "after", "previous")
            self.changes = [
                Change(str(c["path"]), *(State.from_json(c[s]) for s in states))
                for c in value["changes"]
            ]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise NotSupported(
                f"{PATH} is damaged ({error!r}), so it is not known what setup replaced. "
                "Move it away only after checking the paths it names."
            ) from error

    def save(self) -> None:
        """Write the journal durably."""
        value = {
            "version": VERSION,
            "complete": self.complete,
            "directories": self.directories,
            "facts": self.facts,
            "changes": [
                {
                    "path": c.path,
                    "before": c.before and c.before.to_json(),
                    "after": c.after and c.after.to_json(),
                    "previous": c.previous and c.previous.to_json(),
                }
                for c in self.changes
            ],
        }
        for directory in self._tree.missing_directories(PATH):
            self._tree.make_directory(directory)
            self.directories.append(directory)
            value["directories"] = self.directories
        directory, name = os.path.split(self._tree.real(PATH))
        data = json.dumps(value, indent=1, sort_keys=True).encode() + b"\n"
        # It holds copies of system files: not for everybody's eyes.
        write_atomically(directory, name, data, 0o600)
        self.exists = True

    def find(self, path: str) -> Change | None:
        """What is known about ``path``."""
        return next((c for c in self.changes if c.path == path), None)

    def note(self, path: str, before: State | None, after: State | None) -> None:
        """Remember a change that is about to happen; what was first there stays known."""
        known = self.find(path)
        if known:
            if known.after != after:
                known.previous, known.after = known.after, after
        else:
            self.changes.append(Change(path, before, after))

    def erase(self) -> None:
        """Forget everything: the tree is as it was."""
        self._tree.make(PATH, None)
        for directory in reversed(self.directories):
            self._tree.drop_directory(directory)
