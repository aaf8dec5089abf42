"""Runs real workers on real homes, with the daemon's part of the talk played by the test.

`Worker.run` gives the result; `Worker.steps` tells which system calls that change
something a job makes, and `Worker.run_killed` kills it with SIGKILL on entry to one
of them.
"""

from __future__ import annotations

import base64
import os
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from homemgr import crypt, errors, job
from homemgr.record import signature
from homemgr.record.model import UserRecord
from tests.world.box import wait_for

from . import forks, kills
from .kills import Step

PASSWORD = "correct horse battery"

#: System calls after which a home may be in another state than before.
CHANGING = (
    *("mkdir", "mkdirat", "rename", "renameat", "renameat2", "link", "linkat", "symlinkat"),
    *("unlink", "unlinkat", "rmdir", "fsync", "fdatasync", "fchmod", "fchmodat", "chmod"),
    *("utimensat", "ftruncate", "fsetxattr", "setxattr", "fallocate", "copy_file_range"),
    *("sendfile", "open_tree", "mount_setattr", "move_mount", "umount2"),
)


class KilledError(Exception):
    """The worker died before it answered."""


@dataclass
class Worker:
    """Everything a daemon would tell about one home of alice below ``area``."""

    area: Path
    password: str = PASSWORD
    uid: int = 60456
    image_path: str | None = None
    extra: dict[str, object] = field(default_factory=dict)
    #: What jobs are given beside their words.
    fds: Sequence[int] = ()
    #: Damaged records that workers had kept, as the service would.
    kept: list[bytes] = field(default_factory=list)
    #: What the service answers to one that it cannot keep.
    keeping_fails: errors.HomeError | None = None
    #: How often jobs were given a processor so far.
    granted: int = 0

    def __post_init__(self) -> None:
        private, public = signature.generate_key_pair()
        self.keyring = signature.Keyring.from_pem(
            {"local.public": public}, {"local.private": private}
        )
        self.record = self.signed(self.password, 1_000_000)
        self.blobs.mkdir(exist_ok=True)

    @property
    def blobs(self) -> Path:
        """Where the public files of users are."""
        return self.area / "public"

    def signed(self, password: str, stamp: int) -> UserRecord:
        """A record of alice with one password, signed by this machine."""
        assert self.keyring.signer is not None
        record = UserRecord(
            {
                "userName": "alice",
                "disposition": "regular",
                "uid": self.uid,
                "lastChangeUSec": stamp,
                "org.homemgr.idmapPolicy": "strict",
                "privileged": {"hashedPassword": [crypt.hash_password(password, "$6$")]},
                **self.extra,  # type: ignore[dict-item]
            }
        )
        return signature.sign(record, self.keyring.signer)

    def request(self, verb: str, **more: object) -> bytes:
        """The frame a daemon would send."""
        arguments: dict[str, object] = {
            "record": self.record.data,
            "is_fixated": True,
            "secret": {"password": [self.password]},
            "machine": {"id": "0" * 31 + "1", "hostname": "box", "home_root": str(self.area)},
            "public_keys": {n: k.pem for n, k in self.keyring.public.items()},
            "own_keys": list(self.keyring.own),
            "base_directory": str(self.area / ".homemgr"),
            "blob_root": str(self.blobs),
            "lock_file": str(self.area / "run" / "lock"),
        }
        if verb == "create":
            arguments |= {"storage": "directory", "blobs": []}
        return job.pack(job.Request(verb, {**arguments, **more}).message())

    def run(self, verb: str, **more: object) -> dict[str, object]:
        """Run a job to its end; raises what the worker raised."""
        return self._talk([], self.request(verb, **more))

    def steps(
        self, trace: Path, verb: str, calls: Sequence[str] = CHANGING, **more: object
    ) -> list[Step]:
        """Run a job to its end; the changing calls it made, in their order."""
        self._talk(kills.recording(trace, calls), self.request(verb, **more))
        return kills.recorded(trace, calls)

    def run_killed(self, at: Step, verb: str, **more: object) -> dict[str, object]:
        """Run a job and kill it on entry to the call ``at``; KilledError if it was."""
        return self._talk(kills.killing(at), self.request(verb, **more))

    @contextmanager
    def held_up(self, verb: str) -> Iterator[None]:
        """A job that waits for a processor which it never gets, until the end of the block."""
        ours, worker = begin()
        with ours:
            ours.sendall(self.request(verb))
            assert "begun" in job.unpack(_frame(ours))
            assert job.unpack(_frame(ours))["need"] == "processor"
            yield
        worker.wait()

    def run_deserted(self, at: Step, verb: str) -> None:
        """Run a job to its end, whose service dies while it stands still at the call ``at``."""
        ours, worker = begin(kills.stopping(at))
        with ours:
            ours.sendall(self.request(verb))
            pid = job.unpack(_frame(ours))["begun"]
            assert isinstance(pid, int)
            assert "need" in job.unpack(_frame(ours))
            job.Channel(ours).send({"granted": "processor"})
            assert "free" in job.unpack(_frame(ours))
        # It may have to be woken more than once: what comes before it stands still is lost.
        wait_for(lambda: _wake(pid), "it ended")
        worker.wait()

    def _talk(self, strace: list[str], request: bytes) -> dict[str, object]:
        ours, worker = begin(strace)
        try:
            if self.fds:
                socket.send_fds(ours, [request], self.fds)
            else:
                ours.sendall(request)
            return self._answer(job.Channel(ours), ours)
        except (EOFError, ConnectionError) as error:
            raise KilledError from error
        finally:
            ours.close()
            worker.wait()

    def _answer(self, channel: job.Channel, sock: socket.socket) -> dict[str, object]:
        while True:
            message = job.unpack(_frame(sock))
            if message.get("need"):
                self.granted += 1
                channel.send({"granted": "processor"})
            elif message.get("ask") == job.KEEP_DAMAGED:
                channel.send(self._keep(message["about"]))
            elif message.get("ask") == "exchange":
                channel.send({"answer": {}})
            elif "error" in message:
                raise job.revive(message["error"])
            elif "result" in message:
                result = message["result"]
                assert isinstance(result, dict)
                return result

    def _keep(self, about: object) -> job.Message:
        assert isinstance(about, dict)
        if self.keeping_fails is not None:
            return job.failure(self.keeping_fails)
        self.kept.append(base64.b64decode(about["text"]))
        return {"answer": {}}


def begin(strace: Sequence[str] = ()) -> tuple[socket.socket, forks.Process]:
    """A worker that waits for its job, and the service's end of its socket."""
    ours, theirs = socket.socketpair()
    with theirs:
        return ours, forks.start("tests.kernel.one_job", sock=theirs, strace=strace)


def _wake(pid: int) -> bool:
    """Let a process go on that stands still; whether it has ended."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        os.kill(pid, signal.SIGCONT)
    except (FileNotFoundError, ProcessLookupError):
        return True
    return state in "ZX"


def _frame(sock: socket.socket) -> bytes:
    def exactly(count: int) -> bytes:
        data = b""
        while len(data) < count:
            chunk = sock.recv(count - len(data))
            if not chunk:
                raise EOFError
            data += chunk
        return data

    return exactly(job.body_length(exactly(job.HEADER.size)))
