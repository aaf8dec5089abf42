"""The workers of the job server: who waits, who works, and which jobs wait for one.

A worker that is done may be given the next job; a fork, its copies of pages and the end
of a process are a third of the processor time of a login otherwise. So when many log in
at once, few workers do it all. Only as long as they come back quickly, though: a job
waits for others that take their time no longer than a blink, whatever they hang on.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from collections import deque
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

log = logging.getLogger(__name__)

#: What a worker says when it could do another job.
READY = b"r"

#: A fresh worker is forked this long after the last job came, unless it is needed at once or
#: another came back: so that it takes no processor from the job that runs.
_PAUSE_S = 0.05

#: Workers that have had their job for less than this count as quick, and of them one for each
#: processor and this many more are enough: others would only take turns with them.
_QUICK_S = 0.1
_MORE_THAN_PROCESSORS = 1

#: How long a worker that has done jobs waits for more. What is left of passwords in its
#: memory is gone with it, and so is what it has allocated.
_KEPT_S = 1.0


@dataclass
class _Worker:
    """A worker process by its socket; since when it has waited, or worked."""

    sock: socket.socket
    since: float
    has_worked: bool = False


class Crew:
    """Owns all workers and the jobs that wait for one; single-threaded, never blocks.

    ``live`` is a worker's life, given its end of the socket: it receives what ``hand_over``
    sends, and says READY when it can do the next job. ``hand_over`` raises ConnectionError
    for a worker that is gone.
    """

    def __init__(
        self,
        live: Callable[[socket.socket], None],
        hand_over: Callable[[socket.socket, socket.socket], None],
        processors: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Fork nobody yet; ``clock`` counts seconds."""
        self._live = live
        self._hand_over = hand_over
        self._clock = clock
        self._quick = (processors or os.cpu_count() or 1) + _MORE_THAN_PROCESSORS
        self._idle: list[_Worker] = []
        self._busy: dict[socket.socket, _Worker] = {}
        self._jobs: deque[socket.socket] = deque()
        #: When something last happened that lets a job wait: it came first, or a worker returned.
        self._moved = self._last_job = self._clock()
        self._may_fork_ahead = True

    def sockets(self) -> list[socket.socket]:
        """Those that `hear` wants to know of when they are readable."""
        return [*self._busy, *(worker.sock for worker in self._idle)]

    def add(self, job_socket: socket.socket) -> None:
        """Take a job; owns its socket. `tend` sees to it."""
        self._last_job = self._clock()
        if not self._jobs:
            self._moved = self._last_job
        self._may_fork_ahead = True
        self._jobs.append(job_socket)

    def hear(self, sock: socket.socket) -> None:
        """A worker is ready for more, or gone."""
        word = b""
        # A worker that was killed says nothing, which below is as good as its end.
        with suppress(ConnectionError):
            word = sock.recv(1)
        worker = self._busy.pop(sock, None)
        if worker is not None and word == READY:
            self._moved = worker.since = self._clock()
            self._idle.append(worker)
            return
        self._idle = [other for other in self._idle if other.sock is not sock]
        sock.close()

    def tend(self) -> float | None:
        """Give jobs to workers, have one wait; returns in how many seconds to be called again."""
        self._employ()
        self._dismiss()
        now = self._clock()
        if not self._idle and self._may_fork_ahead and now >= self._last_job + _PAUSE_S:
            # Once for each job: a machine without room for a process is not asked all the time.
            self._may_fork_ahead = False
            with _told_if_it_fails():
                self._idle.append(_Worker(self._fork(), now))
        return self._due(now)

    def _due(self, now: float) -> float | None:
        """When time alone makes a difference."""
        moments = []
        if self._jobs:
            moments += [worker.since + _QUICK_S for worker in self._quick_ones(now)]
            moments.append(self._moved + _QUICK_S)
        if not self._idle and self._may_fork_ahead:
            moments.append(self._last_job + _PAUSE_S)
        moments += [worker.since + _KEPT_S for worker in self._idle if worker.has_worked]
        return max(min(moments) - now, 0.0) if moments else None

    def _employ(self) -> None:
        while self._jobs and self._may_employ(self._clock()):
            # None must inherit the job's socket, whose end is what tells the daemon of a death;
            # so it stays where a fork finds it until it is handed over.
            with self._jobs[0] as job_socket, _told_if_it_fails():
                try:
                    self._give(job_socket)
                finally:
                    self._jobs.popleft()

    def _may_employ(self, now: float) -> bool:
        has_stalled = now >= self._moved + _QUICK_S
        return bool(self._idle) or has_stalled or len(self._quick_ones(now)) < self._quick

    def _quick_ones(self, now: float) -> list[_Worker]:
        return [worker for worker in self._busy.values() if now < worker.since + _QUICK_S]

    def _give(self, job_socket: socket.socket) -> None:
        """Give the job to the worker that came last, whose memory is warm, or to a new one."""
        worker = self._idle.pop() if self._idle else self._hire()
        try:
            self._hand_over(worker.sock, job_socket)
        except ConnectionError:
            # Killed while it waited. If that happens twice, the job's socket tells the daemon.
            worker.sock.close()
            worker = self._hire()
            with suppress(ConnectionError):
                self._hand_over(worker.sock, job_socket)
        worker.since, worker.has_worked = self._clock(), True
        self._busy[worker.sock] = worker

    def _hire(self) -> _Worker:
        return _Worker(self._fork(), self._clock())

    def _dismiss(self) -> None:
        """Let go of those that have had nothing to do for a while; the next is a fresh one."""
        latest = self._clock() - _KEPT_S
        for worker in list(self._idle):
            if worker.has_worked and worker.since <= latest:
                self._idle.remove(worker)
                worker.sock.close()
                self._may_fork_ahead = True

    def _fork(self) -> socket.socket:
        """Fork a worker; returns the server's end of its socket."""
        with ExitStack() as on_failure:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            on_failure.enter_context(ours)
            on_failure.enter_context(theirs)
            is_server = os.fork() != 0
            on_failure.pop_all()
        if is_server:
            theirs.close()
            return ours
        code = 1
        try:
            for not_its in (ours, *self.sockets(), *self._jobs):
                not_its.close()
            self._live(theirs)
            code = 0
        finally:
            # Never unwind into the server's loop, whatever happened.
            os._exit(code)


@contextmanager
def _told_if_it_fails() -> Iterator[None]:
    """A machine without room for another process is no reason for this one to end."""
    try:
        yield
    except OSError as error:
        log.error("No worker can be started: %s", error.strerror)
