"""org.freedesktop.LogControl1: what `systemctl service-log-level` and `-log-target` talk to.

Interface as org.freedesktop.LogControl1(5), which systemd-homed has too. Only root may change
something; what is set holds until the service ends, for its workers as well.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from homemgr import errors
from homemgr.wire import logs
from homemgr.wire.dispatch import Interface, Node, Property

if TYPE_CHECKING:
    from homemgr.daemon.access import Authority
    from homemgr.wire.dispatch import Call

PATH = "/org/freedesktop/LogControl1"
NAME = "org.freedesktop.LogControl1"

_PRIVILEGED = (("org.freedesktop.systemd1.Privileged", "true"),)

#: What systemd's own services know besides; our log goes to standard error, wherever that leads.
_ELSEWHERE: Final = (
    *("console", "console-prefixed", "kmsg", "journal", "journal-or-kmsg"),
    *("syslog", "syslog-or-kmsg"),
)


class LogControl:
    """How much is logged, and whether at all."""

    def __init__(self, authority: Authority) -> None:
        """Let those change it whom ``authority`` lets."""
        self._authority = authority

    @property
    def level(self) -> str:
        """The least serious level that is logged."""
        return logs.NAMES[logs.level()]

    @property
    def target(self) -> str:
        """Where the log goes."""
        return "null" if logs.is_silent() else _own_target()

    async def set_level(self, call: Call, value: str) -> None:
        """Log ``value`` and what is more serious; raises AccessDenied, InvalidArgs."""
        await self._authority.require_root(call)
        if value not in logs.NAMES:
            raise errors.InvalidArgs(f"LogLevel: {value!r} is none of {', '.join(logs.NAMES)}.")
        logs.set_level(logs.NAMES.index(value))

    async def set_target(self, call: Call, value: str) -> None:
        """Log, or do not; raises AccessDenied, InvalidArgs, NotSupported for other places."""
        await self._authority.require_root(call)
        own = _own_target()
        if value not in ("auto", "null", own):
            known = f"expected auto, {own} or null"
            if value in _ELSEWHERE:
                raise errors.NotSupported(f"LogTarget: cannot log to {value}, {known}.")
            raise errors.InvalidArgs(f"LogTarget: {value!r} is no target, {known}.")
        logs.set_silent(silent=value == "null")


def _own_target() -> str:
    # Set by the service manager if standard error is connected to the journal (systemd.exec(5)).
    return "journal" if "JOURNAL_STREAM" in os.environ else "console"


INTERFACE = Interface(
    NAME,
    properties=(
        Property(
            "LogLevel",
            "s",
            lambda control, _call: control.level,
            annotations=_PRIVILEGED,
            set=LogControl.set_level,
        ),
        Property(
            "LogTarget",
            "s",
            lambda control, _call: control.target,
            annotations=_PRIVILEGED,
            set=LogControl.set_target,
        ),
        Property("SyslogIdentifier", "s", lambda _control, _call: "homemgrd"),
    ),
)


def node(authority: Authority) -> Node:
    """The object at PATH."""
    return Node(LogControl(authority), (INTERFACE,))
