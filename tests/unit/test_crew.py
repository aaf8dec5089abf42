"""Workers of the job server: who is given which job, and when one more is forked."""

from __future__ import annotations

import os
import select
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from homemgr.files import Fd
from homemgr.work import crew
from homemgr.work.crew import READY, Crew

if TYPE_CHECKING:
    from collections.abc import Iterator

#: What jobs of these tests have their workers do.
DONE, END, HANG = b"done", b"end", b"hang"


def live(waiting: socket.socket) -> None:
    """A worker: tells the pid to each job, and does what it says."""
    while fds := socket.recv_fds(waiting, 1, 1)[1]:
        with socket.socket(fileno=fds[0]) as job:
            job.send(str(os.getpid()).encode())
            word = job.recv(16)
            if word == HANG:
                job.recv(16)
        if word == END:
            return
        waiting.send(READY)


def hand_over(to: socket.socket, job: socket.socket) -> None:
    socket.send_fds(to, [b"j"], [job.fileno()])


class Bench:
    """A crew, a clock that the test moves, and our ends of the jobs."""

    def __init__(self, stack: ExitStack) -> None:
        self.now = 1000.0
        self.crew = Crew(self._live, hand_over, processors=1, clock=lambda: self.now)
        self._ours: list[socket.socket] = []
        self._stack = stack

    def _live(self, waiting: socket.socket) -> None:
        for not_its in self._ours:
            not_its.close()
        live(waiting)

    def begin(self) -> socket.socket:
        """A new job, before anybody was given it; our end."""
        ours, theirs = socket.socketpair()
        ours.settimeout(10)
        self._stack.callback(ours.close)
        self._ours.append(ours)
        self.crew.add(theirs)
        return ours

    def do(self, word: bytes = DONE) -> int:
        """A whole job; by which process it was done."""
        job = self.begin()
        self.crew.tend()
        return self.finish(job, word)

    def finish(self, job: socket.socket, word: bytes = DONE) -> int:
        """Let the worker of a job be done with it, and the crew hear of it."""
        pid = worker_of(job)
        job.send(word)
        self.hear()
        return pid

    def hear(self) -> None:
        """Wait until a worker has something to say, and pass it on."""
        readable, _, _ = select.select(self.crew.sockets(), [], [], 10)
        assert readable
        for sock in readable:
            self.crew.hear(sock)


def worker_of(job: socket.socket) -> int:
    return int(job.recv(16))


def is_waiting(job: socket.socket) -> bool:
    """Whether nobody has been given the job yet; nobody is just about to tell it, either."""
    return not select.select([job], [], [], 0.2)[0]


@pytest.fixture
def bench() -> Iterator[Bench]:
    with ExitStack() as stack:
        made = Bench(stack)
        yield made
        stack.close()
        for sock in made.crew.sockets():
            sock.close()
    while True:
        try:
            os.wait()
        except ChildProcessError:
            return


def test_a_worker_that_is_ready_does_the_next_job(bench: Bench) -> None:
    assert bench.do() == bench.do()


def test_a_worker_that_ended_does_no_other_job(bench: Bench) -> None:
    assert bench.do(END) != bench.do()
    assert bench.do() > 0


def test_two_jobs_at_once_have_two_workers(bench: Bench) -> None:
    first, second = bench.begin(), bench.begin()
    bench.crew.tend()
    assert worker_of(first) != worker_of(second)


def test_more_jobs_than_quick_workers_wait_for_the_first_that_returns(bench: Bench) -> None:
    jobs = [bench.begin() for _ in range(3)]
    bench.crew.tend()
    assert is_waiting(jobs[2])
    bench.now += 0.01
    pid = bench.finish(jobs[0])
    bench.crew.tend()
    assert worker_of(jobs[2]) == pid


def test_nobody_waits_for_workers_that_take_long(bench: Bench) -> None:
    jobs = [bench.begin() for _ in range(6)]
    bench.crew.tend()
    for job in jobs[:2]:
        worker_of(job)
        job.send(HANG)
    assert is_waiting(jobs[2])
    began = bench.now
    # As the server does it: first a worker ahead of the next job, then those who waited.
    while (due_s := bench.crew.tend()) is not None:
        bench.now += due_s + 0.001
    assert bench.now < began + 0.15
    assert len({worker_of(job) for job in jobs[2:]}) == 4


def test_a_fresh_worker_waits_soon_after_a_job_came(bench: Bench) -> None:
    job = bench.begin()
    due_s = bench.crew.tend()
    assert due_s is not None
    assert len(bench.crew.sockets()) == 1
    bench.now += due_s + 0.001
    assert bench.crew.tend() is None
    assert len(bench.crew.sockets()) == 2
    bench.finish(job)


def test_only_fresh_workers_wait_for_long(bench: Bench) -> None:
    first = bench.do()
    due_s = bench.crew.tend()
    assert due_s is not None
    bench.now += due_s + 0.001
    bench.crew.tend()
    assert len(bench.crew.sockets()) == 1
    assert bench.do() != first


def test_a_worker_killed_while_it_waits_is_replaced(bench: Bench) -> None:
    pid = bench.do()
    os.kill(pid, 9)
    os.waitpid(pid, 0)
    assert bench.do() != pid


def test_a_job_fails_alone_if_no_process_can_be_made(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patched:

        def fail() -> int:
            raise BlockingIOError(11, "Resource temporarily unavailable")

        patched.setattr(crew.os, "fork", fail)
        job = bench.begin()
        bench.crew.tend()
        assert job.recv(1) == b""
        bench.now += 1
        # Tried once more ahead of the next job, and then left alone.
        bench.crew.tend()
        assert bench.crew.tend() is None
    assert caplog.messages == ["No worker can be started: Resource temporarily unavailable"] * 2
    assert bench.do() > 0


def test_a_worker_has_no_socket_but_its_own(bench: Bench) -> None:
    kept = bench.begin()
    bench.crew.tend()
    other = bench.begin()
    bench.crew.tend()
    first, second = worker_of(kept), worker_of(other)
    found = {pid: sockets_of(pid) for pid in (first, second)}
    # Each has its own end of the way to the server, its job, and what the tests run with.
    before = sockets_of(os.getpid())
    for links in found.values():
        assert len(links - before) == 2
    for job in (kept, other):
        job.send(DONE)


def sockets_of(pid: int) -> set[str]:
    links = set()
    for number in os.listdir(f"/proc/{pid}/fd"):
        with_name = f"/proc/{pid}/fd/{number}"
        links.add(os.readlink(with_name) if os.path.islink(with_name) else "")
    return {link for link in links if link.startswith("socket:")}


def test_descriptors_are_all_closed_in_the_end() -> None:
    with Fd.open("/dev/null", os.O_RDONLY) as probe:
        lowest = probe.fileno()
    with ExitStack() as stack:
        made = Bench(stack)
        pid = made.do(END)
        os.waitpid(pid, 0)
    with Fd.open("/dev/null", os.O_RDONLY) as probe:
        assert probe.fileno() == lowest
