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

from homemgr import crypt, job
from homemgr.extension import shelf
from homemgr.extension.shelf import Shelf
from homemgr.files import Fd
from homemgr.kernel import memory, process
from homemgr.work import worker
from homemgr.work.rehearsal import Rehearsal

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

log = logging.getLogger(__name__)

#: Terminal and service-manager signals are the daemon's to act on; it ends us by closing.
_NOT_OURS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

#: The next worker is forked this long after a job came, and rehearses this long after its
#: fork, unless it is needed at once: so that it takes no processor from the job that runs.
_PAUSE_S = 0.005

#: What ps(1) shows of a worker that waits for a job, and of one that has its job.
SPARE, BUSY = "homemgrd-spare", "homemgrd-job"

#: Room for the names of all kept mounts.
_NAMES_BYTES = 128 * (1 + shelf.LIMIT)


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
        #: What workers mounted and others can use, oldest first; and how it gets here.
        self._mounts: dict[str, Fd] = {}
        self._returns, self._leaving = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def run(self) -> None:
        """Return when the other end of the control socket is closed."""
        while True:
            if self._spare is None and not _readable([self._control], _PAUSE_S):
                # None now; one is forked when a job comes.
                with _told_if_it_fails():
                    self._spare = self._fork()
            waiting = _readable([self._returns, self._control])
            # First: what a job mounted is there before what its caller does next.
            if self._returns in waiting:
                self._keep()
            elif not self._serve():
                return

    def _serve(self) -> bool:
        """Do what the daemon asks for; False if it has closed its end."""
        data, fds, _, _ = socket.recv_fds(self._control, 1, 1)
        if data == job.FORGET_MOUNTS:
            self._forget(len(self._mounts))
        for fd in fds:
            # A job that gets no worker fails alone: its socket closes.
            with socket.socket(fileno=fd) as job_socket, _told_if_it_fails():
                self._employ(job_socket)
        return bool(data)

    def _keep(self) -> None:
        """Take a mount that a worker leaves for others; of two of one image the first."""
        name, fds, _, _ = socket.recv_fds(self._returns, _NAMES_BYTES, 1)
        for fd in map(Fd, fds):
            with ExitStack() as unless_kept:
                unless_kept.callback(fd.close)
                if name.decode() not in self._mounts:
                    self._forget(len(self._mounts) + 1 - shelf.LIMIT)
                    self._mounts[name.decode()] = Fd(fd.take())

    def _forget(self, count: int) -> None:
        for name in list(self._mounts)[: max(count, 0)]:
            self._mounts.pop(name).close()

    def _employ(self, job_socket: socket.socket) -> None:
        """Give the job to the worker that waits, or to a new one."""
        # None must inherit the job's socket, whose end is what tells the daemon of a death.
        spare, self._spare = self._spare or self._fork(job_socket), None
        with spare:
            try:
                self._send(spare, job_socket)
            except ConnectionError:
                # Killed while it waited. If that happens twice, the job's socket tells the daemon.
                with self._fork(spare, job_socket) as another, suppress(ConnectionError):
                    self._send(another, job_socket)

    def _send(self, spare: socket.socket, job_socket: socket.socket) -> None:
        fds = [job_socket.fileno(), *(mount.fileno() for mount in self._mounts.values())]
        socket.send_fds(spare, ["\n".join(["", *self._mounts]).encode()], fds)

    def _fork(self, *inherited: socket.socket) -> socket.socket:
        """Fork a worker that waits for a job at the other end; it closes what it inherits."""
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
            for not_its in (ours, self._control, self._returns, *inherited):
                not_its.close()
            for mount in self._mounts.values():
                # It gets those that are there when it gets a job.
                mount.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._work_once(theirs)
            code = 0
        finally:
            # Never unwind into the server's loop, whatever happened.
            os._exit(code)

    def _work_once(self, waiting: socket.socket) -> None:
        """The life of a worker."""
        process.set_name(SPARE)
        if not _readable([waiting], _PAUSE_S):
            self._rehearsal.run()
        data, fds, _, _ = socket.recv_fds(waiting, _NAMES_BYTES, 1 + shelf.LIMIT)
        if fds:
            process.set_name(BUSY)
            mounts = dict(zip(data.decode().split("\n")[1:], map(Fd, fds[1:]), strict=True))
            with socket.socket(fileno=fds[0]) as job_socket:
                worker.run(job_socket, Shelf(mounts, self._leave))

    def _leave(self, name: str, mount: Fd) -> None:
        """In a worker: leave a mount for others, if there is room."""
        with suppress(OSError):
            self._leaving.setblocking(False)  # noqa: FBT003 -- its only form
            socket.send_fds(self._leaving, [name.encode()], [mount.fileno()])


@contextmanager
def _told_if_it_fails() -> Iterator[None]:
    """A machine without room for another process is no reason for this one to end."""
    try:
        yield
    except OSError as error:
        log.error("No worker can be started: %s", error.strerror)


def _readable(
    sockets: Sequence[socket.socket], within_s: float | None = None
) -> list[socket.socket]:
    readable, _, _ = select.select(sockets, [], [], within_s)
    return readable
