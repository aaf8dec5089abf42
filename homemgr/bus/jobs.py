"""Jobs on the bus: objects /org/homemgr1/job/N with the interface org.homemgr1.Job.

A job can be seen by the connection that began it, and by root. Its signals go to that
connection alone. What it tells and gives are JSON objects in strings.
"""

from __future__ import annotations

import asyncio
import json
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.wire.dispatch import Call, Interface, Method, Node, Property, Signal
from homemgr.wire.messages import BUS_NAME, BUS_PATH

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from homemgr.daemon.activity import Activities, Activity
    from homemgr.files import Fd
    from homemgr.wire.connection import Connection

    #: What a job does with its descriptors; gives its result.
    Work = Callable[[Activity, Sequence[int]], Awaitable[dict[str, object]]]

JOB = "org.homemgr1.Job"
ROOT = "/org/homemgr1/job"

#: Progress is told this often at most; the last of it always is.
_PROGRESS_S = 0.1
_JSON = (("json", "s"),)


class Jobs:
    """The jobs of one bus connection."""

    def __init__(self, connection: Connection, activities: Activities) -> None:
        """Show ``activities``."""
        self._connection = connection
        self._activities = activities
        #: Callers with jobs, once each however many they begin; calling ends the watch.
        self._watched: dict[str, Callable[[], None]] = {}

    async def begin(self, call: Call, verb: str, user: str, given: Sequence[Fd], work: Work) -> str:
        """Start ``work`` for the caller, with copies of ``given``; gives the path of the job."""
        by_uid = (await call.caller()).uid
        with ExitStack() as copies:
            fds = [copies.enter_context(fd.duplicate()).fileno() for fd in given]
            activity = self._activities.begin(
                verb, user, call.sender, by_uid, lambda activity: work(activity, fds)
            )
            owned = copies.pop_all()
        activity.finished.append(lambda _activity: owned.close())
        path = path_of(activity)
        teller = _Teller(self._connection, activity)
        activity.progressed.append(teller.progressed)
        activity.finished.append(teller.finished)

        self._watch(call.sender)
        # Whoever left before we watched is never reported.
        driver = (BUS_NAME, BUS_PATH, BUS_NAME)
        (is_there,) = await self._connection.call(*driver, "NameHasOwner", "s", (call.sender,))
        if not is_there:
            self._watched.get(call.sender, lambda: None)()
            self._left(call.sender)
        return path

    def _watch(self, sender: str) -> None:
        if sender not in self._watched:
            self._watched[sender] = self._connection.watch(sender, lambda: self._left(sender))

    def _left(self, sender: str) -> None:
        self._watched.pop(sender, None)
        self._activities.owner_left(sender)

    def node(self, label: str) -> Node | None:
        """The object of a job, by the last part of its path."""
        number = int(label) if label.isascii() and label.isdecimal() and len(label) < 19 else 0
        activity = self._activities.find(number)
        return None if activity is None else Node(activity, (INTERFACE,))

    def labels(self) -> list[str]:
        """The last parts of the paths of all jobs."""
        return [str(activity.number) for activity in self._activities]


def path_of(activity: Activity) -> str:
    """The object path of a job."""
    return f"{ROOT}/{activity.number}"


@dataclass
class _Teller:
    """Sends the signals of one job to who began it."""

    connection: Connection
    activity: Activity
    _waiting: asyncio.TimerHandle | None = None

    def progressed(self, _activity: Activity) -> None:
        """Tell soon, together with what comes until then."""
        if self._waiting is None:
            loop = asyncio.get_running_loop()
            self._waiting = loop.call_later(_PROGRESS_S, self._tell)

    def finished(self, activity: Activity) -> None:
        """Tell the end, after the last progress."""
        if self._waiting is not None:
            self._waiting.cancel()
            self._tell()
        self._emit("Finished", activity.state.value)

    def _tell(self) -> None:
        self._waiting = None
        self._emit("Progress", _text(self.activity.progress))

    def _emit(self, member: str, text: str) -> None:
        owner = self.activity.owner
        path = path_of(self.activity)
        self.connection.emit(path, JOB, member, "s", (text,), destination=owner)


async def _require_own(activity: Activity, call: Call) -> None:
    if call.sender != activity.owner and (await call.caller()).uid != 0:
        raise errors.AccessDenied(f"Job {activity.number} belongs to another caller.")


async def _wait(activity: Activity, call: Call) -> object:
    await _require_own(activity, call)
    return (_text(await activity.wait()),)


async def _cancel(activity: Activity, call: Call) -> None:
    await _require_own(activity, call)
    activity.cancel()


async def _verb(activity: Activity, call: Call) -> str:
    await _require_own(activity, call)
    return activity.verb


async def _user(activity: Activity, call: Call) -> str:
    await _require_own(activity, call)
    return activity.user


async def _state(activity: Activity, call: Call) -> str:
    await _require_own(activity, call)
    return activity.state.value


async def _progress(activity: Activity, call: Call) -> str:
    await _require_own(activity, call)
    return _text(activity.progress)


def _text(answer: object) -> str:
    return json.dumps(answer)


INTERFACE = Interface(
    JOB,
    methods=(
        Method("Wait", (), _JSON, _wait),
        Method("Cancel", (), (), _cancel),
    ),
    properties=(
        Property("Verb", "s", _verb, "const"),
        Property("UserName", "s", _user),
        Property("State", "s", _state),
        Property("Progress", "s", _progress),
    ),
    signals=(Signal("Progress", _JSON), Signal("Finished", (("state", "s"),))),
)
