"""A step of a job in a process of its own, which is killed when the job is called off.

For a step that one system call of the kernel may hold up for minutes, and that leaves everything
in order wherever it is killed. Whoever waits for the home then waits no longer than for that.
"""

from __future__ import annotations

import json
import math
import os
import select
import signal
import time
from typing import TYPE_CHECKING

from homemgr import errors, job
from homemgr.files import Fd
from homemgr.kernel import process

if TYPE_CHECKING:
    from collections.abc import Callable


def apart(
    channel: job.Channel, step: Callable[[], job.Message], within_s: float = math.inf
) -> job.Message:
    """Do ``step`` and give its result; raises what it raises.

    Cancelled if the job is called off or that takes longer, EOFError if the daemon is gone: then
    it was killed.
    """
    ours, theirs = map(Fd, os.pipe2(os.O_CLOEXEC))
    parent = os.getpid()
    with ours:
        with theirs:
            pid = os.fork()
            if not pid:
                _be_the_step(parent, step, theirs)
        try:
            text = _read(ours, channel, time.monotonic() + within_s)
        except BaseException:
            # It is not ours to wait for any longer than the kernel takes to let go of it.
            os.kill(pid, signal.SIGKILL)
            raise
        finally:
            os.waitpid(pid, 0)
    return _result(text)


def _be_the_step(parent: int, step: Callable[[], job.Message], told: Fd) -> None:
    """Never returns: nothing of what the parent has to do at its end is to be done twice."""
    try:
        process.end_with_parent(parent)
        os.write(told.fileno(), json.dumps(_outcome(step)).encode())
    finally:
        os._exit(0)


def _outcome(step: Callable[[], job.Message]) -> job.Message:
    try:
        return {"result": step()}
    except errors.HomeError as error:
        return job.failure(error)
    except OSError as error:
        return job.failure(errors.from_os_error(error, "A step of the job failed"))


def _read(pipe: Fd, channel: job.Channel, deadline: float) -> bytes:
    """All that the step tells, unless nobody wants it any more."""
    text = b""
    poll = select.poll()
    for one in (pipe, channel):
        poll.register(one.fileno(), select.POLLIN)
    while True:
        left_s = max(0.0, deadline - time.monotonic())
        found = dict(poll.poll(None if left_s == math.inf else math.ceil(left_s * 1000)))
        if not found:
            raise errors.Cancelled
        if channel.fileno() in found:
            channel.require_wanted()
        if not (part := os.read(pipe.fileno(), 1 << 16)):
            return text
        text += part


def _result(text: bytes) -> job.Message:
    if not text:
        raise errors.WorkerDied("A step of the job died before it was done; the log has more.")
    message = json.loads(text)
    if "error" in message:
        raise job.revive(message["error"])
    result: job.Message = message["result"]
    return result
