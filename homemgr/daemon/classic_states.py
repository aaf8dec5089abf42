"""How far the conversion of each classic account is, on disk: ``USER.json``, root's alone.

It holds what it takes to put the account back, password hash included. A phase is on disk
before the step it allows is taken:

- ``surveyed``: nothing was done yet; forgotten after a kill, whatever others do to the account
- ``begun``: the account is being taken out of the account files; put back after a kill
- ``moving``: it is out, the home area is the user's; a kill is followed by the rest of it
- ``converted``: done; may be undone for `GRACE_S`, and is forgotten after that
- ``returning``: the home area becomes the home directory again, then the account comes back
"""

from __future__ import annotations

import json
import logging
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING

from homemgr import errors, files
from homemgr.daemon.home import now_usec

if TYPE_CHECKING:
    from homemgr.record.jsontext import JsonObject

log = logging.getLogger(__name__)

SURVEYED, BEGUN, MOVING, CONVERTED, RETURNING = PHASES = (
    "surveyed", "begun", "moving", "converted", "returning",
)  # fmt: skip

#: How long a conversion can be undone (s).
GRACE_S = 30 * 86400

_SUFFIX = ".json"
#: Of ledgers of owners: whole, and being written.
_LEDGERS = ".owners", ".owners.new"
#: A record and the lines of one user in the account files are far below this.
_MAX_BYTES = 4 << 20


@dataclass(frozen=True)
class ClassicState:
    """One file. ``when`` is microseconds since 1970, of the last change of phase."""

    user: str
    phase: str = SURVEYED
    when: int = 0
    uid: int = 0
    gid: int = 0
    #: The home directory, and where it lies as a home area.
    home: str = ""
    image: str = ""
    #: Which directory it is, see `storage.staging`.
    tree: str = ""
    files: int = 0
    #: The group that goes with the account.
    own_group: str | None = None
    #: What was taken out of the account files, see `record.account_lines`.
    excerpt: JsonObject = field(default_factory=dict)
    #: The record of the home area; when it returns, that of its last moment.
    record: JsonObject = field(default_factory=dict)

    def at(self, phase: str) -> ClassicState:
        """The state in another phase, from this moment."""
        return replace(self, phase=phase, when=now_usec())

    def listed(self) -> dict[str, object]:
        """As a client is shown it; ``until`` is when the way back ends."""
        shown = {name: getattr(self, name) for name in ("user", "phase", "when", "home", "image")}
        return {**shown, "until": self.when + GRACE_S * 1_000_000}

    @property
    def is_old(self) -> bool:
        """Whether it is too late to undo it."""
        return self.phase == CONVERTED and self.when + GRACE_S * 1_000_000 < now_usec()


class ClassicStore:
    """The directory of state files, and of ledgers of owners beside them. All may block."""

    def __init__(self, directory: str) -> None:
        """Use ``directory``, made when something is stored."""
        self.directory = directory

    def prepare(self) -> None:
        """Make the directory."""
        os.makedirs(self.directory, 0o700, exist_ok=True)

    def load(self) -> list[ClassicState]:
        """Every state that can be read; one that cannot is logged and left where it is."""
        try:
            entries = sorted(os.listdir(self.directory))
        except FileNotFoundError:
            return []
        found = []
        for entry in entries:
            if not entry.endswith(_SUFFIX) or entry.startswith("."):
                continue
            try:
                found.append(_read(files.read_bounded(self.directory, entry, _MAX_BYTES), entry))
            except (OSError, ValueError, TypeError) as error:
                log.error("Cannot read the conversion %s/%s: %s", self.directory, entry, error)
        return found

    def forget_orphans(self) -> None:
        """Delete ledgers of conversions that a kill ended before they began, or after their end.

        They name files of a home. What cannot be deleted is logged.
        """
        try:
            found = set(os.listdir(self.directory))
            for entry in found:
                user, dot, rest = entry.partition(".owners")
                if dot + rest in _LEDGERS and user + _SUFFIX not in found:
                    os.unlink(os.path.join(self.directory, entry))
        except FileNotFoundError:
            return
        except OSError as error:
            log.warning("Ledgers in %s stay: %s", self.directory, error.strerror)

    def find(self, user: str) -> ClassicState | None:
        """The state of ``user``; None if nothing of his was converted."""
        return next((state for state in self.load() if state.user == user), None)

    def save(self, state: ClassicState) -> None:
        """Have ``state`` on disk when this returns; raises NoDiskSpace and SystemFailure."""
        text = json.dumps(asdict(state), indent=1).encode() + b"\n"
        try:
            self.prepare()
            files.write_atomically(self.directory, state.user + _SUFFIX, text, 0o600)
        except OSError as error:
            raise errors.from_os_error(error, f"Saving the conversion of {state.user}") from error

    def delete(self, user: str) -> None:
        """Forget a conversion: the ledger last, which says nothing without the state.

        Raises SystemFailure.
        """
        try:
            for name in (user + _SUFFIX, *(user + suffix for suffix in _LEDGERS)):
                with suppress(FileNotFoundError):
                    os.unlink(os.path.join(self.directory, name))
            with files.opened(self.directory) as directory:
                os.fsync(directory)
        except OSError as error:
            raise errors.from_os_error(error, f"Forgetting the conversion of {user}") from error


def _read(text: bytes, entry: str) -> ClassicState:
    told = json.loads(text)
    if not isinstance(told, dict):
        raise TypeError("no object")
    known = {f.name for f in fields(ClassicState)}
    state = ClassicState(**{k: v for k, v in told.items() if k in known})
    if state.user + _SUFFIX != entry or state.phase not in PHASES:
        raise ValueError("another user's, or of another version")
    return state
