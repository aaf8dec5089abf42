"""The job server: without room for another process, and with a worker that talks."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
import socket
import time

import pytest

from homemgr import errors
from homemgr.daemon.jobs import JobRunner
from homemgr.job import Message
from homemgr.work import server, worker
from homemgr.work.task import Task

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


def test_real_worker_tells_and_asks_and_is_called_off(monkeypatch: pytest.MonkeyPatch) -> None:
    def long(task: Task) -> dict[str, object]:
        task.channel.progress({"pid": os.getpid()})
        told = task.channel.ask("how many", {"of": task.text("what")})
        while True:
            time.sleep(0.01)
            task.channel.progress(told)
            task.channel.require_wanted()

    monkeypatch.setitem(worker.VERBS, "long", long)

    async def run() -> list[Message]:
        runner, cancelled = JobRunner(control), asyncio.Event()
        told: list[Message] = []

        async def answer(question: str, about: Message) -> Message:
            return {question: [about["of"], os.getpid()]}

        def hear(message: Message) -> None:
            told.append(message)
            if len(told) == 3:
                cancelled.set()

        try:
            with pytest.raises(errors.Cancelled):
                await runner.run(
                    "long",
                    {"what": "homes"},
                    on_progress=hear,
                    on_question=answer,
                    cancelled=cancelled,
                )
        finally:
            runner.close()
        return told

    control = server.start()
    first, second, *_ = asyncio.run(run())
    os.wait()
    assert first["pid"] != os.getpid()
    assert second == {"how many": ["homes", os.getpid()]}
