"""The other machine, reached through the user's own ssh: which program, which words, how it ends.

ssh asks its own questions on the terminal and finds its own keys; it gets one end of the
stream as standard input and output. What it and the other machine say on standard error
is passed on, except for the one line in which the other homemgr tells how it ended.
See ssh(1), `outcome`.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys

from homemgr.cli import outcome
from homemgr.cli.arguments import UsageError
from homemgr.cli.complain import Reported, complain
from homemgr.cli.home1 import BusError
from homemgr.cli.ssh_cipher import Ciphers
from homemgr.errors import (
    AccessDenied,
    HomeError,
    InteractiveAuthorizationRequired,
    TransferInterrupted,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from homemgr.cli.progress import ProgressLine
    from homemgr.files import Fd

#: Names the ssh program and options of its own, where --ssh= does not.
VARIABLE = "HOMEMGR_SSH"

#: Between the words of the user's command and the host. Nothing of the user's settings may
#: take the stream, start another command or open further ways; a dead peer is noticed in 45 s.
_OPTIONS = (
    "-T",
    "-enone",
    "-oRemoteCommand=none",
    "-oClearAllForwardings=yes",
    "-oForwardAgent=no",
    "-oForwardX11=no",
    "-oPermitLocalCommand=no",
    "-oCompression=no",
    "-oServerAliveInterval=15",
    "-oServerAliveCountMax=3",
)

#: Run by the login shell over there, whatever it is; an ssh without a login has a short PATH.
_SEARCH = (
    "PATH=$PATH:/usr/local/bin:/opt/homemgr/bin;"
    ' command -v homemgr >/dev/null || exit 127; exec homemgr "$@"'
)

#: Exit codes: of ssh itself, of a shell that finds no such program, or may not run it.
NO_CONNECTION = 255
_NO_PROGRAM = (126, 127)
#: How a homemgr ends that does not understand the words.
_USAGE = (1, 2)

_FORBIDDEN = (AccessDenied.bus_name, InteractiveAuthorizationRequired.bus_name)

#: How long ssh may take to end after the stream has ended (s).
_GRACE_S = 10.0
_CHUNK_BYTES = 65536
_MAX_LINE_BYTES = 1 << 20


class Host:
    """Where the other homemgr is, and how it is reached."""

    def __init__(self, name: str, ssh: str = "", remote: str = "") -> None:
        """``name`` is [LOGIN@]HOST. UsageError if it cannot be one.

        ``ssh`` are program and options, split as a shell does; else HOMEMGR_SSH, else ssh.
        ``remote`` is what the login shell over there runs in the place of homemgr.
        """
        self.name = _checked(name)
        self._ssh = _words(ssh or os.environ.get(VARIABLE, "") or "ssh")
        self._remote = remote
        self._ciphers: Ciphers | None = None

    def require_ssh(self) -> None:
        """Raise Reported if there is no such program: before anything is begun."""
        if not _is_program(self._ssh[0]):
            complain(f"There is no {self._ssh[0]} to reach {self.name} with.", _NO_SSH)
            raise Reported
        self._ciphers = Ciphers(self._ssh, self.name)

    def command(self, words: Sequence[str]) -> list[str]:
        """The whole command line that runs homemgr with ``words`` over there."""
        start = self._remote or shlex.join(["sh", "-c", _SEARCH, "homemgr"])
        options = [*_OPTIONS, *(self._ciphers.option() if self._ciphers else ())]
        return [*self._ssh, *options, "--", self.name, f"{start} {shlex.join(words)}"]

    def run(self, words: Sequence[str], stream: Fd, line: ProgressLine) -> Remote:
        """Start it with ``stream`` as its input and output."""
        child = subprocess.Popen(
            self.command(words), stdin=stream.fileno(), stdout=stream.fileno(),
            stderr=subprocess.PIPE,
        )  # fmt: skip
        return Remote(self.name, child, line)


class Remote:
    """homemgr at work on the other machine, and ssh between it and us."""

    def __init__(self, host: str, child: subprocess.Popen[bytes], line: ProgressLine) -> None:
        """Take over the process; ``line`` makes room for what it says."""
        assert child.stderr is not None
        self._host = host
        self._child = child
        self._errors = child.stderr
        self._line = line
        self._unread = b""
        self._outcome: dict[str, object] | None = None
        os.set_blocking(self._errors.fileno(), False)

    def relay(self) -> None:
        """Pass on what was said since the last time."""
        while True:
            try:
                data = os.read(self._errors.fileno(), _CHUNK_BYTES)
            except BlockingIOError:
                return
            if not data:
                return
            *lines, self._unread = (self._unread + data).split(b"\n")
            if len(self._unread) > _MAX_LINE_BYTES:
                lines, self._unread = [*lines, self._unread], b""
            for text in lines:
                self._say(text)

    def end(self) -> None:
        """Wait until it has ended; not for ever, it has nothing to do any more."""
        try:
            self._child.wait(_GRACE_S)
        except subprocess.TimeoutExpired:
            self.leave()
        else:
            self._close()

    def leave(self) -> None:
        """Have it end without waiting for the other machine."""
        self._child.terminate()
        self._child.wait()
        self._close()

    def _close(self) -> None:
        self.relay()
        if self._unread:
            self._say(self._unread)
        # Not to its end: a connection that ssh shares with later ones keeps it open.
        self._errors.close()

    def failure(self, *, has_begun: bool) -> Exception | None:
        """Why it failed, once it has ended: a BusError or HomeError; None if it did not.

        ``has_begun`` tells whether the two machines have talked to each other.
        """
        code = self._child.returncode
        if self._outcome is not None:
            name, text = self._outcome.get("error"), f"{self._host}: {self._outcome.get('message')}"
            if name in _FORBIDDEN:
                return Forbidden(text)
            return BusError(str(name), text) if name else None
        if not code:
            return None
        if has_begun:
            return TransferInterrupted(f"The connection to {self._host} broke.")
        if code == NO_CONNECTION or code < 0:
            return NoConnection(f"ssh did not get through to {self._host}.")
        if code in _NO_PROGRAM:
            return Unable(f"There is no homemgr on {self._host}, or not where ssh finds it.")
        if code in _USAGE:
            return Unable(f"The homemgr on {self._host} is of another version: it cannot do this.")
        return Unable(f"The command on {self._host} ended with {code}.")

    def _say(self, data: bytes) -> None:
        text = data.decode(errors="replace").rstrip("\r")
        if (told := outcome.read(text)) is not None:
            self._outcome = told
            return
        self._line.clear()
        # The other machine's text must not steer our terminal.
        print("".join(c if c.isprintable() or c == "\t" else " " for c in text), file=sys.stderr)


class NoConnection(HomeError):
    """ssh failed before the other homemgr was heard; it has said why."""

    hint = "Nothing was begun. Try ssh by itself, or see --ssh=."


class Unable(HomeError):
    """The other machine has no homemgr that could do it."""

    hint = "Nothing was begun. It needs homemgr on both machines; see --remote=."


class Forbidden(HomeError):
    """The login on the other machine may not do it."""

    hint = "Log in there as root, or have it run with --remote='sudo homemgr'."


_NO_SSH = f"Install OpenSSH, or name the program with --ssh= or {VARIABLE}."


def _checked(name: str) -> str:
    """``name`` as ssh takes it: without the brackets that IPv6 addresses have elsewhere."""
    login, at, host = name.rpartition("@")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    # An option of ssh can run any program: nothing that could be taken for one gets there.
    if not host or host.startswith("-") or login.startswith("-") or (at and not login):
        raise UsageError(f"{name}: expected [LOGIN@]HOST.")
    if any(c.isspace() or not c.isprintable() for c in name):
        raise UsageError(f"{name}: expected [LOGIN@]HOST.")
    return f"{login}{at}{host}"


def _is_program(name: str) -> bool:
    """Whether execvp(3) would find it."""
    directories = [""] if "/" in name else os.get_exec_path()
    paths = [os.path.join(directory, name) for directory in directories]
    return any(os.path.isfile(path) and os.access(path, os.X_OK) for path in paths)


def _words(command: str) -> list[str]:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"{command}: this is no command: {error}.") from error
    if not words:
        raise UsageError("The ssh program has no name.")
    return words
