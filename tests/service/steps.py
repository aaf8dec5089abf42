"""System calls that last, of a program and of all that it starts: counted, and held at one of them.

The kernel asks us before each of them, see seccomp_unotify(2): the one after which nothing is
to happen any more is never answered, nor is any later one. `python -m tests.service.steps SOCKET
PROGRAM...` has itself watched and becomes the program.
"""

from __future__ import annotations

import array
import ctypes
import fcntl
import os
import platform
import select
import socket
import struct
import sys
from contextlib import suppress
from pathlib import Path
from threading import Event, Thread
from typing import NamedTuple

from homemgr.files import Fd

#: Calls that change names or have something written, by architecture.
_CALLS = {
    "x86_64": {
        "fsync": 74,
        "fdatasync": 75,
        "ftruncate": 77,
        "rename": 82,
        "mkdir": 83,
        "rmdir": 84,
        "link": 86,
        "unlink": 87,
        "sync": 162,
        "umount2": 166,
        "mkdirat": 258,
        "unlinkat": 263,
        "renameat": 264,
        "linkat": 265,
        "fallocate": 285,
        "syncfs": 306,
        "renameat2": 316,
        "move_mount": 429,
    },
    "aarch64": {
        "mkdirat": 34,
        "unlinkat": 35,
        "linkat": 37,
        "renameat": 38,
        "umount2": 39,
        "ftruncate": 46,
        "fallocate": 47,
        "sync": 81,
        "fsync": 82,
        "fdatasync": 83,
        "syncfs": 267,
        "renameat2": 276,
        "move_mount": 429,
    },
}
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_SET_MODE_FILTER, _NEW_LISTENER = 1, 8
_ASK, _ALLOW = 0x7FC00000, 0x7FFF0000
#: Load the number of the call; compare; return. See linux/filter.h.
_LOAD, _IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
#: id, pid, flags; number, architecture, instruction, six arguments.
_QUESTION = struct.Struct("=QII iIQ6Q")
#: id, value, error, flags.
_ANSWER = struct.Struct("=QqiI")
_GO_ON = 1


def _ioctl(number: int, layout: struct.Struct) -> int:
    """Both directions, of seccomp."""
    return 3 << 30 | layout.size << 16 | ord("!") << 8 | number


_RECEIVE, _SEND = _ioctl(0, _QUESTION), _ioctl(1, _ANSWER)


class Step(NamedTuple):
    """A call that somebody was about to do."""

    program: str
    call: str


class Steps:
    """The steps of one program after the other; `close` ends it."""

    def __init__(self) -> None:
        """Watch nobody yet."""
        self._door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._door.bind("")
        self._door.listen()
        self._names = {number: name for name, number in _CALLS[platform.machine()].items()}
        #: Those that were done or are held, since `begin`.
        self.done: list[Step] = []
        self._last: int | None = None
        #: Set when one is held.
        self.held = Event()
        self._end, self._ending = os.pipe()
        self._thread = Thread(target=self._watch, daemon=True)
        self._thread.start()

    def under(self) -> list[str]:
        """What a program is started with to be watched."""
        return [sys.executable, "-m", "tests.service.steps", self._door.getsockname()[1:].decode()]

    def begin(self, last: int | None = None) -> None:
        """Count anew, and hold all from step ``last`` on (0 is the first)."""
        self.done = []
        self.held.clear()
        self._last = last

    def close(self) -> None:
        """Watch nobody any more; who is held has to be dead by now."""
        os.write(self._ending, b"x")
        self._thread.join()
        os.close(self._end)
        os.close(self._ending)
        self._door.close()

    def _watch(self) -> None:
        watched: list[Fd] = []
        while True:
            ready, _, _ = select.select([self._end, self._door, *watched], [], [])
            if self._end in ready:
                break
            if self._door in ready:
                watched.append(self._greet())
            for listener in [one for one in watched if one in ready]:
                if not self._answer(listener):
                    watched.remove(listener)
                    listener.close()
        for listener in watched:
            listener.close()

    def _greet(self) -> Fd:
        line, _ = self._door.accept()
        with line:
            _, (listener,), _, _ = socket.recv_fds(line, 1, 1)
        return Fd(listener)

    def _answer(self, listener: Fd) -> bool:
        """Hear of one call; False if there is nobody left who could do one."""
        question = bytearray(_QUESTION.size)
        try:
            fcntl.ioctl(listener.fileno(), _RECEIVE, question)
        except FileNotFoundError:
            # Killed meanwhile. Of the last one there is no question any more, but an end.
            poll = select.poll()
            poll.register(listener.fileno(), select.POLLIN)
            return not any(event & select.POLLHUP for _, event in poll.poll(0))
        number, pid, _, call, *_ = _QUESTION.unpack(question)
        program = ""
        with suppress(OSError):
            program = Path(f"/proc/{pid}/comm").read_text().strip()
        self.done.append(Step(program, self._names[call]))
        if self._last is not None and len(self.done) > self._last:
            self.held.set()
            return True
        with suppress(FileNotFoundError):
            fcntl.ioctl(listener.fileno(), _SEND, _ANSWER.pack(number, 0, 0, _GO_ON))
        return True


def _be_watched() -> Fd:
    """Have this process and its children ask before each of the calls; gives where."""
    numbers = sorted(_CALLS[platform.machine()].values())
    program = [(_LOAD, 0, 0, 0)]
    for at, number in enumerate(numbers):
        program.append((_IF_EQUAL, len(numbers) - at, 0, number))
    program += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _ASK)]
    code = array.array("B", b"".join(struct.pack("=HBBI", *one) for one in program))
    address, _ = code.buffer_info()
    filter_ = struct.pack("HxxxxxxP", len(program), address)
    libc = ctypes.CDLL(None, use_errno=True)
    asked = _SECCOMP[platform.machine()], _SET_MODE_FILTER, _NEW_LISTENER
    number = libc.syscall(*asked, filter_)
    if number < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    return Fd(number)


def main() -> None:
    """Be watched by who listens at the socket, and become the program."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as line:
        line.connect(f"\0{sys.argv[1]}")
        with _be_watched() as listener:
            socket.send_fds(line, [b"x"], [listener.fileno()])
    os.execv(sys.argv[2], sys.argv[2:])  # noqa: S606


if __name__ == "__main__":
    main()
