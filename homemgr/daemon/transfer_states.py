"""How far each transfer is, on disk: what a power cut must not make anybody forget.

``out-USER.json`` for a home sent from here, ``in-USER.json`` for one received here, both
root's alone. A phase is on disk before the step it allows is taken. The phases:

- out: ``sending`` (the home is used here), ``leaving`` (nowhere, until the other side has
  it), ``left`` (the other side has it)
- in: ``receiving``, ``prepared`` (complete, may become a home as soon as the origin has let
  go), ``committed`` (a home here), ``gone`` (given back to the origin), ``passed`` (it was a
  home here, and went on to somebody else: the origin must not have it back)
"""

from __future__ import annotations

import json
import logging
import os
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from typing import TYPE_CHECKING, Literal

from homemgr import errors, files
from homemgr.daemon.home import now_usec
from homemgr.record import names
from homemgr.record.model import UserRecord

if TYPE_CHECKING:
    from collections.abc import Mapping

log = logging.getLogger(__name__)

Direction = Literal["in", "out"]

SENDING, LEAVING, LEFT = "sending", "leaving", "left"
RECEIVING, PREPARED, COMMITTED, GONE = "receiving", "prepared", "committed", "gone"
PASSED = "passed"

#: A record and a report are within it.
_MAX_BYTES = 4 << 20
_SUFFIX = ".json"


@dataclass(frozen=True)
class TransferState:
    """One file. ``when`` is microseconds since 1970, of the last change of phase."""

    user: str
    phase: str
    #: Name and id of the other machine, as far as it told.
    host: str = ""
    machine_id: str = ""
    when: int = 0
    #: Content bytes that travelled, as told last.
    bytes: int = 0
    #: Where the home lies, or is to lie.
    image_path: str = ""
    #: Name beside it under which the home is kept once it has left; or arrives.
    aside_name: str = ""
    #: Which tree left, or arrived: its id, see `storage.staging`.
    tree: str = ""
    realm: str | None = None
    #: Incoming: the origin's key, the uid held, what the record is here once prepared.
    fingerprint: str = ""
    uid: int = 0
    origin_uid: int = 0
    #: Incoming: how the home is to lie here, and how it lies there; empty if nobody said.
    storage: str = ""
    origin_storage: str = ""
    #: Incoming: the machine to which what came from the same origin before went on from here.
    went_on: str = ""
    record: Mapping[str, object] = field(default_factory=dict)
    #: Incoming: whether it is imported: nobody goes on with that after its end.
    is_from_file: bool = False
    #: Incoming: whether somebody has used the home here.
    is_used: bool = False

    def at(self, phase: str, **changes: object) -> TransferState:
        """The state in another phase, from this moment."""
        return replace(self, phase=phase, when=now_usec(), **changes)  # type: ignore[arg-type]

    @property
    def is_worthless(self) -> bool:
        """Of what arrives, whether nothing is lost but time if it is forgotten.

        What came as a file, which is still there, is so until it is a home.
        """
        return self.phase == RECEIVING or (self.is_from_file and self.phase == PREPARED)

    def passed_on(self, host: str) -> TransferState:
        """Of what has gone on to ``host``: nothing is here any more."""
        nothing = {"record": {}, "tree": "", "image_path": "", "aside_name": ""}
        return self.at(PASSED, went_on=host or "another machine", **nothing)

    def listed(self, direction: Direction) -> dict[str, object]:
        """As a client is shown it."""
        shown = ("user", "host", "machine_id", "phase", "when", "bytes")
        return {"direction": direction, **{name: getattr(self, name) for name in shown}}


class TransferStore:
    """The directory of state files, ledgers and records of homes that left. All may block."""

    def __init__(self, directory: str, volatile: str) -> None:
        """Use ``directory``, made by `load`; and ``volatile``, which is in memory only."""
        self.directory = directory
        self._volatile = volatile
        self._left = os.path.join(directory, "left")

    def load(self) -> dict[tuple[Direction, str], TransferState]:
        """Every state that can be read; one that cannot is logged and left where it is."""
        os.makedirs(self._left, 0o700, exist_ok=True)
        os.makedirs(self._volatile, 0o755, exist_ok=True)
        found: dict[tuple[Direction, str], TransferState] = {}
        for entry in sorted(os.listdir(self.directory)):
            direction, _, rest = entry.partition("-")
            user = rest.removesuffix(_SUFFIX)
            if direction not in ("in", "out") or user == rest or not names.is_acceptable(user):
                continue
            try:
                text = files.read_bounded(self.directory, entry, _MAX_BYTES)
                state = _read(json.loads(text))
                if state.user != user:
                    raise ValueError("another user's")
            except (OSError, ValueError, TypeError) as error:
                log.error("Cannot read the transfer state %s: %s", entry, error)
                continue
            found["in" if direction == "in" else "out", user] = state
        return found

    def is_unheard_of(self, user: str) -> bool:
        """Whether nothing tells of an arrival of ``user``, not even what cannot be read."""
        return bool(user) and not os.path.lexists(os.path.join(self.directory, _file("in", user)))

    def save(self, direction: Direction, state: TransferState) -> None:
        """Have ``state`` on disk when this returns; raises NoDiskSpace and SystemFailure."""
        text = json.dumps(asdict(state), ensure_ascii=True, indent=1).encode() + b"\n"
        try:
            os.makedirs(self._left, 0o700, exist_ok=True)
            files.write_atomically(self.directory, _file(direction, state.user), text, 0o600)
        except OSError as error:
            raise errors.from_os_error(error, f"Saving the transfer of {state.user}") from error

    def delete(self, direction: Direction, user: str) -> None:
        """Forget a transfer, its ledgers too; raises SystemFailure."""
        try:
            # The state last: while it is there, what a kill leaves of the rest can be forgotten.
            self.delete_ledgers(direction, user)
            self._unlink(self.directory, _file(direction, user))
        except OSError as error:
            raise errors.from_os_error(error, f"Forgetting the transfer of {user}") from error

    def delete_ledgers(self, direction: Direction, user: str) -> None:
        """Forget what both ends know of the files of a home."""
        for directory in filter(os.path.isdir, (self.directory, self._volatile)):
            for entry in os.listdir(directory):
                if entry.startswith(f"{user}@") and entry.partition(f".{direction}.sqlite")[1]:
                    os.unlink(os.path.join(directory, entry))

    def ledger(self, direction: Direction, user: str, peer: str, *, is_secret: bool) -> str:
        """The file of what is known of a home at both ends; ``peer`` is a machine id or key.

        It names all files of the home: where those are encrypted (``is_secret``) it lasts until
        the machine is switched off.
        """
        directory = self._volatile if is_secret else self.directory
        return os.path.join(directory, f"{user}@{peer}.{direction}.sqlite")

    # -- records of homes that left --------------------------------------------------------

    def keep_left(self, user: str, record: UserRecord) -> None:
        """Keep the host copy of a home that is no longer one of this machine."""
        try:
            files.write_atomically(self._left, f"{user}.identity", record.pretty(), 0o600)
        except OSError as error:
            raise errors.from_os_error(error, f"Saving the user record of {user}") from error

    def left_record(self, user: str) -> UserRecord | None:
        """The host copy of a home that left, if it is there."""
        try:
            return UserRecord.parse(files.read_bounded(self._left, f"{user}.identity", _MAX_BYTES))
        except FileNotFoundError:
            return None
        except (OSError, errors.HomeError) as error:
            log.error("Cannot read the record of %s, who left: %s", user, error)
            return None

    def delete_left(self, user: str) -> None:
        """Drop that host copy; raises SystemFailure."""
        try:
            self._unlink(self._left, f"{user}.identity")
        except OSError as error:
            raise errors.from_os_error(error, f"Removing the user record of {user}") from error

    def _unlink(self, directory: str, name: str) -> None:
        with suppress(FileNotFoundError):
            os.unlink(os.path.join(directory, name))
        with files.opened(directory) as parent:
            os.fsync(parent)


def _file(direction: Direction, user: str) -> str:
    return f"{direction}-{user}{_SUFFIX}"


def _read(told: object) -> TransferState:
    if not isinstance(told, dict):
        raise TypeError("no object")
    known = {f.name for f in fields(TransferState)}
    state = TransferState(**{k: v for k, v in told.items() if k in known})
    texts = (state.user, state.phase, state.image_path, state.aside_name, state.host, state.tree)
    if not all(isinstance(text, str) for text in texts) or not isinstance(state.record, dict):
        raise TypeError("a member of another type")
    return state
