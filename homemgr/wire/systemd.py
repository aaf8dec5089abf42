"""Asking systemd to hold the programs of a user still, and to let them go on.

Knows the part of org.freedesktop.systemd1(5) that is about freezing units.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from homemgr.wire.connection import Connection

_NAME = "org.freedesktop.systemd1"
_PATH = "/org/freedesktop/systemd1"
_MANAGER = "org.freedesktop.systemd1.Manager"


class Systemd:
    """The system's manager as seen over one connection."""

    def __init__(self, connection: Connection) -> None:
        """Speak through ``connection``, which has to be the system bus."""
        self._connection = connection

    async def freeze(self, unit: str) -> None:
        """Have no program in ``unit`` run any more; raises BusError, also if there is no unit."""
        await self._connection.call(_NAME, _PATH, _MANAGER, "FreezeUnit", "s", (unit,))

    async def thaw(self, unit: str) -> None:
        """Let them go on; raises BusError."""
        await self._connection.call(_NAME, _PATH, _MANAGER, "ThawUnit", "s", (unit,))
