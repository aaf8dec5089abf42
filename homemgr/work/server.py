"""The job server: jobs are done by processes of their own, one at a time in each.

Started by the composition root before the event loop exists, so that a fork
copies no loop and no threads; a spare worker always waits, with everything
imported. Ends when the daemon's end of the control socket closes; workers that
still run finish their step on their own.
"""

from __future__ import annotations

import gc
import math
import os
import select
import signal
import socket
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from homemgr import crypt, job
from homemgr.extension import shelf
from homemgr.extension.shelf import Shelf
from homemgr.files import Fd
from homemgr.kernel import keyring, memory, process
from homemgr.work import worker
from homemgr.work.crew import READY, Crew
from homemgr.work.rehearsal import Rehearsal

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Terminal and service-manager signals are the daemon's to act on; it ends us by closing.
_NOT_OURS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

#: A new worker rehearses unless it is needed within this time.
_PAUSE_S = 0.005

#: Jobs that one worker does at most: what may be left of each must not add up.
_JOBS = 100

#: What ps(1) shows of a worker that waits for a job, and of one that has one.
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
        # Never back into the code of the daemon, of which this process is a copy.
        os._exit(code)


def serve(control: socket.socket) -> None:
    """Hand jobs to workers until the daemon closes its end of ``control``."""
    for number in _NOT_OURS:
        signal.signal(number, signal.SIG_IGN)
    # Ignored, so that the kernel reaps workers; nobody waits for them here.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    # What one worker keeps there others find, and nobody else; it goes with the last of them.
    with suppress(OSError):
        keyring.begin()
    JobServer(control).run()


class JobServer:
    """Takes jobs from the daemon and hands them to its crew, with what others have mounted."""

    def __init__(self, control: socket.socket) -> None:
        """Take jobs from ``control``."""
        self._control = control
        self._rehearsal = Rehearsal()
        self._crew = Crew(self._live, self._hand_over)
        #: What workers mounted and others can use, oldest first; and how it gets here.
        self._mounts: dict[str, Fd] = {}
        self._returns, self._leaving = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def run(self) -> None:
        """Return when the other end of the control socket is closed."""
        while True:
            within_s = self._crew.tend()
            waiting = _readable([self._returns, *self._crew.sockets(), self._control], within_s)
            for sock in waiting:
                # First: what a job mounted is there before what its caller does next.
                if sock is self._returns:
                    self._keep()
                elif sock is not self._control:
                    self._crew.hear(sock)
                elif not self._serve():
                    return

    def _serve(self) -> bool:
        """Do what the daemon asks for; False if it has closed its end."""
        data, fds, _, _ = socket.recv_fds(self._control, 1, 1)
        if data == job.FORGET_MOUNTS:
            self._forget(len(self._mounts))
        for fd in fds:
            self._crew.add(socket.socket(fileno=fd))
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

    def _hand_over(self, to: socket.socket, job_socket: socket.socket) -> None:
        """Send a worker its job, and the mounts that are there by now."""
        fds = [job_socket.fileno(), *(mount.fileno() for mount in self._mounts.values())]
        socket.send_fds(to, ["\n".join(["", *self._mounts]).encode()], fds)

    # -- in a worker -------------------------------------------------------------------

    def _live(self, waiting: socket.socket) -> None:
        """The life of a worker: jobs come over ``waiting``, one at a time."""
        self._control.close()
        self._returns.close()
        # They come with each job, as they are then: what the server lets go of has to go.
        self._forget(len(self._mounts))
        # Jobs wait for what they fork; ignored, the kernel would have reaped it before.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        process.set_name(SPARE)
        # A job that is there already does not wait for it.
        if not _readable([waiting], _PAUSE_S):
            self._rehearsal.run()
        for _ in range(_JOBS):
            if not self._work(waiting):
                return
            process.set_name(SPARE)
            try:
                waiting.send(READY)
            except ConnectionError:
                return

    def _work(self, waiting: socket.socket) -> bool:
        """Wait for a job and do it; whether another one may follow."""
        data, fds, _, _ = socket.recv_fds(waiting, _NAMES_BYTES, 1 + shelf.LIMIT)
        if not fds:
            return False
        process.set_name(BUSY)
        mounts = dict(zip(data.decode().split("\n")[1:], map(Fd, fds[1:]), strict=True))
        with ExitStack() as closing, socket.socket(fileno=fds[0]) as job_socket:
            for mount in mounts.values():
                closing.callback(mount.close)
            return worker.run(job_socket, Shelf(mounts, self._leave))

    def _leave(self, name: str, mount: Fd) -> None:
        """In a worker: leave a mount for others, if there is room."""
        with suppress(OSError):
            # The caller does not wait for it: what is not left is only mounted once more.
            self._leaving.setblocking(False)  # noqa: FBT003 -- its only form
            socket.send_fds(self._leaving, [name.encode()], [mount.fileno()])


def _readable(
    sockets: Sequence[socket.socket], within_s: float | None = None
) -> list[socket.socket]:
    """Those of ``sockets`` that have something to say, in their order."""
    # Not select(2): jobs that hang may be many, and so are their descriptors then.
    poll = select.poll()
    for sock in sockets:
        poll.register(sock, select.POLLIN)
    # Rounded up: what is due by the clock must not be asked for once more.
    found = {fd for fd, _ in poll.poll(None if within_s is None else math.ceil(within_s * 1000))}
    return [sock for sock in sockets if sock.fileno() in found]
