"""How far each conversion of a home is, on disk: what a power cut must not make anybody forget.

``convert-USER.json``, root's alone. A phase is on disk before the step it allows is taken:

- ``making``: the old home is the home; what is made lies in a room, and is nothing yet
- ``switching``: the new one is complete; both change places, which is done to its end
- ``kept``: the new one is the home, the old one lies in a room
- ``returning``: both change back, which is done to its end
- ``dropping``: the room is not needed any more, and is deleted
"""

from __future__ import annotations

import json
import logging
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

from homemgr import errors, files
from homemgr.daemon.home import now_usec
from homemgr.record import names

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

log = logging.getLogger(__name__)

MAKING, SWITCHING, KEPT, RETURNING, DROPPING = (
    "making", "switching", "kept", "returning", "dropping",
)  # fmt: skip

_MAX_BYTES = 1 << 20
_PREFIX, _SUFFIX = "convert-", ".json"


@dataclass(frozen=True)
class Side:
    """The old or the new home."""

    storage: str
    image_path: str
    #: The room beside it, see ``storage.rooms``, in which it is made or kept; empty if it stays.
    room: str
    #: What tells it from all others, once it is there; of a new one on a device, before that too.
    image: str = ""
    #: What a record's binding says of it.
    binding: Mapping[str, object] = field(default_factory=dict)

    @property
    def stays(self) -> bool:
        """Whether it is on a device or a file server: it has no room, and is where it was made."""
        return names.stays(self.image_path)

    @property
    def place(self) -> str:
        """Where in the room it lies, if it has one."""
        if self.stays:
            return self.image_path
        return os.path.join(self.room, os.path.basename(self.image_path))

    def found_with(self, image: str) -> Side:
        """The side with what is there by now: of a directory whatever has the name is the home.

        A device may hold something else by now, and that is none of ours.
        """
        return self if self.stays else self.holding(image)

    def holding(self, image: object, binding: object = None) -> Side:
        """The side once ``image`` is there, and what a record's binding says of it."""
        found = binding if isinstance(binding, dict) else self.binding
        return replace(self, image=str(image), binding=found)


@dataclass(frozen=True)
class Conversion:
    """One file. ``when`` is microseconds since 1970, of the last change of phase."""

    user: str
    phase: str
    old: Side
    new: Side
    when: int = 0
    #: Nothing was made: the home only has another path.
    is_renamed: bool = False
    #: Whether the new one was used.
    is_used: bool = False
    #: Passwords and so on of the old one, as a digest.
    hashes: str = ""
    #: Hashes of the passwords that unlock the old one, if it is encrypted.
    former: Sequence[str] = ()
    #: When the new one became the home, microseconds since 1970.
    switched: int = 0

    def at(self, phase: str, **changes: object) -> Conversion:
        """The state in another phase, from this moment."""
        return replace(self, phase=phase, when=now_usec(), **changes)  # type: ignore[arg-type]

    @property
    def has_moved(self) -> bool:
        """Whether the new one lies in another directory."""
        return os.path.dirname(self.old.image_path) != os.path.dirname(self.new.image_path)

    @property
    def moves(self) -> list[tuple[str, str, str]]:
        """What is renamed to switch: from, to, which image."""
        if self.is_renamed:
            return [(self.old.image_path, self.new.image_path, self.old.image)]
        moves = [
            (self.old.image_path, self.old.place, self.old.image),
            (self.new.place, self.new.image_path, self.new.image),
        ]
        return [move for move in moves if move[0] != move[1]]

    @property
    def rooms(self) -> list[str]:
        """Those that there are."""
        return [side.room for side in (self.old, self.new) if side.room]

    @property
    def moves_back(self) -> list[tuple[str, str, str]]:
        """The same to return; nothing of a new home that is gone."""
        return [(new, old, image) for old, new, image in reversed(self.moves) if image]

    @property
    def free_to_return(self) -> list[str]:
        """Where nothing may be for `moves_back` to begin."""
        return sorted({where for _, where, _ in self.moves_back} - {self.new.image_path})

    def listed(self) -> dict[str, object]:
        """As a client is shown it."""
        sides = {
            name: {"storage": side.storage, "image_path": side.image_path}
            for name, side in (("old", self.old), ("new", self.new))
        }
        shown = {name: getattr(self, name) for name in ("user", "phase", "when", "is_used")}
        return {**shown, **sides}


class ConversionStore:
    """The files of one directory. All may block."""

    def __init__(self, directory: str) -> None:
        """Use ``directory``, made when it is needed."""
        self._directory = directory

    def load(self) -> dict[str, Conversion]:
        """Every state that can be read, by user; one that cannot is logged and left."""
        found: dict[str, Conversion] = {}
        with suppress(FileNotFoundError):
            for entry in sorted(os.listdir(self._directory)):
                user = entry.removeprefix(_PREFIX).removesuffix(_SUFFIX)
                if entry != _file(user) or not names.is_acceptable(user):
                    continue
                try:
                    state = _read(files.read_bounded(self._directory, entry, _MAX_BYTES))
                    if state.user != user:
                        raise ValueError("another user's")
                except (OSError, ValueError, TypeError, KeyError) as error:
                    log.error("Cannot read the state of a conversion %s: %s", entry, error)
                    continue
                found[user] = state
        return found

    def save(self, state: Conversion) -> None:
        """Have ``state`` on disk when this returns; raises NoDiskSpace and SystemFailure."""
        text = json.dumps(asdict(state), ensure_ascii=True, indent=1).encode() + b"\n"
        try:
            os.makedirs(self._directory, 0o700, exist_ok=True)
            files.write_atomically(self._directory, _file(state.user), text, 0o600)
        except OSError as error:
            raise errors.from_os_error(error, f"Saving the conversion of {state.user}") from error

    def delete(self, user: str) -> None:
        """Forget a conversion; raises SystemFailure."""
        try:
            with suppress(FileNotFoundError):
                os.unlink(os.path.join(self._directory, _file(user)))
            with files.opened(self._directory) as parent:
                os.fsync(parent)
        except OSError as error:
            raise errors.from_os_error(error, f"Forgetting the conversion of {user}") from error


def _file(user: str) -> str:
    return f"{_PREFIX}{user}{_SUFFIX}"


def _read(text: bytes) -> Conversion:
    told = json.loads(text)
    sides = {name: Side(**told[name]) for name in ("old", "new")}
    return Conversion(**{**told, **sides})
