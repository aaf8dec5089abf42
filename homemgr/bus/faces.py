"""The interfaces org.freedesktop.home1.Manager and .Home, built from tables.

Each member converts its arguments, asks whether the caller may, calls the
daemon and converts the result. Both interfaces share the operation rows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from homemgr import errors
from homemgr.bus import autologin, labels, registering, signing
from homemgr.bus.listing import SIGNATURE as LIST
from homemgr.bus.listing import unix
from homemgr.bus.operations import OPERATIONS, HomeOperation
from homemgr.bus.rounds import Rounds
from homemgr.daemon import changes, locking
from homemgr.record.model import UserRecord
from homemgr.record.secret import Secret
from homemgr.wire.dispatch import Call, Interface, Method, Property

if TYPE_CHECKING:
    from homemgr.bus.autologin import AutoLogins
    from homemgr.bus.jobs import Jobs
    from homemgr.bus.listing import Listing
    from homemgr.daemon.access import Authority
    from homemgr.daemon.answers import Answers
    from homemgr.daemon.blobs import Uploads
    from homemgr.daemon.figures import Figures
    from homemgr.daemon.home import Home
    from homemgr.daemon.manager import Manager
    from homemgr.files import Fd

MANAGER = "org.freedesktop.home1.Manager"
HOME = "org.freedesktop.home1.Home"

_PRIVILEGED = (("org.freedesktop.systemd1.Privileged", "true"),)
_NAME = (("user_name", "s"),)
_RECORD = (("user_record", "s"),)
_WITH_BLOBS = (*_RECORD, ("blobs", "a{sh}"), ("flags", "t"))
_RECORD_REPLY = (("user_record", "s"), ("incomplete", "b"), ("bus_path", "o"))
_UNIX_REPLY = (
    ("home_state", "s"),
    ("gid", "u"),
    ("real_name", "s"),
    ("home_directory", "s"),
    ("shell", "s"),
    ("bus_path", "o"),
)

#: Bit 0 of UpdateHomeEx: change the host copy only.
_OFFLINE = 1


@dataclass
class Faces:
    """What the members work on: one daemon and the authority for its bus."""

    manager: Manager
    authority: Authority
    answers: Answers
    listing: Listing
    auto_logins: AutoLogins
    uploads: Uploads
    jobs: Jobs
    figures: Figures
    rounds: Rounds = field(default_factory=Rounds)

    async def find(self, call: Call, user_name: str) -> Home:
        """The home a caller means; the empty name is the caller's own."""
        if not user_name:
            return self.manager.registry.require_uid((await call.caller()).uid)
        return self.manager.registry.require(user_name)


@dataclass(frozen=True)
class HomeTarget:
    """What a Home object's members work on."""

    faces: Faces
    home: Home


# -- operations on one home, as members of both interfaces ------------------------------


async def _perform(
    faces: Faces, call: Call, operation: HomeOperation, home: Home, arguments: Iterable[object]
) -> object:
    if operation.action is None:
        await faces.authority.note(call)
    else:
        await faces.authority.require(call, operation.action, home, owner_may=operation.owner_may)
    run = operation.run
    if operation.run_by_root is not None and (await call.caller()).uid == 0:
        run = operation.run_by_root
    running = run(home, *arguments)
    # Who can ask people otherwise is no PAM module.
    if operation.is_repeated and not call.interactive:
        running = faces.rounds.judged(call.sender, home.name, running)
    return await answered_in_time(running)


async def answered_in_time(running: Awaitable[object]) -> object:
    """The result; a failure that must not be told at once is told when its time has come."""
    try:
        return await running
    except errors.HomeError as failure:
        wait = failure.answer_at - asyncio.get_running_loop().time()
        if wait > 0:
            await asyncio.sleep(wait)
        raise


def _manager_member(operation: HomeOperation) -> Method:
    async def run(faces: Faces, call: Call, user_name: str, *arguments: object) -> object:
        if "manager" in operation.privileged:
            await faces.authority.require_root(call)
        home = await faces.find(call, user_name)
        return _as_reply(await _perform(faces, call, operation, home, arguments))

    annotations = _PRIVILEGED if "manager" in operation.privileged else ()
    return Method(operation.manager, _NAME + operation.takes, operation.gives, run, annotations)


def _home_member(operation: HomeOperation) -> Method:
    async def run(target: HomeTarget, call: Call, *arguments: object) -> object:
        if "home" in operation.privileged:
            await target.faces.authority.require_root(call)
        return _as_reply(await _perform(target.faces, call, operation, target.home, arguments))

    annotations = _PRIVILEGED if "home" in operation.privileged else ()
    return Method(operation.home, operation.takes, operation.gives, run, annotations)


def _as_reply(result: object) -> object:
    return None if result is None else (result,)


# -- look-ups --------------------------------------------------------------------------------


def _get_home_by_name(faces: Faces, call: Call, user_name: str) -> object:
    # No task for what is answered from memory: it would take as long as all the rest.
    if user_name:
        return faces.listing.home(faces.manager.registry.require(user_name))
    return _get_own_home(faces, call)


async def _get_own_home(faces: Faces, call: Call) -> object:
    return faces.listing.home(await faces.find(call, ""))


def _get_home_by_uid(faces: Faces, _call: Call, uid: int) -> object:
    home = faces.manager.registry.require_uid(uid)
    return (home.name, home.state, *unix(home), labels.path_of_uid(uid))


async def _record_for(faces: Faces, call: Call, home: Home) -> tuple[str, bool]:
    privileged = await faces.authority.sees_privileged(call, home)
    await faces.figures.refresh(home)
    return faces.answers.user_record(home, privileged=privileged)


async def _get_user_record_by_name(faces: Faces, call: Call, user_name: str) -> object:
    home = await faces.find(call, user_name)
    return (*await _record_for(faces, call, home), labels.path_of(home.name))


async def _get_user_record_by_uid(faces: Faces, call: Call, uid: int) -> object:
    home = faces.manager.registry.require_uid(uid)
    return (*await _record_for(faces, call, home), labels.path_of_uid(uid))


def _list_homes(faces: Faces, _call: Call) -> object:
    return faces.listing.body()


# -- creation, update --------------------------------------------------------------------------


async def _create_home(faces: Faces, call: Call, user_record: str) -> None:
    await faces.authority.require(call, "create-home")
    await faces.manager.create(user_record)


async def _create_home_ex(
    faces: Faces, call: Call, user_record: str, blobs: Mapping[str, Fd], flags: int
) -> None:
    _check_flags(flags, 0)
    await faces.authority.require(call, "create-home")
    async with faces.uploads.own_copies((await call.caller()).uid, blobs) as copies:
        await faces.manager.create(user_record, copies)


def _check_flags(flags: int, known: int) -> None:
    if flags & ~known:
        raise errors.InvalidArgs(f"flags: {flags:#x} has unknown bits, expected only {known:#x}.")


async def _update(
    faces: Faces,
    call: Call,
    home: Home,
    record: UserRecord,
    blobs: Mapping[str, Fd] | None = None,
    flags: int = 0,
) -> None:
    _check_flags(flags, _OFFLINE)
    offline = bool(flags & _OFFLINE)
    by_owner = await faces.authority.require_update(call, home, record, offline=offline)
    secret = Secret.of_record(record)
    async with faces.uploads.own_copies((await call.caller()).uid, blobs or {}) as copies:
        given = None if blobs is None else copies
        await answered_in_time(
            changes.update(home, record, secret, given, offline=offline, by_owner=by_owner)
        )


async def _update_home(faces: Faces, call: Call, user_record: str, *more: Any) -> None:
    record = UserRecord.parse(user_record)
    await _update(faces, call, faces.manager.registry.require(record.name), record, *more)


async def _update_of_home(target: HomeTarget, call: Call, user_record: str, *more: Any) -> None:
    await _update(target.faces, call, target.home, UserRecord.parse(user_record), *more)


async def _deactivate_all(faces: Faces, call: Call) -> None:
    await faces.authority.require_root(call)
    await faces.manager.deactivate_all()


async def _lock_all(faces: Faces, call: Call) -> None:
    await faces.authority.require_root(call)
    await locking.lock_all(faces.manager.registry)


async def _rebalance(faces: Faces, call: Call) -> None:
    await faces.authority.require_root(call)
    await faces.manager.balance.now()


_Run = Callable[..., object]


def _look_up(name: str, takes: tuple[tuple[str, str], ...], first: str, run: _Run) -> Method:
    return Method(name, takes, ((first, "u" if first == "uid" else "s"), *_UNIX_REPLY), run)


MANAGER_INTERFACE = Interface(
    MANAGER,
    methods=(
        _look_up("GetHomeByName", _NAME, "uid", _get_home_by_name),
        _look_up("GetHomeByUID", (("uid", "u"),), "user_name", _get_home_by_uid),
        Method("GetUserRecordByName", _NAME, _RECORD_REPLY, _get_user_record_by_name),
        Method("GetUserRecordByUID", (("uid", "u"),), _RECORD_REPLY, _get_user_record_by_uid),
        Method("ListHomes", (), (("home_areas", LIST),), _list_homes),
        *(_manager_member(operation) for operation in OPERATIONS),
        Method("CreateHome", _RECORD, (), _create_home),
        Method("CreateHomeEx", _WITH_BLOBS, (), _create_home_ex),
        Method("UpdateHome", _RECORD, (), _update_home),
        Method("UpdateHomeEx", _WITH_BLOBS, (), _update_home),
        Method("LockAllHomes", (), (), _lock_all, _PRIVILEGED),
        Method("DeactivateAllHomes", (), (), _deactivate_all, _PRIVILEGED),
        Method("Rebalance", (), (), _rebalance, _PRIVILEGED),
        *registering.METHODS,
        *signing.METHODS,
    ),
    properties=(
        Property(
            "AutoLogin", autologin.SIGNATURE, lambda faces, _call: faces.auto_logins.rows(), "true"
        ),
    ),
)

HOME_INTERFACE = Interface(
    HOME,
    methods=(
        *(_home_member(operation) for operation in OPERATIONS),
        Method("Update", _RECORD, (), _update_of_home),
        Method("UpdateEx", _WITH_BLOBS, (), _update_of_home),
        *registering.HOME_METHODS,
    ),
    properties=(
        Property("UserName", "s", lambda target, _call: target.home.name, "const"),
        Property("UID", "u", lambda target, _call: target.home.uid, "true"),
        Property(
            "UnixRecord",
            "(suusss)",
            lambda target, _call: (target.home.name, target.home.uid, *unix(target.home)),
            "true",
        ),
        Property("State", "s", lambda target, _call: target.home.state, "false"),
        Property(
            "UserRecord",
            "(sb)",
            lambda target, call: _record_for(target.faces, call, target.home),
            "invalidates",
        ),
    ),
)
