"""Asking logind to wait for us before the machine sleeps.

Knows the part of org.freedesktop.login1(5) that is about sleep; what is to be done before
is decided elsewhere. See systemd's "Inhibitor Locks" for how delay locks work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from homemgr.files import Fd
from homemgr.wire.codec import Variant
from homemgr.wire.messages import BusError

if TYPE_CHECKING:
    from collections.abc import Callable

    from homemgr.wire.connection import Connection

_NAME = "org.freedesktop.login1"
_PATH = "/org/freedesktop/login1"
_MANAGER = "org.freedesktop.login1.Manager"
_PROPERTIES = "org.freedesktop.DBus.Properties"
#: logind's default, for when it does not say.
_DELAY_S = 5.0


class Logind:
    """logind as seen over one connection."""

    def __init__(self, connection: Connection) -> None:
        """Speak through ``connection``, which has to be the system bus logind is on."""
        self._connection = connection

    async def follow(
        self, sleeping: Callable[[bool], object], appeared: Callable[[], object]
    ) -> None:
        """Call ``sleeping`` with True before sleep and with False after it.

        ``appeared`` is called whenever another logind has started.
        """

        def told(_path: str, arguments: list[object]) -> None:
            sleeping(arguments == [True])

        await self._connection.subscribe(_NAME, _MANAGER, "PrepareForSleep", told, appeared)

    async def delay_sleep(self, who: str, why: str) -> Fd:
        """Have sleep wait until the descriptor is closed; raises BusError.

        Closing it lets the machine sleep; while it is about to, none can be had.
        """
        asked = ("sleep", who, why, "delay")
        (lock,) = await self._connection.call(_NAME, _PATH, _MANAGER, "Inhibit", "ssss", asked)
        if not isinstance(lock, Fd):
            raise BusError("org.freedesktop.DBus.Error.InvalidSignature", "no descriptor came")
        return lock

    async def longest_delay_s(self) -> float:
        """How long logind waits at most, in seconds."""
        asked = (_MANAGER, "InhibitDelayMaxUSec")
        try:
            reply = await self._connection.call(_NAME, _PATH, _PROPERTIES, "Get", "ss", asked)
        except BusError:
            return _DELAY_S
        match reply:
            case [Variant(value=int() as usec)]:
                return usec / 1_000_000
        return _DELAY_S
