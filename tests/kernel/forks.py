"""Programs of tests in processes of their own, forked from one that has imported them.

To start Python and to import takes several times as long as what most of them do.
"""

from __future__ import annotations

import importlib
import os
import select
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from threading import Lock

from homemgr.files import Fd
from tests import stretching

ROOT = Path(__file__).resolve().parents[2]
#: What a process is told to begin, and says at its end; one that is killed says nothing.
GO, DONE, FAILED = b">", b".", b"!"


class Process:
    """A program that runs: it can be killed, and has to be waited for."""

    def __init__(self, pidfd: Fd, gate: socket.socket, strace: subprocess.Popen[str] | None):
        self._pidfd, self._gate, self._strace = pidfd, gate, strace
        self._waiting, self._closing = Lock(), Lock()
        self._last_word: bytes | None = None

    def kill(self) -> None:
        """With SIGKILL, if it has not ended."""
        with self._closing, suppress(ProcessLookupError):
            if self._pidfd.is_open:
                signal.pidfd_send_signal(self._pidfd.fileno(), signal.SIGKILL)

    def wait(self) -> bytes:
        """Wait for its end: `DONE`, `FAILED`, or nothing if it was killed."""
        with self._waiting:
            if self._last_word is None:
                if self._strace is not None:
                    self._strace.communicate()
                end = select.poll()
                end.register(self._pidfd.fileno(), select.POLLIN)
                end.poll()
                try:
                    self._last_word = self._gate.recv(1)
                except ConnectionResetError:
                    # Killed before it had taken the word to begin.
                    self._last_word = b""
                with self._closing:
                    self._pidfd.close()
                self._gate.close()
            return self._last_word


class Nursery:
    """The process that forks; it ends when it is closed."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._one_at_a_time = Lock()
        argv = [sys.executable, "-B", "-m", __name__, str(theirs.fileno())]
        with theirs:
            self._server = subprocess.Popen(argv, cwd=ROOT, pass_fds=[theirs.fileno()])

    def close(self) -> None:
        """What it forked goes on."""
        self._control.close()
        self._server.wait()

    def fork(self, words: Sequence[str], sockets: Sequence[socket.socket]) -> tuple[int, Fd]:
        """A process that lives for ``words``: its number and descriptor."""
        with self._one_at_a_time:
            fds = [sock.fileno() for sock in sockets]
            socket.send_fds(self._control, ["\0".join(words).encode()], fds)
            answer, (pidfd,), _, _ = socket.recv_fds(self._control, 16, 1)
        return int(answer), Fd(pidfd)


_nurseries: list[Nursery] = []


@contextmanager
def nursery() -> Iterator[None]:
    """Until the end of the block programs can be started in the namespaces of now."""
    _nurseries.append(Nursery())
    try:
        yield
    finally:
        _nurseries.pop().close()


def start(
    program: str, *words: str, sock: socket.socket | None = None, strace: Sequence[str] = ()
) -> Process:
    """Run ``program``, watched by strace if there are options for it.

    That is a module whose `main` takes ``sock``, if there is one, and ``words``.
    """
    ours, theirs = socket.socketpair()
    with theirs:
        sockets = [theirs] if sock is None else [theirs, sock]
        pid, pidfd = _nurseries[-1].fork((program, *words), sockets)
    watching = _watch(pid, strace) if strace else None
    ours.sendall(GO)
    return Process(pidfd, ours, watching)


def _watch(pid: int, options: Sequence[str]) -> subprocess.Popen[str]:
    """Strace, which has stopped the process once before this returns."""
    argv = ["strace", "-f", "-e", "signal=none", *options, "-p", str(pid)]
    strace = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
    assert strace.stderr is not None
    told = strace.stderr.readline()
    assert "attached" in told, told
    return strace


# -- in the process that forks -------------------------------------------------------------


def _serve(control: socket.socket) -> None:
    while True:
        text, fds, _, _ = socket.recv_fds(control, 1 << 16, 2)
        if not text:
            return
        name, *words = text.decode().split("\0")
        main = importlib.import_module(name).main
        # Those that ended since; none goes before its descriptor was made.
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        pid = os.fork()
        if not pid:
            control.close()
            gate, *others = (socket.socket(fileno=fd) for fd in fds)
            _live(gate, partial(main, *others, *words))
        with Fd.opened(os.pidfd_open(pid)) as pidfd:
            socket.send_fds(control, [b"%d" % pid], [pidfd.fileno()])
        for fd in fds:
            os.close(fd)


def _live(gate: socket.socket, main: Callable[[], None]) -> None:
    """Run a program and end."""
    word = FAILED
    try:
        if gate.recv(1) == GO:
            main()
            word = DONE
    except BaseException:  # noqa: BLE001 -- nobody is above
        traceback.print_exc()
    with suppress(OSError):
        gate.send(word)
    os._exit(0)


if __name__ == "__main__":
    stretching.make_short()
    _serve(socket.socket(fileno=int(sys.argv[1])))
