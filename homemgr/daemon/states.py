"""Which operation a home area admits in which state, and what the state is called.

Pure tables: a state is a resting state and, while one runs, a job. systemd-homed
stores some thirty names; seven resting states and the job give all of them.
Source: org.freedesktop.home1(5) and the behaviour of systemd-homed 262.
"""

from __future__ import annotations

from enum import Enum

from homemgr import errors


class Resting(Enum):
    """What a home area is while nothing runs on it; the value is its name on the wire."""

    UNFIXATED = "unfixated"
    ABSENT = "absent"
    INACTIVE = "inactive"
    DIRTY = "dirty"
    ACTIVE = "active"
    LINGERING = "lingering"
    LOCKED = "locked"

    @property
    def is_active(self) -> bool:
        """True while the home area is mounted and readable."""
        return self in (Resting.ACTIVE, Resting.LINGERING)


class Job(Enum):
    """An operation that takes time; the value is its name on the wire while it runs."""

    FIXATE = "fixating"
    ACTIVATE = "activating"
    DEACTIVATE = "deactivating"
    LOCK = "locking"
    UNLOCK = "unlocking"
    CREATE = "creating"
    REMOVE = "removing"
    UPDATE = "updating"
    RESIZE = "resizing"
    PASSWD = "passwd"  # noqa: S105 -- the name of a job
    SLOT = "changing slots"
    AUTHENTICATE = "authenticating"
    REFRESH = "refreshing"
    DIFFERENCE = "comparing"
    DISCARD = "discarding"
    CHECK = "checking"
    REPAIR = "repairing"
    SETTLE = "settling"
    RESTORE = "restoring"
    CONVERT = "converting"
    WEIGH = "weighing"
    FIT = "fitting"


#: Jobs whose name says whether the home area was mounted when they began.
_WHILE_ACTIVE = {Job.UPDATE, Job.RESIZE, Job.PASSWD, Job.AUTHENTICATE}
#: Jobs that systemd-homed has no name for: its clients see the state as it was.
_UNSEEN = {
    *(Job.REFRESH, Job.DIFFERENCE, Job.DISCARD, Job.CHECK, Job.REPAIR, Job.SETTLE, Job.SLOT),
    *(Job.RESTORE, Job.CONVERT, Job.WEIGH, Job.FIT),
}

#: Jobs whose name says that an acquire began them.
_FOR_ACQUIRE = {Job.FIXATE, Job.ACTIVATE, Job.UNLOCK, Job.AUTHENTICATE}


def wire_name(resting: Resting, job: Job | None, *, for_acquire: bool = False) -> str:
    """The state's name in ``ListHomes`` and the ``State`` property."""
    if job is None:
        return resting.value
    if for_acquire and job in _FOR_ACQUIRE:
        return f"{job.value}-for-acquire"
    if job in _UNSEEN:
        return resting.value
    if job in _WHILE_ACTIVE and resting.is_active:
        return f"{job.value}-while-active"
    return job.value


class Operation(Enum):
    """What a client may ask of a home area, as far as the state decides about it."""

    ACTIVATE = "activate"
    AUTHENTICATE = "authenticate"
    FIXATE = "fixate"
    DEACTIVATE = "deactivate"
    CREATE = "create"
    REALIZE = "realize"
    REMOVE = "remove"
    UNREGISTER = "unregister"
    ADOPT = "adopt"
    FREEZE = "send"
    UPDATE = "update"
    UPDATE_OFFLINE = "update offline"
    PASSWD = "change the password of"  # noqa: S105 -- words for a message
    SLOT = "change the slots of"
    RESIZE = "resize"
    LOCK = "lock"
    UNLOCK = "unlock"
    REFERENCE = "reference"
    REFERENCE_UNASKED = "reference without a secret"
    ACQUIRE = "acquire"
    RELEASE = "release"
    INSPECT = "check"
    RESTORE = "restore"
    CONVERT = "convert"
    CONVERT_BACK = "undo the conversion of"
    LOSE = "give up"


class Way(Enum):
    """How an admitted operation is carried out."""

    RUN = "run its job"
    DONE = "nothing left to do"
    ACTIVATE = "activate"
    FIXATE_THEN_ACTIVATE = "fixate, then activate"
    AUTHENTICATE = "authenticate"
    UNLOCK = "unlock"
    KEEP = "stop the retry of a deactivation and keep the home area"


_U, _A, _I, _D = Resting.UNFIXATED, Resting.ABSENT, Resting.INACTIVE, Resting.DIRTY
_AC, _L, _K = Resting.ACTIVE, Resting.LINGERING, Resting.LOCKED
_Cell = Way | type[errors.HomeError]


def _row(u: _Cell, a: _Cell, i: _Cell, ac: _Cell, ling: _Cell, k: _Cell) -> dict[Resting, _Cell]:
    """One line of the table; dirty behaves as inactive, as in systemd-homed."""
    return {_U: u, _A: a, _I: i, _D: i, _AC: ac, _L: ling, _K: k}


_NOT_ACTIVE = errors.HomeNotActive
_ABSENT = errors.HomeAbsent
_LOCKED = errors.HomeLocked
_NOT_LOCKED = errors.HomeNotLocked
_BUSY = errors.HomeBusy

#: Columns: unfixated, absent, inactive (and dirty), active, lingering, locked.
TABLE: dict[Operation, dict[Resting, _Cell]] = {
    Operation.ACTIVATE: _row(
        Way.FIXATE_THEN_ACTIVATE, _ABSENT, Way.RUN, errors.HomeAlreadyActive, Way.KEEP, _LOCKED
    ),
    Operation.AUTHENTICATE: _row(Way.RUN, _ABSENT, Way.RUN, Way.RUN, Way.RUN, _LOCKED),
    Operation.FIXATE: _row(Way.RUN, _ABSENT, *[errors.HomeAlreadyFixated] * 4),
    Operation.DEACTIVATE: _row(_NOT_ACTIVE, _NOT_ACTIVE, _NOT_ACTIVE, Way.RUN, Way.RUN, _LOCKED),
    Operation.CREATE: _row(errors.HomeExists, Way.RUN, errors.HomeExists, _BUSY, _BUSY, _BUSY),
    Operation.REALIZE: _row(errors.HomeExists, Way.RUN, errors.HomeExists, _BUSY, _BUSY, _BUSY),
    Operation.REMOVE: _row(Way.RUN, Way.RUN, Way.RUN, _BUSY, _BUSY, _LOCKED),
    Operation.UNREGISTER: _row(errors.HomeUnfixated, Way.RUN, Way.RUN, _BUSY, _BUSY, _LOCKED),
    Operation.ADOPT: _row(Way.RUN, Way.RUN, Way.RUN, _BUSY, _BUSY, _LOCKED),
    Operation.FREEZE: _row(errors.HomeUnfixated, _ABSENT, Way.RUN, _BUSY, _BUSY, _LOCKED),
    Operation.UPDATE: _row(errors.HomeUnfixated, _ABSENT, Way.RUN, Way.RUN, Way.RUN, _LOCKED),
    Operation.UPDATE_OFFLINE: _row(
        errors.HomeUnfixated, Way.RUN, Way.RUN, Way.RUN, Way.RUN, _LOCKED
    ),
    Operation.PASSWD: _row(errors.HomeUnfixated, _ABSENT, Way.RUN, Way.RUN, Way.RUN, _LOCKED),
    Operation.SLOT: _row(errors.HomeUnfixated, _ABSENT, Way.RUN, Way.RUN, Way.RUN, _LOCKED),
    Operation.RESIZE: _row(errors.HomeUnfixated, _ABSENT, Way.RUN, Way.RUN, Way.RUN, _LOCKED),
    Operation.LOCK: _row(_NOT_ACTIVE, _NOT_ACTIVE, _NOT_ACTIVE, Way.RUN, Way.RUN, _LOCKED),
    Operation.UNLOCK: _row(
        _NOT_LOCKED, _NOT_LOCKED, _NOT_LOCKED, _NOT_LOCKED, _NOT_LOCKED, Way.RUN
    ),
    Operation.REFERENCE: _row(_NOT_ACTIVE, _ABSENT, _NOT_ACTIVE, Way.DONE, Way.DONE, _LOCKED),
    Operation.REFERENCE_UNASKED: _row(
        _NOT_ACTIVE, _ABSENT, Way.ACTIVATE, Way.DONE, Way.DONE, _LOCKED
    ),
    Operation.ACQUIRE: _row(
        Way.FIXATE_THEN_ACTIVATE,
        _ABSENT,
        Way.ACTIVATE,
        Way.AUTHENTICATE,
        Way.AUTHENTICATE,
        Way.UNLOCK,
    ),
    Operation.RELEASE: _row(Way.DONE, Way.DONE, Way.DONE, Way.RUN, Way.RUN, _LOCKED),
    Operation.RESTORE: _row(errors.HomeUnfixated, Way.RUN, Way.RUN, _BUSY, _BUSY, _LOCKED),
    Operation.INSPECT: _row(*[Way.RUN] * 6),
    Operation.CONVERT: _row(errors.HomeUnfixated, _ABSENT, Way.RUN, _BUSY, _BUSY, _LOCKED),
    Operation.CONVERT_BACK: _row(errors.HomeUnfixated, Way.RUN, Way.RUN, _BUSY, _BUSY, _LOCKED),
    Operation.LOSE: _row(*[Way.RUN] * 6),
}

_REASONS: dict[type[errors.HomeError], str] = {
    errors.HomeAlreadyActive: "is already active",
    errors.HomeAlreadyFixated: "is already known to this machine",
    errors.HomeUnfixated: "was found on disk but never used on this machine",
    errors.HomeNotActive: "is not active",
    errors.HomeAbsent: "has no files here: its image is missing",
    errors.HomeBusy: "is in use",
    errors.HomeLocked: "is locked",
    errors.HomeNotLocked: "is not locked",
    errors.HomeExists: "exists already",
}


def admit(operation: Operation, resting: Resting, user: str) -> Way:
    """How to carry out ``operation`` on the home area of ``user``, or the reason why not.

    Raises the failure that stands in the table.
    """
    cell = TABLE[operation][resting]
    if isinstance(cell, Way):
        return cell
    raise cell(f"Cannot {operation.value} home area {user}: it {_REASONS[cell]}.")
