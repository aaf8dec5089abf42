"""A step in a process of its own: what it gives, and that nobody waits for one not wanted."""

from __future__ import annotations

import os
import signal
import socket
import time
from typing import TYPE_CHECKING

import pytest

from homemgr import errors, job
from homemgr.work.apart import apart

if TYPE_CHECKING:
    from collections.abc import Iterator

LONG_S = 60.0


@pytest.fixture
def line() -> Iterator[tuple[socket.socket, job.Channel]]:
    """The daemon's end of a job, and the worker's."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, job.Channel(theirs)


def has_no_child() -> bool:
    try:
        os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return True
    return False


def test_its_result_and_its_failure_are_the_callers(
    line: tuple[socket.socket, job.Channel],
) -> None:
    def fail() -> job.Message:
        raise errors.NoDiskSpace("There is none.")

    def fail_below() -> job.Message:
        raise PermissionError(1, "no")

    assert apart(line[1], lambda: {"pid": os.getpid()})["pid"] != os.getpid()
    with pytest.raises(errors.NoDiskSpace, match="There is none"):
        apart(line[1], fail)
    with pytest.raises(errors.HomeError):
        apart(line[1], fail_below)
    assert has_no_child()


def wait() -> job.Message:
    time.sleep(LONG_S)
    return {}


def test_it_ends_at_once_when_the_job_is_called_off(
    line: tuple[socket.socket, job.Channel],
) -> None:
    ours, channel = line
    ours.sendall(job.pack({"cancel": True}))
    began = time.monotonic()
    with pytest.raises(errors.Cancelled):
        apart(channel, wait)
    assert time.monotonic() - began < LONG_S / 2
    assert has_no_child()


def test_it_ends_with_the_daemon(line: tuple[socket.socket, job.Channel]) -> None:
    ours, channel = line
    ours.close()
    with pytest.raises(EOFError):
        apart(channel, wait)
    assert has_no_child()


def test_one_that_is_killed_is_told_of(line: tuple[socket.socket, job.Channel]) -> None:
    def die() -> job.Message:
        os.kill(os.getpid(), signal.SIGKILL)
        return {}

    with pytest.raises(errors.WorkerDied):
        apart(line[1], die)
