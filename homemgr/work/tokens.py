"""Words that security tokens give for a record, asked for in a process that is for that alone.

A token may hang or need a touch that nobody gives, its driver may crash or leave anything
in memory: so the worker has a child do it, which it ends after a while and which ends with it.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import time
from contextlib import closing
from typing import TYPE_CHECKING, Final, NoReturn

from homemgr import errors, job
from homemgr.kernel import capabilities, process

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator, Sequence

    from homemgr.record.effective import EffectiveRecord
    from homemgr.record.secret import Secret

    #: A word that a token gave, or why it gave none.
    Answer = str | errors.HomeError

log = logging.getLogger(__name__)

#: For all tokens of one record: a token waits 30 s for a touch, and homectl for 120 s for us.
_LIMIT_S: Final = 100.0

#: What ps(1) shows of the process that asks.
NAME: Final = "homemgrd-token"
_PIPE: Final = 3


class TokenWords:
    """What tokens have said during one job: each is asked once, however many records it unlocks."""

    def __init__(self, verify: Callable[[str, str], bool]) -> None:
        """``verify(word, hash)`` judges what they say."""
        self._verify = verify
        self.words: list[str] = []

    def unlock(self, effective: EffectiveRecord, secret: Secret) -> errors.HomeError | None:
        """None if a token unlocks the record, else the failure that counts most.

        Asks with the PINs and permissions in ``secret``.
        """
        if any(self._verify(w, h) for h in effective.token_hashes for w in self.words):
            return None
        failures = []
        with closing(_answers(effective, effective.token_hashes, secret)) as answers:
            for hashed, answer in answers:
                found = self._judged(hashed, answer)
                if found is None:
                    return None
                failures.append(found)
        return worst(failures)

    def require_all(self, effective: EffectiveRecord, secret: Secret) -> None:
        """Have the words of all of the record's tokens in ``words``, or raise what is missing.

        Those that are among the passwords in ``secret`` are not asked for.
        """
        known = (*self.words, *secret.passwords)
        missing = [h for h in effective.token_hashes if not any(self._verify(w, h) for w in known)]
        with closing(_answers(effective, missing, secret)) as answers:
            for hashed, answer in answers:
                found = self._judged(hashed, answer)
                if found is not None:
                    raise found

    def _judged(self, hashed: str, answer: Answer) -> errors.HomeError | None:
        if isinstance(answer, errors.HomeError):
            return answer
        if not self._verify(answer, hashed):
            return errors.BadPasswordAndNoToken("The security token has another key by now.")
        self.words.append(answer)
        return None


def _answers(
    effective: EffectiveRecord, hashes: Sequence[str], secret: Secret
) -> Generator[tuple[str, Answer], None, None]:
    """The answer for each entry with one of ``hashes``, as they come."""
    keys = [entry for entry in effective.pkcs11_keys if entry["hashedPassword"] in hashes]
    salts = [entry for entry in effective.fido2_salts if entry["hashedPassword"] in hashes]
    hashed = [*(k["hashedPassword"] for k in keys), *(str(s["hashedPassword"]) for s in salts)]
    if not hashed:
        return

    def ask() -> Iterator[Answer]:
        # Loaded only by who asks a token, for the memory it takes.
        from homemgr.token.answers import Given, answers

        told = secret.flags
        given = Given(
            secret.token_pins,
            enters_pin=told.get("pkcs11ProtectedAuthenticationPathPermitted", False),
            touches=told.get("fido2UserPresencePermitted", False),
            is_recognised=told.get("fido2UserVerificationPermitted", False),
        )
        return answers(keys, salts, given)

    with closing(apart(ask, len(hashed), _LIMIT_S)) as replies:
        yield from zip(hashed, replies, strict=True)


def worst(failures: list[errors.HomeError]) -> errors.HomeError:
    """The one that counts most. What is no answer of a token is told to the log."""
    order = errors.TOKEN_FAILURES
    for failure in failures:
        if not isinstance(failure, order):
            log.warning("A security token cannot be asked: %s", failure)
    known = [failure for failure in failures if isinstance(failure, order)]
    if not known:
        return errors.BadPasswordAndNoToken("No security token could be asked.")
    return min(known, key=lambda failure: order.index(type(failure)))


# -- the process ---------------------------------------------------------------------------


def apart(
    ask: Callable[[], Iterator[Answer]], count: int, limit_s: float
) -> Generator[Answer, None, None]:
    """What ``ask`` gives in a process of its own, ``count`` times; that process ends with us.

    What it has not said after ``limit_s`` is TokenActionTimeout; after its death NotSupported.
    """
    parent = os.getpid()
    ours, theirs = os.pipe()
    pid = os.fork()
    if not pid:
        _live(ask, theirs, parent)
    os.close(theirs)
    with os.fdopen(ours, "rb", buffering=0) as pipe:
        try:
            yield from _heard(pipe.fileno(), count, time.monotonic() + limit_s)
        finally:
            # Whatever it still waits for, nobody wants its answer any more.
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)


def _heard(fd: int, count: int, deadline: float) -> Iterator[Answer]:
    received = b""
    silence: errors.HomeError | None = None
    for _ in range(count):
        while silence is None and b"\n" not in received:
            more, silence = _more(fd, deadline)
            received += more
        line, is_whole, received = received.partition(b"\n")
        if is_whole:
            yield _told(json.loads(line))
        else:
            assert silence is not None
            yield silence


def _more(fd: int, deadline: float) -> tuple[bytes, errors.HomeError | None]:
    """What comes next, or why nothing does."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    if not poll.poll(max(deadline - time.monotonic(), 0) * 1000):
        return b"", errors.TokenActionTimeout("The security token did not answer in time.")
    data = os.read(fd, 65536)
    died = errors.NotSupported("the process that asked it, with its driver, died")
    return data, None if data else died


def _telling(answer: Answer) -> job.Message:
    return job.failure(answer) if isinstance(answer, errors.HomeError) else {"word": answer}


def _told(message: job.Message) -> Answer:
    return job.revive(message["error"]) if "error" in message else str(message["word"])


def _live(ask: Callable[[], Iterator[Answer]], pipe: int, parent: int) -> NoReturn:
    """The life of that process."""
    try:
        # The devices are root's, as whom it goes on; nothing else of root's power is needed.
        capabilities.give_up_all()
        process.end_with_parent(parent)
        process.set_name(NAME)
        # Neither the home nor the daemon's socket is a driver's business.
        os.dup2(pipe, _PIPE)
        os.closerange(_PIPE + 1, os.sysconf("SC_OPEN_MAX"))
        for answer in ask():
            os.write(_PIPE, json.dumps(_telling(answer)).encode() + b"\n")
    except Exception as error:  # noqa: BLE001 -- a bug: the log gets what, as its text may quote a PIN
        log.error("Bug in the process for security tokens: %s", type(error).__name__)
    finally:
        os._exit(0)
