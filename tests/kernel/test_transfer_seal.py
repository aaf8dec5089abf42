"""What arrives is what its origin sealed, whoever is between the two or sits at the other end."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from homemgr.errors import HomeError, StreamError
from homemgr.files import Fd
from homemgr.transfer import content, frames
from homemgr.transfer.frames import Frame
from homemgr.transfer.needs import needs_to_json
from homemgr.work.conversation import Conversation

from . import travels
from .test_transfer import RECEIVER, Pair, Side, export, import_
from .test_transfer import pair as pair  # a fixture

LARGE = 3 << 20


class Liar:
    """A sender that says what it likes, to a receiver of ours."""

    def __init__(self, pair: Pair) -> None:
        here, there = socket.socketpair()
        self._target = pair.target
        self.receiver = Side(pair.target, "receive", there, options={}, receiver=RECEIVER)
        self._incoming, self._outgoing = Fd(os.dup(here.fileno())), Fd(here.detach())
        self.talk = Conversation(self._incoming, self._outgoing, lambda: None)
        self.digest = ""
        self.size = {"files": 100, "bytes": 10 * LARGE, "content": 10 * LARGE}

    def begin(self, go: str) -> None:
        """Up to the word what is to be done."""
        said = self.talk.hear_message("challenge")
        about = {"nonce": said["challenge"], "receiver": said["receiver"]}
        record = {"userName": "alice"}
        self.talk.tell(introduction={"record": record, "about": about}, storage="directory")
        self.talk.hear("hello")
        if go != "passes":
            self.talk.tell(go=go)
            return
        self.talk.tell(go=go, size=self.size, needs=needs_to_json({}))
        self.talk.hear("fits")

    def change(self, *changes: Frame) -> None:
        """Tell changes of the top."""
        for frame in (frames.Enter(b"", travels.directory_entry()), *changes, frames.Leave()):
            self.talk.send(frame)

    def compare(self) -> None:
        """Hear what the other side has, and have that sealed at the end."""
        self.talk.tell(compare="")
        self.digest = str(self.talk.hear("has"))

    def prepare(self) -> None:
        """Say that this was all; raises what the receiver says to that."""
        self.talk.tell(prepare={"userName": "alice"}, seal=f"of {self.digest}")
        self.talk.hear("prepared")

    def commit(self) -> None:
        """Have it become a home."""
        self.talk.tell(commit=True)
        self.talk.hear("committed")

    def leave(self) -> None:
        """Break off."""
        self.talk.__exit__(None, None, None)
        for fd in (self._incoming, self._outgoing):
            fd.close()
        self.receiver.join(60)
        assert not self.receiver.is_alive()
        if self._target.phase == "new":
            self._target.phase = "receiving"


@contextmanager
def lying(pair: Pair, go: str = "passes", **size: int) -> Iterator[Liar]:
    liar = Liar(pair)
    liar.size |= size
    try:
        liar.begin(go)
        yield liar
    finally:
        liar.leave()


def small(name: bytes, data: bytes) -> Frame:
    return frames.File(name, travels.file_entry(len(data)), data)


def test_a_sender_that_says_what_it_has_is_taken(pair: Pair) -> None:
    with lying(pair) as sender:
        sender.change(small(b"file", b"one"), frames.Node(b"other", travels.link_entry(b"file")))
        sender.compare()
        sender.change(small(b"third", b"three"))
        sender.compare()
        sender.prepare()
        sender.commit()
    assert (pair.there / "other").read_text() == "one"
    assert (pair.there / "file").stat().st_nlink == 2


def after_the_last_comparison(sender: Liar) -> None:
    sender.change(small(b"file", b"one"))
    sender.compare()
    sender.change(small(b"file", b"two"))


def behind_a_link(sender: Liar) -> None:
    sender.change(
        small(b"file", b"two"),
        frames.Node(b"other", travels.link_entry(b"file")),
        small(b"file", b"one"),
    )
    sender.compare()


@pytest.mark.parametrize("change", [after_the_last_comparison, behind_a_link])
def test_what_is_not_sealed_does_not_arrive(pair: Pair, change: Callable[[Liar], None]) -> None:
    with lying(pair) as sender:
        change(sender)
        with pytest.raises(HomeError):
            sender.prepare()
    assert isinstance(sender.receiver.failure, StreamError)
    assert "prepare" not in pair.target.questions


def test_what_was_sealed_and_changed_in_another_run_does_not_arrive(pair: Pair) -> None:
    with lying(pair) as sender:
        sender.change(small(b"file", b"one"))
        sender.compare()
        sender.prepare()
    with lying(pair) as sender:
        sender.change(small(b"file", b"two"))
        sender.compare()
    with lying(pair, "commit") as sender, pytest.raises(HomeError):
        sender.commit()
    assert isinstance(sender.receiver.failure, StreamError)
    assert not pair.there.exists()


def test_a_patch_leaves_nothing_where_the_file_has_a_hole(pair: Pair) -> None:
    """The digest of a block does not see what was there before and was not taken away."""
    entry, piece = travels.file_entry(LARGE), b"x" * 4096
    state = content.ContentDigest(LARGE)
    state.data(0, piece)
    with lying(pair) as sender:
        whole = [frames.Data(at, b"secret" * 2048) for at in range(0, 120_000, 12_288)]
        old = content.ContentDigest(LARGE)
        for frame in whole:
            old.data(frame.offset, frame.data)
        sender.change(frames.File(b"file", entry, None), *whole, frames.Eof(old.finish()[0]))
        patch = frames.Patch(b"file", entry)
        sender.change(patch, frames.Data(0, piece), frames.Eof(state.finish()[0]))
        with pytest.raises(HomeError):
            sender.compare()
    assert isinstance(sender.receiver.failure, StreamError)


@pytest.mark.parametrize("is_announced", [False, True])
def test_no_more_is_stored_than_was_announced(pair: Pair, is_announced: bool) -> None:
    """Of what may be holes as well."""
    entry, piece = travels.file_entry(1 << 30), bytes(256 << 10)
    state = content.ContentDigest(entry.size)
    data = [frames.Data(at, piece) for at in range(0, 2 << 20, len(piece))]
    for frame in data:
        state.data(*frame)
    more = {"files": 100, "bytes": 3 << 20, "content": 1 << 40}
    told = [frames.Control({"more": more})] if is_announced else []
    with lying(pair, bytes=1 << 20, content=1 << 40) as sender:
        sender.change(
            frames.File(b"file", entry, None),
            *(*data[:4], *told, *data[4:]),
            frames.Eof(state.finish()[0]),
        )
        if is_announced:
            sender.compare()
            return
        with pytest.raises(HomeError):
            sender.compare()
    assert "sends more" in str(sender.receiver.failure)
    for path in pair.there.parent.glob(".#homemgr-in-*/*"):
        assert path.stat().st_blocks * 512 <= 1 << 20


def test_the_data_of_an_exported_file_stay_where_they_are(pair: Pair, tmp_path: Path) -> None:
    sparse = pair.here / "sparse"
    with sparse.open("wb") as file:
        file.truncate(1 << 20)
        file.seek(1 << 18)
        file.write(b"data" * 1024)
    subprocess.run(["chown", f"{travels.NOBODY}:{travels.NOBODY}", sparse], check=True)
    archive = tmp_path / "alice.tar"
    export(pair, archive)
    harmed = archive.read_bytes().replace(b"\n262144\n4096\n", b"\n524288\n4096\n")
    assert harmed != archive.read_bytes()
    archive.write_bytes(harmed)
    with pytest.raises(StreamError):
        import_(pair, archive)
    assert pair.names()[1] == []
