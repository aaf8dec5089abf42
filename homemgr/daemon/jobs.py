"""Runs jobs: one worker process and one socket for each.

The job server (``work.server``) forks the workers; it was started before the
event loop and has everything loaded. This side sends requests, hands out
processor time, passes on what workers tell and ask, and waits for results. It
knows no verb.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from contextlib import ExitStack, closing, suppress
from typing import TYPE_CHECKING, NamedTuple, cast

from homemgr import errors, job
from homemgr.daemon.patience import Patience
from homemgr.wire import logs

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence

    #: Told how far a job is.
    OnProgress = Callable[[job.Message], None]
    #: Answers a worker's question: its name, and what it is about.
    OnQuestion = Callable[[str, job.Message], Awaitable[job.Message]]

log = logging.getLogger(__name__)

#: Jobs at once over all homes; further ones wait. Each is a process. One that hangs does
#: not count: a dead server of so many homes must not keep out the users of all others.
MAX_JOBS = 128
#: With so many of them nothing begins that nobody waits for: people who log in would.
_MANY_JOBS = MAX_JOBS // 2
#: Processor time is counted in ticks: it may be said to be over when so much of it is.
_COUNTED = 0.9


class JobRunner:
    """Owner of the control socket to the job server and of every running job's socket."""

    def __init__(self, control: socket.socket, processors: int | None = None) -> None:
        """Take over ``control``; ``processors`` is how many workers may hash at once."""
        self._control = control
        self._processors = asyncio.Semaphore(processors or os.cpu_count() or 1)
        self._jobs = asyncio.Semaphore(MAX_JOBS)
        self._running = 0
        self._idle = asyncio.Event()
        self._idle.set()

    async def run(
        self,
        verb: str,
        arguments: Mapping[str, object],
        fds: Sequence[int] = (),
        *,
        about: str = "",
        on_progress: OnProgress | None = None,
        on_question: OnQuestion | None = None,
        cancelled: asyncio.Event | None = None,
    ) -> dict[str, object]:
        """Run one job to its end and return its result; ``about`` says in the log whose it is.

        Raises the HomeError the worker raised, or WorkerDied if there is no answer. A job
        that asks whether it is still wanted ends with Cancelled soon after ``cancelled``
        is set. The worker of a task that is cancelled itself finds the daemon gone.
        """
        caller = _Caller(on_progress, on_question, cancelled)
        # What is logged is decided anew while the service runs.
        told = {**arguments, job.LOG_LEVEL: logs.threshold()}
        request = job.pack(job.Request(verb, told).message())
        with ExitStack() as place:
            # Counted while it waits too: at the end of the service every caller gets his answer.
            self._enter(place)
            await self._jobs.acquire()
            place.callback(self._jobs.release)
            what = f"Job {verb} of {about}" if about else f"Job {verb}"
            with closing(Patience(what, place.close)) as patience:
                return await self._run(verb, request, fds, caller, patience)

    def _enter(self, place: ExitStack) -> None:
        """Count a job until ``place`` is closed."""
        self._running += 1
        self._idle.clear()
        place.callback(self._leave)

    def _leave(self) -> None:
        self._running -= 1
        if not self._running:
            self._idle.set()

    @property
    def is_busy(self) -> bool:
        """Whether what nobody waits for has to be left for another time."""
        return self._running >= _MANY_JOBS

    async def wait_idle(self) -> None:
        """Return when no job runs but those that hang."""
        await self._idle.wait()

    def forget_mounts(self) -> None:
        """Have the job server let go of the images it keeps mounted for others to share."""
        # If it is gone, so are they.
        with suppress(OSError):
            self._control.send(job.FORGET_MOUNTS)

    def close(self) -> None:
        """Let the job server end; running workers finish on their own."""
        self._control.close()

    async def _run(
        self, verb: str, request: bytes, fds: Sequence[int], caller: _Caller, patience: Patience
    ) -> dict[str, object]:
        """Give the job to a worker, and to another if that one died before it began."""
        for is_last in (False, True):
            try:
                with self._new_job() as sock:
                    talk = _Conversation(sock, self._processors, caller, patience)
                    return await talk.hold(verb, request, fds)
            except (EOFError, ConnectionError) as error:
                # Without its pid no worker has said that it began: nothing is done yet.
                if patience.pid is None and not is_last:
                    log.warning("The worker for %s died before it began; trying another.", verb)
                    continue
                log.error("The worker for %s died before it answered.", verb)
                raise errors.WorkerDied(
                    f"The worker process that should {verb} died unexpectedly; the log has more."
                ) from error
        raise AssertionError

    def _new_job(self) -> socket.socket:
        """Our end of the socket to whichever worker the job server chooses."""
        ours, theirs = socket.socketpair()
        with theirs, ExitStack() as on_failure:
            on_failure.enter_context(ours)
            ours.setblocking(False)  # noqa: FBT003 -- its only form
            # A datagram of one byte; the job server always drains its queue.
            socket.send_fds(self._control, [job.JOB], [theirs.fileno()])
            on_failure.pop_all()
        return ours


class _Caller(NamedTuple):
    """Who wants the job done, as far as he is to be told and asked."""

    on_progress: OnProgress | None
    on_question: OnQuestion | None
    cancelled: asyncio.Event | None


class _Held(NamedTuple):
    """A processor that a worker has; since when by the loop's clock, and for how long (s)."""

    since: float
    #: The time on it that ends the worker, all of its ``threads`` together; None if none does.
    limit_s: float | None
    threads: int

    def is_used_up(self, now: float) -> bool:
        """Whether who is dead now can have died of that."""
        if self.limit_s is None:
            return False
        return now - self.since >= _COUNTED * self.limit_s / self.threads


class _Conversation:
    """One job's talk with its worker; gives the processor back whatever happens."""

    def __init__(
        self,
        sock: socket.socket,
        processors: asyncio.Semaphore,
        caller: _Caller,
        patience: Patience,
    ) -> None:
        self._sock = sock
        self._processors = processors
        self._caller = caller
        self._patience = patience
        self._held: _Held | None = None
        self._loop = asyncio.get_running_loop()
        self._received = bytearray()
        #: Frames never mix, though a question may be answered while the job is called off.
        self._sending = asyncio.Lock()
        self._beside: set[asyncio.Task[None]] = set()

    async def hold(self, verb: str, request: bytes, fds: Sequence[int]) -> dict[str, object]:
        try:
            # Descriptors ride on the first byte of a fresh, empty socket: never blocks.
            head = socket.send_fds(self._sock, [request[:1]], list(fds)) if fds else 0
            await self._loop.sock_sendall(self._sock, request[head:])
            if self._caller.cancelled is not None:
                self._start(self._call_off(self._caller.cancelled))
            while True:
                message = await self._receive()
                if "result" in message:
                    result = message["result"]
                    assert isinstance(result, dict)
                    return result
                if "error" in message:
                    raise job.revive(message["error"])
                await self._serve(message)
        except (EOFError, ConnectionError) as error:
            if self._held is None or not self._held.is_used_up(self._loop.time()):
                raise
            limit_s = self._held.limit_s
            log.error("The worker for %s was ended by its limit of %.0f s.", verb, limit_s)
            raise errors.WorkerDied(
                f"The worker process that should {verb} was ended by its time limit: to check a"
                f" password, or to make a key of it, took more than {limit_s:.0f} s of processor"
                " time. Set the password anew with less stretching, where there is more time."
            ) from error
        finally:
            self._free()
            await self._stop()

    async def _serve(self, message: job.Message) -> None:
        """Do what the worker needs before it can give a result."""
        if "begun" in message:
            self._patience.pid = _number(message, "begun")
        elif message.get("need") == "processor":
            self._patience.held_up = "waiting for a processor"
            await self._processors.acquire()
            self._patience.held_up = ""
            limit_s = cast("float | None", message.get("limit_s"))
            self._held = _Held(self._loop.time(), limit_s, cast("int", message.get("threads", 1)))
            await self._send({"granted": "processor"})
        elif message.get("free") == "processor":
            self._free()
        elif "progress" in message:
            if self._caller.on_progress is not None:
                self._caller.on_progress(_object(message, "progress"))
        elif "ask" in message:
            # Beside, so that the end of the worker is noticed meanwhile.
            self._start(self._answer(str(message["ask"]), _object(message, "about")))
        else:
            raise job.ProtocolError(f"unexpected message with keys {sorted(message)}")

    async def _answer(self, question: str, about: job.Message) -> None:
        try:
            if self._caller.on_question is None:
                raise job.ProtocolError(f"nobody answers {question}")
            reply: job.Message = {"answer": await self._caller.on_question(question, about)}
        except errors.HomeError as error:
            reply = job.failure(error)
        except Exception as error:  # noqa: BLE001 -- a bug: the worker would wait for ever
            log.error("Bug in the answer to %s: %s", question, type(error).__name__)
            reply = job.failure(errors.HomeError("Internal error; the log has more."))
        await self._send(reply)

    async def _call_off(self, cancelled: asyncio.Event) -> None:
        await cancelled.wait()
        await self._send({"cancel": True})

    async def _send(self, message: job.Message) -> None:
        async with self._sending:
            await self._loop.sock_sendall(self._sock, job.pack(message))

    def _start(self, step: Coroutine[None, None, None]) -> None:
        self._beside.add(self._loop.create_task(step))

    async def _stop(self) -> None:
        for task in self._beside:
            task.cancel()
        # A worker that died is told of by hold(), whatever could not be sent to it.
        await asyncio.gather(*self._beside, return_exceptions=True)

    def _free(self) -> None:
        if self._held is not None:
            self._held = None
            self._processors.release()

    async def _receive(self) -> job.Message:
        await self._fill(job.HEADER.size)
        end = job.HEADER.size + job.body_length(bytes(self._received[: job.HEADER.size]))
        await self._fill(end)
        body = bytes(self._received[job.HEADER.size : end])
        del self._received[:end]
        self._patience.heard()
        return job.unpack(body)

    async def _fill(self, count: int) -> None:
        while len(self._received) < count:
            chunk = await self._loop.sock_recv(self._sock, 65536)
            if not chunk:
                raise EOFError
            self._received += chunk


def _object(message: job.Message, name: str) -> job.Message:
    value = message.get(name)
    if not isinstance(value, dict):
        raise job.ProtocolError(f"{name} is no object")
    return value


def _number(message: job.Message, name: str) -> int:
    value = message.get(name)
    if not isinstance(value, int):
        raise job.ProtocolError(f"{name} is no number")
    return value
