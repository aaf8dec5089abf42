"""Wording failures on standard error: what, about which home, and one line of advice.

Advice for D-Bus errors comes from the table in `homemgr.errors`. Never shows
anything of a request: it may have held a password.
"""

from __future__ import annotations

import os
import sys

from homemgr.errors import BY_BUS_NAME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from homemgr.wire.messages import BusError

_PREFIX = "org.freedesktop.DBus.Error."
_NOT_RUNNING = "Is it set up and running? See `homemgr setup` and `systemctl status homemgrd`."

_AS_ROOT = "Run it as root."

#: Failures of the bus itself, which no service of ours declares.
_BUS_ADVICE = {
    _PREFIX + "ServiceUnknown": _NOT_RUNNING,
    _PREFIX + "NameHasNoOwner": _NOT_RUNNING,
    _PREFIX + "Spawn.ChildExited": _NOT_RUNNING,
    _PREFIX + "Disconnected": _NOT_RUNNING,
    _PREFIX + "NoReply": "The service may still be working on it: see `homemgr list`.",
    _PREFIX + "NoServer": "Is the system bus running?",
    _PREFIX + "InteractiveAuthorizationRequired": "Run it as root, or leave --no-ask-password out.",
    _PREFIX + "AccessDenied": _AS_ROOT,
}


class Reported(Exception):
    """A failure that was already put into words: only the exit code is left to do."""


def printable(text: str) -> str:
    """``text`` in one line: what others wrote is for people, yet must not steer the terminal."""
    return "".join(c if c.isprintable() else " " for c in text)


def complain(message: str, hint: str = "", *, bus_name: str = "") -> None:
    """Say what went wrong, and below it what can be done about it."""
    known = BY_BUS_NAME.get(bus_name)
    hint = hint or _BUS_ADVICE.get(bus_name, "") or (known.hint if known else "")
    if hint == _AS_ROOT and os.geteuid() == 0:
        # Refused although it is root who asks: the message says why, there is no way around.
        hint = ""
    print(f"homemgr: {printable(message)}", file=sys.stderr)
    if hint:
        print(f"         {hint}", file=sys.stderr)


def complain_of(doing: str, error: BusError) -> None:
    """The failure of a call; ``doing`` says what was tried on which home."""
    complain(f"{doing}: {error.message or error.name}", bus_name=error.name)
