"""Two real workers send and receive a home; the tests play both daemons, and kill either side."""

from __future__ import annotations

import json
import os
import random
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import pytest

from homemgr import errors, job
from homemgr.errors import StreamError

from .. import homes
from .jobs import Worker, begin
from .jobs import _frame as frame

NOBODY = 65534
RECEIVER = "the other machine"


class Gone(Exception):
    """The daemon that was asked does not exist any more."""


@dataclass
class Daemon:
    """What a daemon keeps on disk of one transfer, and its answers."""

    area: Path
    phase: str
    #: Of the tree that left or arrived.
    tree: str = ""
    questions: list[str] = field(default_factory=list)
    progress: list[job.Message] = field(default_factory=list)
    #: Do something before a question is answered; may raise a HomeError or Gone.
    before: Callable[[str], None] = lambda question: None
    answers: dict[str, Callable[[job.Message], job.Message]] = field(default_factory=dict)
    #: In place of the usual one.
    record: dict[str, object] | None = None

    def __post_init__(self) -> None:
        """Fill in the answers."""

    def answer(self, question: str, about: job.Message) -> job.Message:
        self.before(question)
        self.questions.append(question)
        return self.answers[question](about)


class Origin(Daemon):
    """The sender's."""

    left_name = ".#homemgr-left-alice.0123abcd"

    def __post_init__(self) -> None:
        self.answers = {
            "introduce": self.introduce,
            "seal": self.seal,
            "peer": self.peer,
            "freeze": self.freeze,
            "found": lambda _about: {},
            "leave": self.leave,
            "come-back": self.come_back,
            "left": self.left,
        }

    def arguments(self) -> dict[str, object]:
        """What its worker is told of the state on disk."""
        left_name = "" if self.phase == "sending" else self.left_name
        state = {"phase": self.phase, "left_name": left_name, "tree": self.tree}
        told = {**state, "extensions": {}}
        return told if self.record is None else {**told, "record": self.record}

    def introduce(self, about: job.Message) -> job.Message:
        return {"record": {"userName": "alice", "at": "the beginning"}, "about": about}

    def seal(self, about: job.Message) -> job.Message:
        assert "freeze" in self.questions
        return {"record": {"userName": "alice", "at": "the end"}, "seal": f"of {about['digest']}"}

    def peer(self, about: job.Message) -> job.Message:
        path = str(self.area / "out.sqlite")
        assert about["machine_id"]
        return {"ledger": path}

    def freeze(self, about: job.Message) -> job.Message:
        return {}

    def leave(self, about: job.Message) -> job.Message:
        if self.phase == "sending":
            assert about["tree"]
            self.phase, self.tree = "leaving", str(about["tree"])
        return {"left_name": self.left_name, "tree": self.tree}

    def come_back(self, about: job.Message) -> job.Message:
        self.phase = "sending"
        return {}

    def left(self, about: job.Message) -> job.Message:
        self.phase = "left"
        return {"left_name": self.left_name}


class Target(Daemon):
    """The receiver's."""

    def __post_init__(self) -> None:
        self.answers = {
            "hello": self.hello,
            "prepare": self.prepare,
            "commit": self.commit,
            "undo": self.undo,
            "restart": self.restart,
        }

    def hello(self, about: job.Message) -> job.Message:
        introduction = about["introduction"]
        assert isinstance(introduction, dict)
        assert introduction["about"]["nonce"] == about["nonce"]
        assert introduction["about"].get("receiver") in (None, RECEIVER)
        return {
            "phase": self.phase,
            "base_directory": str(self.area / ".homemgr"),
            "file_name": "alice.homedir",
            "stage_name": ".#homemgr-in-alice.0123abcd",
            "ledger": str(self.area / "in.sqlite"),
            "tree": self.tree,
        }

    def prepare(self, about: job.Message) -> job.Message:
        assert about["seal"] == f"of {about['digest']}"
        assert about["tree"]
        self.phase, self.tree = "prepared", str(about["tree"])
        return {"identity": json.dumps(about["identity"])}

    def commit(self, about: job.Message) -> job.Message:
        self.phase = "committed"
        directory = str(self.area / "blobs/alice")
        return {
            "blob_directory": directory,
            "uid": 60001,
            "report": {"counts": {"uid-changed": 1}, "notes": []},
        }

    def restart(self, about: job.Message) -> job.Message:
        self.phase = "receiving"
        return {}

    def undo(self, about: job.Message) -> job.Message:
        assert about["tree"] in ("", self.tree)
        self.phase = "gone"
        return {}


class Side(threading.Thread):
    """One worker and the daemon it talks to; takes over the streams it is given."""

    def __init__(
        self,
        daemon: Daemon,
        verb: str,
        stream: socket.socket | IO[bytes],
        *,
        strace: Sequence[str] = (),
        **more: object,
    ) -> None:
        super().__init__()
        self.daemon_ = daemon
        self.result: dict[str, object] = {}
        self.failure: BaseException | None = None
        self.talk, self.worker = begin(strace)
        request = Worker(daemon.area).request(verb, **more)
        fds = [stream.fileno()] * (1 if verb in ("export", "import") else 2)
        sent = socket.send_fds(self.talk, [request[:1]], fds)
        self.talk.sendall(request[sent:])
        stream.close()
        self.start()

    def run(self) -> None:
        try:
            self._talk()
        except BaseException as error:  # noqa: BLE001 -- looked at by the test
            self.failure = error
        finally:
            self.talk.close()
            self.worker.wait()

    def _talk(self) -> None:
        channel = job.Channel(self.talk)
        while True:
            message = job.unpack(frame(self.talk))
            if "ask" in message:
                about = message["about"]
                assert isinstance(about, dict)
                try:
                    channel.send({"answer": self.daemon_.answer(str(message["ask"]), about)})
                except errors.HomeError as error:
                    channel.send(job.failure(error))
            elif "progress" in message:
                told = message["progress"]
                assert isinstance(told, dict)
                self.daemon_.progress.append(told)
            elif "error" in message:
                raise job.revive(message["error"])
            elif "result" in message:
                result = message["result"]
                assert isinstance(result, dict)
                self.result = result
                return


@dataclass
class Pair:
    """Two machines."""

    origin: Origin
    target: Target
    sender: Side | None = None
    receiver: Side | None = None
    #: Options of strace for the workers.
    sender_by: Sequence[str] = ()
    receiver_by: Sequence[str] = ()

    def start(self, **options: object) -> None:
        one, other = socket.socketpair()
        more: dict[str, object] = {"options": {}, "receiver": RECEIVER}
        self.receiver = Side(self.target, "receive", other, strace=self.receiver_by, **more)
        more = {"options": options, **self.origin.arguments()}
        self.sender = Side(self.origin, "send", one, strace=self.sender_by, **more)

    def go(self, **options: object) -> dict[str, object]:
        """Send the home; raises what the sender's caller gets."""
        self.start(**options)
        self.wait()
        assert self.sender is not None
        if self.sender.failure is not None:
            raise self.sender.failure
        return self.sender.result

    def wait(self) -> None:
        assert self.sender is not None
        assert self.receiver is not None
        for side in (self.sender, self.receiver):
            side.join(60)
            assert not side.is_alive()

    @property
    def here(self) -> Path:
        return self.origin.area / ".homemgr/alice.homedir"

    @property
    def there(self) -> Path:
        return self.target.area / ".homemgr/alice.homedir"

    @property
    def left(self) -> Path:
        return self.origin.area / ".homemgr" / Origin.left_name

    def names(self) -> tuple[list[str], list[str]]:
        here, there = (d.area / ".homemgr" for d in (self.origin, self.target))
        return sorted(os.listdir(here)), sorted(os.listdir(there))


@pytest.fixture
def pair(one_volume: Path) -> Iterator[Pair]:
    yield from machines(one_volume / "transfer", Path.mkdir)


def machines(top: Path, make_home: Callable[[Path], object]) -> Iterator[Pair]:
    """Two of them below ``top``, the one with a small home."""
    areas = top / "one", top / "other"
    for area in areas:
        (area / ".homemgr").mkdir(parents=True, mode=0o700)
        (area / ".homemgr").chmod(0o700)
        area.chmod(0o755)
    made = Pair(Origin(areas[0], "sending"), Target(areas[1], "new"))
    make_home(made.here)
    made.here.chmod(0o700)
    (made.here / ".identity").write_text("{}")
    (made.here / "file").write_text("content")
    (made.here / "large").write_bytes(random.Random(1).randbytes(3_000_000))
    homes.give_away(made.here)
    yield made
    subprocess.run(["rm", "-rf", top], check=True)


def assert_moved(pair: Pair, kept: Path | None = None) -> None:
    assert pair.names() == ([Origin.left_name], ["alice.homedir"])
    assert homes.compare(kept or pair.left, pair.there, leave_out=(b".identity",)) == []
    assert json.loads((pair.there / ".identity").read_text())["at"] == "the end"
    assert (pair.there / ".identity").stat().st_uid == NOBODY
    assert (pair.origin.phase, pair.target.phase) == ("left", "committed")


def test_a_home_moves(pair: Pair) -> None:
    homes.make_odd_home(pair.here)
    result = pair.go()
    assert_moved(pair)
    assert result["uid"] == 60001
    assert result["report"] == {"counts": {"uid-changed": 1}, "notes": []}
    assert pair.origin.questions[-2:] == ["leave", "left"]
    assert pair.target.questions == ["hello", "prepare", "commit"]
    assert {"copying", "last pass"} & {str(p["phase"]) for p in pair.origin.progress}


def test_the_same_command_again_has_nothing_to_do(pair: Pair) -> None:
    pair.go()
    pair.go()
    assert_moved(pair)


def test_a_standby_copy_is_refreshed_and_sends_only_what_changed(pair: Pair) -> None:
    first = pair.go(keep=True)
    assert pair.names()[0] == ["alice.homedir"]
    second = pair.go(keep=True)
    assert int(str(second["sent_bytes"])) < 2000 < 3_000_000 < int(str(first["sent_bytes"]))
    (pair.here / "new").write_text("new")
    homes.give_away(pair.here)
    pair.target.phase = "receiving"
    pair.go()
    assert_moved(pair)


def is_walked(pair: Pair) -> bool:
    """Refresh the copy; whether the home was compared with it name by name."""
    pair.target.phase = "receiving"
    pair.origin.progress.clear()
    pair.go(keep=True)
    return any(told["phase"] == "copying" for told in pair.origin.progress)


def rewrite(top: Path) -> None:
    """Other content of the same length, with the time of before."""
    before = (top / "file").stat()
    (top / "file").write_text("CONTENT")
    os.utime(top / "file", ns=(before.st_atime_ns, before.st_mtime_ns))


CHANGES: dict[str, Callable[[Path], object]] = {
    "content": rewrite,
    "length": lambda top: os.truncate(top / "large", 1_000_000),
    "mode": lambda top: (top / "file").chmod(0o640),
    "attribute": lambda top: os.setxattr(top / "file", "user.colour", b"blue"),
    "mode of a directory": lambda top: (top / "work").chmod(0o750),
    "name": lambda top: (top / "file").rename(top / "file of before"),
    "another name": lambda top: (top / "work/link").hardlink_to(top / "file"),
    "deletion": lambda top: (top / "file").unlink(),
    "new file": lambda top: os.mkfifo(top / "work/fifo"),
}


@pytest.fixture
def copied(pair: Pair) -> Pair:
    """With a standby copy of what nobody touches for a moment."""
    (pair.here / "work").mkdir()
    homes.give_away(pair.here)
    # What is younger than a tick of the clock that files get their times from is looked at again.
    time.sleep(0.1)
    pair.go(keep=True)
    return pair


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_of_any_kind_is_seen(copied: Pair, change: str) -> None:
    assert not is_walked(copied)
    CHANGES[change](copied.here)
    assert is_walked(copied)
    homes.give_away(copied.here)
    copied.target.phase = "receiving"
    copied.go()
    assert homes.compare(copied.left, copied.there, leave_out=(b".identity",)) == []


def test_a_copy_that_got_lost_is_made_again(copied: Pair) -> None:
    for path in (copied.target.area / ".homemgr").iterdir():
        subprocess.run(["rm", "-rf", path], check=True)
    assert is_walked(copied)
    copied.target.phase = "receiving"
    copied.go()
    assert_moved(copied)


def test_what_does_not_travel_is_told_each_time(pair: Pair) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(pair.here / "socket"))
    homes.give_away(pair.here)
    time.sleep(0.1)
    for _ in range(2):
        result = pair.go(keep=True)
        pair.target.phase = "receiving"
        assert result["report"] == {
            "counts": {"socket-skipped": 1},
            "notes": [{"kind": "socket-skipped", "path": "socket", "detail": ""}],
        }


@pytest.mark.parametrize("is_withdrawn", [False, True])
def test_a_home_given_back_in_the_middle_of_an_undo_moves_again(
    pair: Pair, is_withdrawn: bool
) -> None:
    pair.go()
    # The receiver was killed after its promise; then the sender did not ask to undo.
    pair.target.phase, pair.origin.phase = "gone", "leaving"
    if is_withdrawn:
        stage = pair.there.parent / ".#homemgr-in-alice.0123abcd"
        pair.there.rename(stage)
        (stage / "large").unlink()
    content = (pair.left / "large").read_bytes()
    pair.go()
    assert_moved(pair)
    assert (pair.there / "large").read_bytes() == content


def test_undo_brings_the_home_back(pair: Pair) -> None:
    pair.go()
    pair.go(undo=True)
    assert pair.names() == (["alice.homedir"], [])
    assert (pair.origin.phase, pair.target.phase) == ("sending", "gone")
    pair.target.phase = "new"
    pair.go()
    assert_moved(pair)


def make_another(home: Path) -> None:
    """A home that has nothing to do with the one of before."""
    subprocess.run(["rm", "-rf", home], check=True)
    home.mkdir(mode=0o700)
    (home / "other").write_text("somebody else's")


def test_undo_leaves_alone_what_else_has_the_name_by_now(pair: Pair) -> None:
    pair.go()
    make_another(pair.there)
    # The daemon, which is to refuse that, is asked about what is there.
    refused: list[object] = []

    def refuse(about: job.Message) -> job.Message:
        refused.append(about["tree"])
        raise errors.PathExists("another one")

    pair.target.answers["undo"] = refuse
    with pytest.raises(errors.PathExists):
        pair.go(undo=True)
    assert refused != [pair.target.tree]
    assert pair.names() == ([Origin.left_name], ["alice.homedir"])
    assert (pair.there / "other").exists()


@pytest.mark.parametrize("phase", ["receiving", "prepared"])
def test_what_else_has_the_name_by_now_is_not_taken_for_what_arrived(
    pair: Pair, phase: str
) -> None:
    pair.go()
    make_another(pair.there)
    pair.target.phase, pair.origin.phase = phase, "leaving"
    with pytest.raises(errors.PathExists, match="another one"):
        pair.go()
    assert (pair.there / "other").exists()


def test_what_else_has_the_name_by_now_is_not_taken_for_what_came_back(pair: Pair) -> None:
    pair.go()
    pair.left.rename(pair.origin.area / "stolen")
    make_another(pair.here)
    with pytest.raises(errors.PathExists, match="another one"):
        pair.go(undo=True)
    assert pair.origin.phase == "left"


def test_what_was_put_in_its_place_while_it_was_sent_is_not_given_up(pair: Pair) -> None:
    """As a snapshot that is restored, or a conversion, does: only what has arrived may leave."""

    def replace(question: str) -> None:
        if question == "seal":
            pair.here.rename(pair.here.with_name("replaced"))
            make_another(pair.here)
            homes.give_away(pair.here)

    pair.origin.before = replace
    with pytest.raises(errors.HomeBusy, match="replaced meanwhile"):
        pair.go()
    assert pair.names()[0] == ["alice.homedir", "replaced"]
    assert (pair.origin.phase, pair.target.phase) == ("sending", "prepared")
    # Said again, it is the new one that leaves.
    subprocess.run(["rm", "-rf", pair.here.with_name("replaced")], check=True)
    pair.origin.before = lambda _question: None
    pair.go()
    assert_moved(pair)


@contextmanager
def rewriting(file: Path, size: int) -> Iterator[None]:
    """Somebody fills a file with one byte after the other, each time in a single write."""
    is_over = threading.Event()

    def rewrite() -> None:
        number = 0
        with file.open("r+b", buffering=0) as there:
            while not is_over.is_set():
                number = number % 255 + 1
                os.pwrite(there.fileno(), bytes([number]) * size, 0)

    writer = threading.Thread(target=rewrite)
    writer.start()
    try:
        yield
    finally:
        is_over.set()
        writer.join()


@pytest.mark.parametrize("volume", ["btrfs", "xfs"], indirect=True)
@pytest.mark.parametrize("size", [4_000_000, 50_000])
def test_a_file_that_is_written_to_all_the_time_is_copied_whole_where_blocks_are_shared(
    volume: Path, size: int
) -> None:
    for pair in machines(volume / "transfer", Path.mkdir):
        busy = pair.here / "busy"
        busy.write_bytes(bytes([255]) * size)
        homes.give_away(pair.here)
        with rewriting(busy, size):
            result = pair.go(keep=True)
        copy = (pair.target.area / ".homemgr/.#homemgr-in-alice.0123abcd/busy").read_bytes()
        assert (len(copy), set(copy)) == (size, {copy[0]})
        assert result["report"] == {"counts": {}, "notes": []}


QUESTIONS = [
    ("origin", question) for question in ("introduce", "peer", "freeze", "seal", "leave", "left")
] + [("target", question) for question in ("hello", "prepare", "commit")]


@pytest.mark.parametrize("moment", ["asked", "answered"])
@pytest.mark.parametrize(("side", "question"), QUESTIONS)
def test_killed_at_any_question_the_same_command_goes_on(
    pair: Pair, side: str, question: str, moment: str
) -> None:
    daemon = pair.origin if side == "origin" else pair.target
    answered = daemon.answers[question]

    def killed(about: job.Message) -> job.Message:
        answer = answered(about) if moment == "answered" else {}
        victim = pair.sender if side == "origin" else pair.receiver
        assert victim is not None
        victim.worker.kill()
        victim.worker.wait()
        raise Gone(answer)

    daemon.answers[question] = killed
    pair.start()
    pair.wait()
    usable = [pair.here.exists(), pair.there.exists()]
    assert usable != [True, True]
    daemon.answers[question] = answered
    pair.go()
    assert_moved(pair)


@pytest.mark.parametrize("after_s", [0.0, 0.02, 0.05, 0.1, 0.2, 0.3])
def test_a_worker_killed_at_any_time_is_made_good(pair: Pair, after_s: float) -> None:
    homes.make_odd_home(pair.here)
    for who in ("sender", "receiver"):
        pair.start()
        time.sleep(after_s)
        getattr(pair, who).worker.kill()
        pair.wait()
        assert [pair.here.exists(), pair.there.exists()] != [True, True]
    pair.go()
    assert_moved(pair)


def test_a_refusal_there_is_read_here(pair: Pair) -> None:
    def before(question: str) -> None:
        if question == "hello":
            raise errors.UserNameExists("User name alice is taken.")

    pair.target.before = before
    with pytest.raises(errors.UserNameExists, match=r"^On the other machine: User name alice is"):
        pair.go()
    assert pair.names() == (["alice.homedir"], [])


def test_noise_instead_of_a_stream_is_refused(pair: Pair) -> None:
    one, other = socket.socketpair()
    receiver = Side(pair.target, "receive", other, options={}, receiver=RECEIVER)
    one.sendall(b"Welcome to this machine!\n")
    receiver.join(20)
    assert isinstance(receiver.failure, StreamError)
    assert "Welcome" in str(receiver.failure)
    one.close()
    assert pair.names()[1] == []


class Line:
    """A connection between both sides that can be cut or do harm."""

    def __init__(self, pair: Pair, harm_at: int, harm: Callable[[bytearray, int], None]) -> None:
        """Pass on what the sender says up to ``harm_at``, where ``harm`` is done to it."""
        here, self._to_here = socket.socketpair()
        there, self._to_there = socket.socketpair()
        self._harm = harm
        pair.receiver = Side(pair.target, "receive", there, options={}, receiver=RECEIVER)
        pair.sender = Side(pair.origin, "send", here, options={}, **pair.origin.arguments())
        ends = (self._to_here, self._to_there)
        self._threads = [
            threading.Thread(target=self._forward, args=(*ends, harm_at)),
            threading.Thread(target=self._forward, args=(*reversed(ends), -1)),
        ]
        for thread in self._threads:
            thread.start()
        pair.wait()
        for thread in self._threads:
            thread.join(10)
        for end in ends:
            end.close()

    def _forward(self, source: socket.socket, target: socket.socket, harm_at: int) -> None:
        passed = 0
        # What goes the other way is not lost if nobody listens any more: there may be last words.
        ends = {source: socket.SHUT_RD, target: socket.SHUT_WR}
        try:
            while data := bytearray(source.recv(65536)):
                if passed <= harm_at < passed + len(data):
                    self._harm(data, harm_at - passed)
                passed += len(data)
                target.sendall(data)
        except EOFError:
            ends = dict.fromkeys(ends, socket.SHUT_RDWR)
        except OSError:
            pass
        for end, how in ends.items():
            with suppress(OSError):
                end.shutdown(how)


def cut(data: bytearray, at: int) -> None:
    raise EOFError


@pytest.mark.parametrize("at", [200, 2_000, 200_000, 1_000_000])
@pytest.mark.parametrize("harm", ["cut", "flipped"])
def test_a_damaged_stream_changes_nothing(pair: Pair, at: int, harm: str) -> None:
    """A byte somewhere in the stream is another than was sent, or the stream ends there."""

    def flip(data: bytearray, at: int) -> None:
        data[at] ^= 1 << random.Random(at).randrange(8)

    Line(pair, at, cut if harm == "cut" else flip)
    assert pair.receiver is not None
    if harm == "flipped" and pair.receiver.failure is None:
        # It hit a word of the first messages that decides nothing, such as a name for the log.
        assert_moved(pair)
        return
    assert pair.receiver.failure is not None
    assert pair.here.exists()
    assert not pair.there.exists()
    pair.go()
    assert_moved(pair)


def test_what_came_before_the_line_was_cut_is_not_sent_again(pair: Pair) -> None:
    for number in range(10):
        (pair.here / f"part-{number}").write_bytes(random.Random(number).randbytes(300_000))
    homes.give_away(pair.here)
    Line(pair, 5_000_000, cut)
    pair.target.phase = "receiving"
    result = pair.go()
    assert_moved(pair)
    assert int(str(result["sent_bytes"])) < 2_000_000


def test_what_came_and_is_not_here_any_more_is_deleted_there(pair: Pair) -> None:
    """The sender need not remember what it told before the line was cut."""
    for number in range(10):
        (pair.here / f"part-{number}").write_bytes(random.Random(number).randbytes(300_000))
    homes.give_away(pair.here)
    Line(pair, 5_000_000, cut)
    (pair.origin.area / "out.sqlite").unlink()
    pair.target.phase = "receiving"
    stage = pair.there.parent / pair.names()[1][0]
    for path in list(stage.glob("part-*")):
        (pair.here / path.name).unlink()
    homes.give_away(pair.here)
    pair.go()
    assert_moved(pair)


def run_alone(side: Side) -> dict[str, object]:
    """The end of a worker that talks to no other."""
    side.join(60)
    assert not side.is_alive()
    if side.failure is not None:
        raise side.failure
    return side.result


def export(pair: Pair, file: Path) -> dict[str, object]:
    arguments = pair.origin.arguments()
    return run_alone(Side(pair.origin, "export", file.open("wb"), options={}, **arguments))


def import_(pair: Pair, file: Path) -> dict[str, object]:
    return run_alone(Side(pair.target, "import", file.open("rb"), options={}))


def test_an_export_is_imported_exactly(pair: Pair, tmp_path: Path) -> None:
    homes.make_odd_home(pair.here)
    file = tmp_path / "alice.tar"
    written = export(pair, file)
    assert written["sent_bytes"] == file.stat().st_size
    result = import_(pair, file)
    assert result["uid"] == 60001
    assert result["report"] == {"counts": {"uid-changed": 1}, "notes": []}
    assert homes.compare(pair.here, pair.there, leave_out=(b".identity",)) == []
    assert pair.names() == (["alice.homedir"], ["alice.homedir"])


def test_tar_restores_an_export(pair: Pair, tmp_path: Path) -> None:
    homes.make_odd_home(pair.here)
    subprocess.run(["rm", "-rf", pair.here / "_deep"], check=True)  # beyond PATH_MAX
    subprocess.run(["touch", "-r", pair.here / "file", pair.here], check=True)
    export(pair, tmp_path / "alice.tar")
    flags = ["--xattrs", "--xattrs-include=*", "--acls", "--numeric-owner", "-xpf"]
    subprocess.run(["tar", *flags, "alice.tar", "home"], cwd=tmp_path, check=True)
    assert homes.compare(pair.here, tmp_path / "home", leave_out=(b".identity",)) == []


@pytest.mark.parametrize("part", [0.001, 0.3, 0.9])
@pytest.mark.parametrize("harm", ["cut", "changed"])
def test_of_a_damaged_export_nothing_is_made(
    pair: Pair, tmp_path: Path, part: float, harm: str
) -> None:
    export(pair, tmp_path / "alice.tar")
    data = bytearray((tmp_path / "alice.tar").read_bytes())
    at = int(len(data) * part)
    if harm == "cut":
        del data[at:]
    else:
        at = data.index(b"content") if part == 0.3 else at
        data[at] ^= 1
    (tmp_path / "harmed.tar").write_bytes(data)
    with pytest.raises(errors.HomeError):
        import_(pair, tmp_path / "harmed.tar")
    assert pair.names()[1] == []


def call_off(side: Side) -> None:
    """What the daemon says when nobody wants the job any more."""
    side.talk.sendall(job.pack({"cancel": True}))


def test_an_import_that_is_called_off_ends_though_nothing_comes(pair: Pair, tmp_path: Path) -> None:
    export(pair, tmp_path / "alice.tar")
    reading, writing = os.pipe()
    side = Side(pair.target, "import", os.fdopen(reading, "rb"), options={})
    with os.fdopen(writing, "wb") as archive:
        archive.write((tmp_path / "alice.tar").read_bytes()[:1_000_000])
        archive.flush()
        call_off(side)
        with pytest.raises(errors.Cancelled):
            run_alone(side)
    assert pair.names()[1] == []


def test_an_export_that_is_called_off_ends_before_all_is_written(pair: Pair) -> None:
    reading, writing = os.pipe()
    arguments = pair.origin.arguments()
    side = Side(pair.origin, "export", os.fdopen(writing, "wb"), options={}, **arguments)
    with os.fdopen(reading, "rb") as archive:
        assert archive.read(1)
        call_off(side)
        assert len(archive.read()) < 3_000_000
        with pytest.raises(errors.Cancelled):
            run_alone(side)
    assert pair.here.exists()


def test_an_import_leaves_alone_what_is_about_to_arrive(pair: Pair, tmp_path: Path) -> None:
    export(pair, tmp_path / "alice.tar")
    stage = pair.target.area / ".homemgr/.#homemgr-in-alice.0123abcd"
    stage.mkdir()
    pair.target.phase = "prepared"
    with pytest.raises(errors.TransferBusy):
        import_(pair, tmp_path / "alice.tar")
    assert stage.exists()
