"""The job server on a machine that has no room for another process."""

from __future__ import annotations

import os
import resource
import signal
import socket

from homemgr.work import server

#: A user that runs nothing else.
STRANGER = 60_777


def test_worker_that_cannot_be_started_fails_its_own_job_only() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    child = os.fork()
    if child == 0:
        try:
            ours.close()
            os.setresuid(STRANGER, STRANGER, STRANGER)
            resource.setrlimit(resource.RLIMIT_NPROC, (1, 1))
            server.serve(theirs)
            os._exit(7)
        finally:
            os._exit(8)
    theirs.close()
    try:
        for _ in range(2):
            job, of_worker = socket.socketpair()
            with job:
                with of_worker:
                    socket.send_fds(ours, [b"j"], [of_worker.fileno()])
                job.settimeout(10)
                assert job.recv(1) == b""
        ours.close()
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 7
    finally:
        ours.close()
        if os.path.exists(f"/proc/{child}"):
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
