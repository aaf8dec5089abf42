"""Which of the words that unlock a home nobody can guess, and which of them came back."""

from __future__ import annotations

import dataclasses
import socket
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from homemgr import job
from homemgr.files import DIRECTORY_FLAGS, Fd
from homemgr.record import snapshots
from homemgr.record.machine import Machine
from homemgr.record.model import UserRecord
from homemgr.record.snapshots import Note
from homemgr.storage.snapshot_entry import write_note
from homemgr.storage.snapshot_shelf import DIRECTORY
from homemgr.work import former
from homemgr.work.task import Task

HERE = Machine("a" * 32, None, "/home")
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


def test_a_word_that_unlocks_what_is_kept_has_the_hash_of_then(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Task, "verify", lambda _, word, hashed: hashed == f"hash of {word}")
    monkeypatch.setattr(Task, "hash_password", lambda *_: "fresh")
    with TemporaryDirectory(dir="/run") as home_root:
        for number, how in enumerate((snapshots.IMAGE, snapshots.SHARED)):
            place = Path(home_root, DIRECTORY, "anna", f"s{number}")
            place.mkdir(0o700, parents=True)
            privileged = {"hashedPassword": [f"hash of {number}"]}
            record = UserRecord({"userName": "anna", "privileged": privileged})
            with Fd.open(str(place), DIRECTORY_FLAGS) as top:
                write_note(
                    top,
                    Note(f"s{number}", number, 0, "", is_automatic=True, how=how, record=record),
                )
        for directory in (Path(home_root, DIRECTORY), Path(home_root, DIRECTORY, "anna")):
            directory.chmod(0o700)
        ours, theirs = socket.socketpair()
        with ours, theirs:
            for storage, expected in (("luks", "hash of 0"), ("directory", "fresh")):
                image = {"imagePath": f"{home_root}/anna.home", "storage": storage}
                arguments = {
                    "record": UserRecord({"userName": "anna"}).with_binding(HERE.id, image).data,
                    "machine": dataclasses.asdict(HERE),
                    "former_hashes": ["hash of kept"],
                }
                task = Task(job.Request("passwd", arguments), [], job.Channel(theirs))
                found = [former.hash_of(task, word) for word in ("kept", "0", "1")]
                assert found == ["hash of kept", expected, "fresh"]
