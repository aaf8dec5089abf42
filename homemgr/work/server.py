"""The job server: forks one worker for each job, with everything already imported.

Started by the composition root before the event loop exists, so that a fork
copies no loop and no threads. Ends when the daemon's end of the control socket
closes; workers that still run finish their step on their own.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket

from homemgr.work import worker

log = logging.getLogger(__name__)

#: Terminal and service-manager signals are the daemon's to act on; it ends us by closing.
_NOT_OURS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def start() -> socket.socket:
    """Fork the job server; returns the daemon's end of the control socket."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
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
    """Fork workers until the daemon closes its end of ``control``."""
    for number in _NOT_OURS:
        signal.signal(number, signal.SIG_IGN)
    # Ignored, so that the kernel reaps workers; nobody waits for them here.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        data, fds, _, _ = socket.recv_fds(control, 1, 1)
        if not data:
            return
        for fd in fds:
            with socket.socket(fileno=fd) as job_socket:
                _fork_worker(control, job_socket)


def _fork_worker(control: socket.socket, job_socket: socket.socket) -> None:
    try:
        if os.fork():
            return
    except OSError as error:
        # Closing its socket fails this job alone; without us every later one would.
        log.error("Cannot start a worker: %s", error.strerror)
        return
    code = 1
    try:
        control.close()
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        worker.run(job_socket)
        code = 0
    finally:
        # Never unwind into the server's loop, whatever happened.
        os._exit(code)
