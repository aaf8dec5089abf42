"""Processes of users: one that sits in a home, one that calls the service."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from homemgr.wire.messages import BusError
from tests.service.site import HOME, MANAGER, MANAGER_PATH, NAME

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]

#: Modules are loaded as root: the user may not be allowed to read our source tree.
_STRANGER = """
import json, os, sys
from homemgr.files import Fd
from homemgr.wire.client import Client
from homemgr.wire.messages import BusError
def sent(value):  # an object stands for files by name
    if not isinstance(value, dict):
        return value
    return {name: Fd.open(path, os.O_RDONLY) for name, path in value.items()}
uid, address = int(sys.argv[1]), sys.argv[2]
os.setgroups([]), os.setresgid(uid, uid, uid), os.setresuid(uid, uid, uid)
with Client(address) as client:
    for line in sys.stdin:
        target, signature, arguments, interactive = json.loads(line)
        try:
            arguments = [sent(value) for value in arguments]
            reply = client.call(*target, signature, arguments, interactive=interactive)
            for fd in reply.fds:
                fd.close()
            answer = {"body": reply.body}
        except BusError as error:
            answer = {"error": [error.name, error.message]}
        print(json.dumps(answer, default=repr), flush=True)
"""


class Stranger:
    """A client with a uid of its own."""

    def __init__(self, uid: int, address: str) -> None:
        """Start it; it ends with `close`."""
        self._process = subprocess.Popen(
            [sys.executable, "-c", _STRANGER, str(uid), address],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def close(self) -> None:
        """End it."""
        self._process.communicate()

    def call(
        self, member: str, signature: str = "", *arguments: object, interactive: bool = False
    ) -> list[object]:
        """Call the manager."""
        target = (NAME, MANAGER_PATH, MANAGER, member)
        return self.call_at(target, signature, *arguments, interactive=interactive)

    def call_home(self, name: str, member: str, signature: str = "", *args: object) -> list[object]:
        """Call a home object."""
        return self.call_at((NAME, f"{MANAGER_PATH}/home/{name}", HOME, member), signature, *args)

    def call_at(
        self,
        target: tuple[str, str, str, str],
        signature: str = "",
        *arguments: object,
        interactive: bool = False,
    ) -> list[object]:
        """Call anything; raises the BusError that came back."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(
            json.dumps([target, signature, arguments, interactive]),
            file=self._process.stdin,
            flush=True,
        )
        answer = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise BusError(*answer["error"])
        body = answer["body"]
        assert isinstance(body, list)
        return body


@contextmanager
def stranger(uid: int, address: str) -> Iterator[Stranger]:
    """A client with this uid until the end of the block."""
    client = Stranger(uid, address)
    try:
        yield client
    finally:
        client.close()


@contextmanager
def sitting_in(directory: Path, uid: int | None = None) -> Iterator[subprocess.Popen[str]]:
    """A process that has its working directory there until the end of the block."""
    program = subprocess.Popen(
        ["sh", "-c", "echo here; read line"],
        cwd=directory,
        user=uid,
        group=uid,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None
    assert program.stdout.readline() == "here\n"
    try:
        yield program
    finally:
        program.communicate()


def write_as(uid: object, path: Path, text: str) -> None:
    """Write a file as its owner would: root has no id in a home."""
    assert isinstance(uid, int)
    subprocess.run(
        ["sh", "-c", 'cat > "$0"', str(path)],
        input=text,
        text=True,
        check=True,
        user=uid,
        group=uid,
        extra_groups=[],
    )


#: By mmap(2) itself: Python's own module keeps the file open.
_MAPPER = """
import ctypes, os, sys
uid = int(sys.argv[2])
os.setgroups([]), os.setresgid(uid, uid, uid), os.setresuid(uid, uid, uid)
fd = os.open(os.fsencode(sys.argv[1]), os.O_RDWR | os.O_CREAT)
os.write(fd, b"x" * 4096)
ctypes.CDLL(None).mmap(None, 4096, 1, 1, fd, 0)
os.close(fd)
print(flush=True)
sys.stdin.read()
"""


@contextmanager
def mapping(path: bytes, uid: int) -> Iterator[subprocess.Popen[bytes]]:
    """A process of a user that has a new file in memory, not open, until the end of the block."""
    argv = [sys.executable.encode(), b"-c", _MAPPER.encode(), path, b"%d" % uid]
    program = subprocess.Popen(argv, cwd="/", stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert program.stdout is not None
    assert program.stdout.readline() == b"\n"
    try:
        yield program
    finally:
        program.communicate()
