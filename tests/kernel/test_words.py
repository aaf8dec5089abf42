"""Which of the words that unlock a home nobody can guess."""

from __future__ import annotations

import socket

from homemgr import job
from homemgr.work.task import Task

RECOVERY_KEY = "-".join(["cbdefghi", "jklnrtuv"] * 4)
WORD, PASSWORD = "made by a token", "made by a person"


def test_words_of_tokens_and_recovery_keys_are_random() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        task = Task(job.Request("passwd", {}), [], job.Channel(theirs))
        task.token_words.words.append(WORD)
        found = task.words([PASSWORD, RECOVERY_KEY, WORD])
    assert found.words == (PASSWORD, RECOVERY_KEY, WORD)
    assert found.random == {RECOVERY_KEY, WORD}
    assert WORD not in repr(found)
