"""Jobs a client can watch: long work with progress, a result, and an end on demand.

A job belongs to the connection that began it. When that leaves the bus the job is called
off, and forgotten once it has ended; a finished one can be asked for its result until then,
the last of them at least. Knows nothing of what the work is, nor of the bus.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from contextlib import suppress
from enum import Enum
from typing import TYPE_CHECKING, TypeVar

from homemgr import errors
from homemgr.wire.outline import outline

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator

    #: What a job does; gives its result.
    Work = Callable[["Activity"], Awaitable[dict[str, object]]]

log = logging.getLogger(__name__)

_T = TypeVar("_T")

#: Jobs one connection, one user other than root, and all together may have running. Each is a
#: worker for as long as its stream runs: half of all workers are left to those who log in.
MAX_PER_CALLER = 16
MAX_PER_UID = 24
MAX_RUNNING = 64
#: Ended jobs that can still be asked for their result, of one connection and of all.
MAX_ENDED_PER_CALLER = 32
MAX_ENDED = 512
#: Who does not end this long after he was asked to is ended.
CANCEL_S = 30.0


class State(Enum):
    """How a job stands; the value is its name on the wire."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Activity:
    """One job. Pass `note` and ``cancelled`` to the worker that does it."""

    def __init__(self, number: int, verb: str, user: str, owner: str, by_uid: int) -> None:
        """Describe it; `Activities.begin` starts it. ``owner`` is a unique name on the bus."""
        self.number = number
        self.verb = verb
        #: The user it is about; empty until it is known.
        self.user = user
        self.owner = owner
        self.by_uid = by_uid
        self.state = State.RUNNING
        #: What was told last: phase, bytes, total_bytes, files, total_files, rate, left_s.
        self.progress: dict[str, object] = {}
        #: Set when nobody wants the job any more.
        self.cancelled = asyncio.Event()
        #: Called with the activity when it has told something, or has ended.
        self.progressed: list[Callable[[Activity], None]] = []
        self.finished: list[Callable[[Activity], None]] = []
        self._result: dict[str, object] = {}
        self._error: errors.HomeError | None = None
        self._task: asyncio.Task[None] | None = None
        self._ended = asyncio.Event()
        self._deadline: asyncio.TimerHandle | None = None

    @property
    def error(self) -> errors.HomeError | None:
        """Why it failed, once it has."""
        return self._error

    def note(self, progress: dict[str, object]) -> None:
        """Take what the worker tells of how far it is."""
        self.progress = progress
        for listener in self.progressed:
            listener(self)

    def how_far(self) -> object:
        """Something that differs whenever what is told is about more than before."""
        return tuple(self.progress.get(name) for name in ("phase", "files", "bytes"))

    async def wait(self) -> dict[str, object]:
        """The result, once there is one; raises the job's failure, Cancelled too."""
        await self._ended.wait()
        if self._error is not None:
            raise self._error
        return self._result

    def cancel(self) -> None:
        """Call it off: it ends between two steps, whole ones."""
        if self.state is State.RUNNING and not self.cancelled.is_set():
            self.cancelled.set()
            if self._task is not None:
                loop = asyncio.get_running_loop()
                self._deadline = loop.call_later(CANCEL_S, self._task.cancel)

    def start(self, work: Work) -> None:
        """Begin with ``work``; used by `Activities`."""
        self._task = asyncio.get_running_loop().create_task(self._run(work))

    async def _run(self, work: Work) -> None:
        try:
            self._result = await work(self)
            self.state = State.DONE
        except errors.Cancelled as error:
            self._end(State.CANCELLED, error)
        except errors.HomeError as error:
            self._end(State.FAILED, error)
        # An end like others: it is told to who waits, and not raised where nobody hears it.
        except asyncio.CancelledError:
            self._end(State.CANCELLED, errors.Cancelled())
        except Exception as error:  # noqa: BLE001 -- a bug: whoever waits would wait for ever
            # Not its text, which may quote an argument.
            log.error("Bug in job %s: %s", self.verb, outline(error))
            self._end(
                State.FAILED, errors.HomeError(f"Internal error in {self.verb}; the log has more.")
            )
        finally:
            if self._deadline is not None:
                self._deadline.cancel()
            self._ended.set()
            for listener in self.finished:
                listener(self)

    def _end(self, state: State, error: errors.HomeError) -> None:
        self.state, self._error = state, error


class Activities:
    """All jobs of one daemon, by number."""

    def __init__(self) -> None:
        """Know none yet."""
        self._numbers = itertools.count(1)
        self._by_number: dict[int, Activity] = {}

    def begin(self, verb: str, user: str, owner: str, by_uid: int, work: Work) -> Activity:
        """Start ``work`` for a caller, a connection of ``by_uid``; raises TooManyOperations."""
        running = [activity for activity in self if activity.state is State.RUNNING]
        of_uid = sum(activity.by_uid == by_uid for activity in running)
        if sum(activity.owner == owner for activity in running) >= MAX_PER_CALLER:
            raise _too_many(f"{MAX_PER_CALLER} jobs of this caller run already")
        if by_uid != 0 and of_uid >= MAX_PER_UID:
            raise _too_many(f"{MAX_PER_UID} jobs of uid {by_uid} run already")
        if len(running) >= MAX_RUNNING:
            raise _too_many(f"{MAX_RUNNING} jobs run on this machine already")
        activity = Activity(next(self._numbers), verb, user, owner, by_uid)
        self._by_number[activity.number] = activity
        activity.finished.append(self._forget_oldest)
        activity.start(work)
        return activity

    def __iter__(self) -> Iterator[Activity]:
        """All jobs, the oldest first."""
        return iter(list(self._by_number.values()))

    def find(self, number: int) -> Activity | None:
        """The job of this number, while it can be asked."""
        return self._by_number.get(number)

    def owner_left(self, owner: str) -> None:
        """The caller is gone from the bus: end and forget what is his."""
        for activity in self:
            if activity.owner != owner:
                continue
            if activity.state is State.RUNNING:
                log.info("Job %s is called off: its caller is gone.", activity.verb)
                activity.finished.append(self._forget)
                activity.cancel()
            else:
                self._forget(activity)

    def _forget_oldest(self, last: Activity) -> None:
        """Of what has ended keep only so much; ``last`` is the newest and stays."""
        ended = [activity for activity in self if activity.state is not State.RUNNING]
        of_owner = [activity for activity in ended if activity.owner == last.owner]
        for activity in {*of_owner[:-MAX_ENDED_PER_CALLER], *ended[:-MAX_ENDED]} - {last}:
            self._forget(activity)

    def _forget(self, activity: Activity) -> None:
        self._by_number.pop(activity.number, None)

    async def stop(self) -> None:
        """Call everything off and wait until it has ended."""
        for activity in self:
            activity.cancel()
        for activity in self:
            with suppress(errors.HomeError):
                await activity.wait()


async def to_the_end(work: Coroutine[None, None, _T]) -> _T:
    """Do what must not be left half done, also for a job that is ended meanwhile.

    It can end itself early, by ``cancelled``, in a state that is one. Until then nothing that
    the job holds is given up.
    """
    task = asyncio.ensure_future(work)
    while not task.done():
        with suppress(asyncio.CancelledError):
            await asyncio.wait([task])
    return task.result()


def _too_many(what: str) -> errors.TooManyOperations:
    return errors.TooManyOperations(f"{what}; wait for the end of one, or cancel one.")
