"""Two workers of two services: never at once on one home."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest

from homemgr import errors, job
from homemgr.work import exclusion
from homemgr.work.task import Task
from tests.kernel.jobs import Worker


def test_worker_of_a_later_service_waits_for_one_that_still_runs(area: Path) -> None:
    alice = Worker(area)
    alice.run("create")
    done: list[float] = []

    def authenticate() -> None:
        alice.run("authenticate")
        done.append(time.monotonic())

    second = Thread(target=authenticate)
    with alice.held_up("authenticate"):
        second.start()
        second.join(1.0)
        assert done == []
        released = time.monotonic()
    second.join(10.0)
    assert done
    assert done[0] > released


@contextmanager
def task_of(name: str, lock_file: Path) -> Iterator[tuple[Task, socket.socket]]:
    """A job on one home, and the service's end of its socket."""
    ours, theirs = socket.socketpair()
    arguments: dict[str, object] = {"record": {"userName": name}, "lock_file": str(lock_file)}
    with ours, theirs:
        yield Task(job.Request("update", arguments), [], job.Channel(theirs)), ours


def test_worker_that_waited_in_vain_says_for_whom(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exclusion, "_PATIENCE_S", 0.1)
    path = tmp_path / "run" / "lock"
    with (
        task_of("alice", path) as (first, _),
        task_of("alice", path) as (second, _),
        task_of("bob", path) as (other, _),
    ):
        with exclusion.alone_with_home(first):
            with exclusion.alone_with_home(other):
                pass
            with (
                pytest.raises(errors.HomeBusy, match=r"alice.*homemgrd-job"),
                exclusion.alone_with_home(second),
            ):
                pass
        with exclusion.alone_with_home(second):
            pass


def test_worker_gives_up_waiting_when_its_own_service_is_gone(tmp_path: Path) -> None:
    with (
        task_of("alice", tmp_path / "lock") as (first, _),
        task_of("alice", tmp_path / "lock") as (second, its_service),
        exclusion.alone_with_home(first),
    ):
        its_service.close()
        with pytest.raises(EOFError), exclusion.alone_with_home(second):
            pass
