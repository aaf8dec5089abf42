"""The job server: one worker process for each job, forked before the job comes.

Started by the composition root before the event loop exists, so that a fork
copies no loop and no threads; a spare worker always waits, with everything
imported. Ends when the daemon's end of the control socket closes; workers that
still run finish their step on their own.
"""

from __future__ import annotations

import gc
import logging
import os
import select
import signal
import socket
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

from homemgr import crypt
from homemgr.kernel import memory, process
from homemgr.work import worker
from homemgr.work.rehearsal import Rehearsal

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger(__name__)

#: Terminal and service-manager signals are the daemon's to act on; it ends us by closing.
_NOT_OURS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

#: The next worker is forked this long after a job came, and rehearses this long after its
#: fork, unless it is needed at once: so that it takes no processor from the job that runs.
_PAUSE_S = 0.005

#: What ps(1) shows of a worker that waits for a job, and of one that has its job.
SPARE, BUSY = "homemgrd-spare", "homemgrd-job"


def start() -> socket.socket:
    """Fork the job server; returns the daemon's end of the control socket."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    # At first use in each worker otherwise.
    crypt.preload()
    memory.may_lock_all()
    # What is imported by now is never collected again: its pages stay shared.
    gc.collect()
    gc.freeze()
    if os.fork():
        theirs.close()
        return ours
    ours.close()
    code = 1
    try:
        serve(theirs)
        code = 0
    finally:
        os._exit(code)


def serve(control: socket.socket) -> None:
    """Hand jobs to workers until the daemon closes its end of ``control``."""
    for number in _NOT_OURS:
        signal.signal(number, signal.SIG_IGN)
    # Ignored, so that the kernel reaps workers; nobody waits for them here.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    JobServer(control).run()


class JobServer:
    """Hands jobs to workers; owns the way to the one that waits."""

    def __init__(self, control: socket.socket) -> None:
        """Take jobs from ``control``."""
        self._control = control
        self._rehearsal = Rehearsal()
        self._spare: socket.socket | None = None

    def run(self) -> None:
        """Return when the other end of the control socket is closed."""
        while True:
            if self._spare is None and not _is_readable(self._control, _PAUSE_S):
                # None now; one is forked when a job comes.
                with _told_if_it_fails():
                    self._spare = self._fork()
            data, fds, _, _ = socket.recv_fds(self._control, 1, 1)
            if not data:
                return
            for fd in fds:
                # A job that gets no worker fails alone: its socket closes.
                with socket.socket(fileno=fd) as job_socket, _told_if_it_fails():
                    self._employ(job_socket)

    def _employ(self, job_socket: socket.socket) -> None:
        """Give the job to the worker that waits, or to a new one."""
        # None must inherit the job's socket, whose end is what tells the daemon of a death.
        spare, self._spare = self._spare or self._fork(job_socket), None
        with spare:
            try:
                socket.send_fds(spare, [b"j"], [job_socket.fileno()])
            except ConnectionError:
                # Killed while it waited. If that happens twice, the job's socket tells the daemon.
                with self._fork(spare, job_socket) as another, suppress(ConnectionError):
                    socket.send_fds(another, [b"j"], [job_socket.fileno()])

    def _fork(self, *inherited: socket.socket) -> socket.socket:
        """Fork a worker that waits for a job at the other end; it closes what it inherits."""
        with ExitStack() as on_failure:
            ours, theirs = socket.socketpair()
            on_failure.enter_context(ours)
            on_failure.enter_context(theirs)
            is_server = os.fork() != 0
            on_failure.pop_all()
        if is_server:
            theirs.close()
            return ours
        code = 1
        try:
            for not_its in (ours, self._control, *inherited):
                not_its.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._work_once(theirs)
            code = 0
        finally:
            # Never unwind into the server's loop, whatever happened.
            os._exit(code)

    def _work_once(self, waiting: socket.socket) -> None:
        """The life of a worker."""
        process.set_name(SPARE)
        if not _is_readable(waiting, _PAUSE_S):
            self._rehearsal.run()
        _, fds, _, _ = socket.recv_fds(waiting, 1, 1)
        for fd in fds:
            process.set_name(BUSY)
            with socket.socket(fileno=fd) as job_socket:
                worker.run(job_socket)


@contextmanager
def _told_if_it_fails() -> Iterator[None]:
    """A machine without room for another process is no reason for this one to end."""
    try:
        yield
    except OSError as error:
        log.error("No worker can be started: %s", error.strerror)


def _is_readable(sock: socket.socket, within_s: float) -> bool:
    readable, _, _ = select.select([sock], [], [], within_s)
    return bool(readable)
