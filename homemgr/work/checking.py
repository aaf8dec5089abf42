"""Passwords against hashes in a job, and keys that are made of passwords: both take long.

What keeps a processor busy holds one of those that the service hands out, and is limited in
what it takes: users choose their own hashes, and how expensive it is to check them.
"""

from __future__ import annotations

import signal
import threading
from contextlib import contextmanager, nullcontext, suppress
from typing import TYPE_CHECKING, Final

from homemgr import crypt
from homemgr.kernel import address_space, memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from homemgr import job

    #: A word, and a hash that it may be behind.
    Pair = tuple[str, str]

#: Processor time for one check of a password. The slowest usual hashes take a tenth of it.
CHECK_S: Final = 3.0

#: What makes a key of a word is done by so many threads at most (`volume.luks.MOST_THREADS`), and a
#: check beside it by one more.
_THREADS: Final = 5


class Checks:
    """What one job has found out about words and hashes: nothing is computed twice."""

    def __init__(self, channel: job.Channel) -> None:
        """Have processors handed out over ``channel``."""
        self._channel = channel
        self._verdicts: dict[Pair, bool] = {}

    def verify(self, word: str, hashed: str) -> bool:
        """Whether ``word`` is the password behind ``hashed``; takes a processor meanwhile."""
        verdict = self._verdicts.get((word, hashed))
        if verdict is None:
            with self._channel.processor(CHECK_S), _limited(CHECK_S):
                verdict = self._judge((word, hashed))
        return verdict

    def hash_password(self, word: str, prefix: str | None) -> str:
        """A fresh hash; takes a processor meanwhile."""
        with self._channel.processor(), _memory_at_once():
            return crypt.hash_password(word, prefix)

    @contextmanager
    def working(
        self, expected: Iterable[Pair], seconds: float = CHECK_S, memory: int = 0
    ) -> Iterator[Callable[[str], bool]]:
        """Hold a processor while a key is made of a word, see `storage.kind.Working`.

        Beside it the first of the ``expected`` checks is made that was not made so far.
        """
        pairs = tuple(expected)
        pair = self._first_unknown(pairs)
        beside = nullcontext(_at_once) if pair is None else self._judging(pair)
        limit_s = seconds if pair is None else seconds + CHECK_S
        processor = self._channel.processor(limit_s, _THREADS)
        with processor, _limited(limit_s), address_space.raised(memory), beside as wait:

            def may_be_right(word: str) -> bool:
                wait()
                verdicts = [self._verdicts.get(pair) for pair in pairs if pair[0] == word]
                return not verdicts or any(verdict is not False for verdict in verdicts)

            yield may_be_right

    def _first_unknown(self, expected: Iterable[Pair]) -> Pair | None:
        """What is to be found out next, if none of those before is right."""
        for pair in expected:
            verdict = self._verdicts.get(pair)
            if verdict is not False:
                return pair if verdict is None else None
        return None

    @contextmanager
    def _judging(self, pair: Pair) -> Iterator[Callable[[], None]]:
        """Judge ``pair`` in another thread, by the end of the block; gives what waits for that.

        On the processor that this job holds: jobs that waited for a second one could all wait
        for each other. What the check takes is little beside what the block does.
        """

        def judge() -> None:
            # It fails once more when its verdict is asked for, and is told then.
            with suppress(OSError):
                self._judge(pair)

        thread = threading.Thread(target=judge)
        thread.start()
        try:
            yield thread.join
        finally:
            thread.join()

    def _judge(self, pair: Pair) -> bool:
        with _memory_at_once():
            verdict = self._verdicts[pair] = crypt.verify(*pair)
        return verdict


def _at_once() -> None:
    """Wait for nothing."""


@contextmanager
def _limited(seconds: float) -> Iterator[None]:
    """Let this process be killed if a check takes too long: libraries cannot be interrupted.

    Without a limit two users with hashes of their own could keep all processors from everybody
    else's logins.
    """
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


@contextmanager
def _memory_at_once() -> Iterator[None]:
    """Have libcrypt's work area allocated in one go, and never written to swap.

    It has 16 MiB: four thousand page faults would take nearly half the time of a check.
    """
    with memory.locked_when_new() if memory.may_lock_all() else nullcontext():
        yield
