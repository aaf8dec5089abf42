"""`homemgr with USER [COMMAND...]`: run a command while the home is available.

The command runs as the caller, inside the home; its exit code is ours. The home
goes again afterwards unless somebody else uses it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys

from homemgr.cli.complain import complain, printable
from homemgr.cli.credentials import Credentials, unlock
from homemgr.cli.dumps import as_started
from homemgr.cli.home1 import BusError, Home1, Reply, error_is, with_agent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from homemgr.cli.arguments import Arguments

OPTIONS = ()
#: Words before the command: what follows the user belongs to the command, options included.
WORDS = 1

_FORWARDED = (signal.SIGTERM, signal.SIGHUP)
_NOT_FOUND, _NOT_EXECUTABLE = 127, 126


def run(arguments: Arguments) -> int:
    """Acquire, run, release."""
    user, *command = arguments.words
    home1 = Home1(arguments)
    with_agent(home1)
    credentials = Credentials.from_environment()
    suspend = os.environ.get("SYSTEMD_PLEASE_SUSPEND_HOME", "") in ("1", "yes", "true", "on")

    def call() -> Reply:
        try:
            return home1.call("AcquireHome", "ssb", user, credentials.to_json(), suspend)
        except BusError as error:
            if credentials.has_password or not error_is(error, "BadPassword"):
                raise
            return _without_secret(home1, user, error, suspend=suspend)

    doing = f"Cannot acquire home {user}"
    reply = unlock(user, credentials, call, doing, may_ask=home1.may_ask)
    # The descriptor is the reference: the home stays while it is open.
    (reference,) = reply.fds
    with reference:
        # Asked after acquiring: a home that was never used here has its path only now.
        home = str(home1.call("GetHomeByName", "s", user).body[4])
        code = _run(command or [os.environ.get("SHELL") or "/bin/sh"], home)
    # After closing: a release with a live reference is refused as busy.
    _release(home1, user)
    return code


def _without_secret(home1: Home1, user: str, refused: BusError, *, suspend: bool) -> Reply:
    """What root gets without a password, as a session does; raises ``refused`` if nothing."""
    if os.geteuid() == 0:
        with contextlib.suppress(BusError):
            return home1.call("RefHome", "sb", user, suspend)
    raise refused


def _release(home1: Home1, user: str) -> None:
    try:
        home1.call("ReleaseHome", "s", user)
    except BusError as error:
        if not error_is(error, "HomeBusy"):
            raise
        # Not a failure: another session, or a program left behind, still uses it.
        print(printable(f"Home {user} stays active: {error.message}"), file=sys.stderr)


def _run(command: list[str], home: str) -> int:
    # ^C is for the command; we have to stay to release the home. A handler, not
    # SIG_IGN: that one the command would inherit.
    previous = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        with as_started():
            child = subprocess.Popen(command, cwd=home)
    except FileNotFoundError as error:
        complain(f"{command[0]}: {error.strerror}.")
        return _NOT_FOUND
    except OSError as error:
        complain(f"{command[0]}: {error.strerror}.")
        return _NOT_EXECUTABLE
    else:
        handlers = {n: signal.signal(n, lambda n, _: child.send_signal(n)) for n in _FORWARDED}
        code = child.wait()
        for number, handler in handlers.items():
            signal.signal(number, handler)
        return code if code >= 0 else 128 - code
    finally:
        signal.signal(signal.SIGINT, previous)
