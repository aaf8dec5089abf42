"""What a daemon and the worker of a long job say to each other before there is a result."""

from __future__ import annotations

import asyncio
import os
import select
import socket
import tempfile
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from homemgr import errors, job
from homemgr.daemon import jobs, patience
from homemgr.daemon.jobs import JobRunner

Verb = Callable[[job.Channel, job.Request], job.Message]


def next_job(control: socket.socket) -> socket.socket:
    """The socket of the job that comes next."""
    _, fds, _, _ = socket.recv_fds(control, 1, 1)
    return socket.socket(fileno=fds[0])


async def run_by(verb: Verb, use: Callable[[JobRunner], Awaitable[job.Message]]) -> job.Message:
    """Use a runner whose one job is done by ``verb``, in a thread in the place of a process."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def work() -> None:
        with next_job(theirs) as sock:
            channel = job.Channel(sock)
            request, _ = channel.receive()
            channel.begin()
            try:
                answer: job.Message = {"result": verb(channel, request)}
            except errors.HomeError as error:
                answer = job.failure(error)
            except EOFError:
                return
            channel.send(answer)

    with ours, theirs, ThreadPoolExecutor(1) as threads:
        working = asyncio.get_running_loop().run_in_executor(threads, work)
        try:
            return await use(JobRunner(ours, processors=1))
        finally:
            await working


def test_progress_is_told_in_its_order_before_the_result() -> None:
    told: list[job.Message] = []

    def copy(channel: job.Channel, request: job.Request) -> job.Message:
        for done in range(3):
            channel.progress({"done": done, "of": request.arguments["files"]})
        return {"copied": 3}

    def use(runner: JobRunner) -> Awaitable[job.Message]:
        return runner.run("copy", {"files": 3}, on_progress=told.append)

    assert asyncio.run(run_by(copy, use)) == {"copied": 3}
    assert told == [{"done": n, "of": 3} for n in range(3)]


def test_progress_that_nobody_wants_to_hear_is_no_failure() -> None:
    def copy(channel: job.Channel, _request: job.Request) -> job.Message:
        channel.progress({"done": 1})
        return {}

    assert asyncio.run(run_by(copy, lambda runner: runner.run("copy", {}))) == {}


def test_a_worker_gets_the_answer_to_its_question() -> None:
    async def answer(question: str, about: job.Message) -> job.Message:
        await asyncio.sleep(0.01)
        return {question: about["of"]}

    def compare(channel: job.Channel, _request: job.Request) -> job.Message:
        return {"told": [channel.ask("digest", {"of": name})["digest"] for name in "ab"]}

    def use(runner: JobRunner) -> Awaitable[job.Message]:
        return runner.run("compare", {}, on_question=answer)

    assert asyncio.run(run_by(compare, use)) == {"told": ["a", "b"]}


def ask(channel: job.Channel, _request: job.Request) -> job.Message:
    """A job that gives what it is told."""
    return channel.ask("which", {})


def test_a_question_is_answered_with_a_failure() -> None:
    async def refuse(_question: str, _about: job.Message) -> job.Message:
        raise errors.NoSuchHome("no alice here")

    def use(runner: JobRunner) -> Awaitable[job.Message]:
        return runner.run("ask", {}, on_question=refuse)

    with pytest.raises(errors.NoSuchHome, match="no alice here"):
        asyncio.run(run_by(ask, use))


def test_a_bug_in_the_answer_and_a_question_to_nobody_let_the_worker_end() -> None:
    async def stumble(_question: str, _about: job.Message) -> job.Message:
        raise ZeroDivisionError("a secret may be in here")

    for on_question in (stumble, None):

        def use(runner: JobRunner) -> Awaitable[job.Message]:
            return runner.run("ask", {}, on_question=on_question)  # noqa: B023 -- used at once

        with pytest.raises(errors.HomeError, match="Internal error; the log has more"):
            asyncio.run(run_by(ask, use))


def test_a_worker_that_dies_while_it_waits_for_an_answer_is_noticed() -> None:
    calls: list[str] = []
    heard = threading.Event()

    async def never(_question: str, _about: job.Message) -> job.Message:
        heard.set()
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            calls.append("given up")
            raise
        return {}

    def die(channel: job.Channel, _request: job.Request) -> job.Message:
        channel.send({"ask": "which", "about": {}})
        heard.wait(60)
        raise EOFError

    def use(runner: JobRunner) -> Awaitable[job.Message]:
        return runner.run("ask", {}, on_question=never)

    with pytest.raises(errors.HomeError, match="died unexpectedly"):
        asyncio.run(run_by(die, use))
    assert calls == ["given up"]


@pytest.mark.parametrize(("limit_s", "said"), [(0.02, "time limit"), (60.0, "died unexpectedly")])
def test_a_worker_that_used_up_its_time_is_told_from_others(limit_s: float, said: str) -> None:
    def die(channel: job.Channel, _request: job.Request) -> job.Message:
        # It never says that it needs the processor no more.
        channel.send({"need": "processor", "limit_s": limit_s, "threads": 1})
        time.sleep(0.1)
        raise EOFError

    with pytest.raises(errors.WorkerDied, match=said):
        asyncio.run(run_by(die, lambda runner: runner.run("check", {})))


async def cancel_soon(runner: JobRunner) -> job.Message:
    """Call a job off once it told that it began; it is asked nothing that has an answer."""
    cancelled = asyncio.Event()

    async def never(_question: str, _about: job.Message) -> job.Message:
        await asyncio.sleep(3600)
        return {}

    return await runner.run(
        "long",
        {},
        on_progress=lambda _told: cancelled.set(),
        on_question=never,
        cancelled=cancelled,
    )


def test_a_job_between_two_steps_learns_that_it_is_called_off() -> None:
    def work(channel: job.Channel, _request: job.Request) -> job.Message:
        channel.require_wanted()
        channel.progress({})
        select.select([channel], [], [], 60)
        channel.require_wanted()
        return {"done": True}

    with pytest.raises(errors.Cancelled):
        asyncio.run(run_by(work, cancel_soon))


def test_a_job_that_waits_for_an_answer_learns_that_it_is_called_off() -> None:
    def work(channel: job.Channel, request: job.Request) -> job.Message:
        channel.progress({})
        return ask(channel, request)

    with pytest.raises(errors.Cancelled):
        asyncio.run(run_by(work, cancel_soon))


def test_a_job_that_does_not_ask_whether_it_is_wanted_is_done_all_the_same() -> None:
    def work(channel: job.Channel, _request: job.Request) -> job.Message:
        channel.progress({})
        select.select([channel], [], [], 60)
        return {"done": True}

    assert asyncio.run(run_by(work, cancel_soon)) == {"done": True}


def test_a_job_learns_that_its_daemon_is_gone() -> None:
    ended: list[str] = []

    def work(channel: job.Channel, _request: job.Request) -> job.Message:
        channel.progress({})
        select.select([channel], [], [], 60)
        try:
            channel.require_wanted()
        except EOFError:
            ended.append("the daemon is gone")
            raise
        return {}

    async def give_up(runner: JobRunner) -> job.Message:
        began = asyncio.Event()
        running = asyncio.ensure_future(
            runner.run("long", {}, on_progress=lambda _told: began.set())
        )
        await began.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        return {}

    asyncio.run(run_by(work, give_up))
    assert ended == ["the daemon is gone"]


def run_with_deaths(deaths: int, *, began: bool) -> job.Message:
    """Run a job whose first workers die, before or after they said that they began it."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    def work() -> None:
        for number in range(deaths + 1):
            try:
                sock = next_job(theirs)
            except IndexError:
                return
            with sock:
                channel = job.Channel(sock)
                request, fds = channel.receive()
                with fds[0]:
                    told = os.read(fds[0].fileno(), 10).decode()
                if began or number == deaths:
                    channel.begin()
                if number == deaths:
                    about = request.arguments["what"]
                    channel.send({"result": {"what": about, "told": told}})

    async def run() -> job.Message:
        with tempfile.TemporaryFile() as file:
            file.write(b"123456789")
            file.flush()
            file.seek(0)
            return await JobRunner(ours).run("try", {"what": 1}, [file.fileno()])

    with theirs, ThreadPoolExecutor(1) as threads:
        threads.submit(work)
        with ours:
            return asyncio.run(run())


def test_a_job_that_was_not_begun_is_given_to_another_worker_as_a_whole() -> None:
    assert run_with_deaths(1, began=False) == {"what": 1, "told": ""}


def test_a_job_is_tried_no_more_than_twice() -> None:
    with pytest.raises(errors.WorkerDied):
        run_with_deaths(2, began=False)


def test_a_job_that_was_begun_is_not_tried_again() -> None:
    with pytest.raises(errors.WorkerDied):
        run_with_deaths(1, began=True)


def test_the_log_tells_what_a_silent_worker_waits_for(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(patience, "SILENCE_S", 0.05)
    told = threading.Event()

    def hang(_channel: job.Channel, _request: job.Request) -> job.Message:
        assert told.wait(60)
        return {}

    async def wait(runner: JobRunner) -> job.Message:
        running = asyncio.ensure_future(runner.run("hang", {}, about="anna"))
        while not caplog.messages:
            await asyncio.sleep(0.01)
        told.set()
        return await running

    asyncio.run(run_by(hang, wait))
    assert caplog.messages[0].startswith(
        f"Job hang of anna: nothing heard for 0 s (process {os.getpid()}, "
    )


def test_jobs_that_hang_do_not_keep_others_from_running(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "SILENCE_S", 0.05)
    monkeypatch.setattr(jobs, "MAX_JOBS", 1)
    monkeypatch.setattr(jobs, "_MANY_JOBS", 1)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    async def run() -> job.Message:
        runner = JobRunner(ours)
        hanging = asyncio.ensure_future(runner.run("hang", {}))
        await asyncio.sleep(0)
        assert runner.is_busy
        with next_job(theirs):
            done = asyncio.ensure_future(runner.run("work", {}))
            with await asyncio.to_thread(next_job, theirs) as sock:
                job.Channel(sock).send({"result": {"done": 1}})
            result = await done
            assert not hanging.done()
            assert not runner.is_busy
            hanging.cancel()
        await asyncio.gather(hanging, return_exceptions=True)
        return result

    with ours, theirs:
        assert asyncio.run(run()) == {"done": 1}
