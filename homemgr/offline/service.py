"""The service in an image: the same manager and the same faces, for one caller on a line.

No bus, no user database, no watching: whoever calls has the image to himself. Records and
bindings are those of the machine that the image will be, so it must have a machine id.
"""

from __future__ import annotations

import os
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from homemgr.bus.service import open_faces
from homemgr.daemon import config, keys
from homemgr.daemon.extensions import Choices
from homemgr.daemon.extensions import load as load_rules
from homemgr.daemon.home import Services
from homemgr.daemon.jobs import JobRunner
from homemgr.daemon.manager import Manager
from homemgr.daemon.merging import Extensions
from homemgr.daemon.store import Store
from homemgr.errors import NotSupported
from homemgr.record.machine import Machine
from homemgr.storage import figures, mountpoint
from homemgr.wire.connection import Connection
from homemgr.wire.peer import Peer

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

_MACHINE_ID_DIGITS = 32


class Line(Connection):
    """A connection without a bus between: who is at the other end has become root already."""

    async def credentials(self, sender: str) -> Peer:
        """The process that made the line, as whom it made us."""
        return Peer(os.geteuid(), os.getppid())


async def serve(control: socket.socket, line: socket.socket, ready: Callable[[], None]) -> None:
    """Answer calls until the other end of ``line`` is closed, and finish what they began."""
    settings = config.load({})
    runner = JobRunner(control)
    extensions = Extensions(
        load_rules({}), Choices(settings.choice_directory), runner, settings.runtime_directory
    )
    manager = Manager(
        Services(
            config=settings,
            store=Store(settings.record_directory, settings.blob_root, settings.stamp_directory),
            runner=runner,
            keys=keys.load(settings.key_directories, settings.record_directory),
            machine=machine(settings.home_root),
            extensions=extensions,
            is_mounted=mountpoint.is_active,
            is_elsewhere=True,
        )
    )
    async with AsyncExitStack() as stack:
        stack.callback(runner.close)
        await manager.start()
        stack.push_async_callback(manager.stop)
        ready()
        connection = Line(line)
        dispatcher, faces = open_faces(connection, manager, figures.measure)
        stack.callback(faces.figures.close)
        await connection.wait_closed()
        await manager.activities.stop()
        await dispatcher.drain()
        await runner.wait_idle()


def machine(home_root: str) -> Machine:
    """What identifies the machine that the image will be; NotSupported if nothing does yet."""
    try:
        machine_id = Path("/etc/machine-id").read_text(encoding="ascii").strip()
    except (FileNotFoundError, UnicodeDecodeError):
        machine_id = ""
    if len(machine_id) != _MACHINE_ID_DIGITS:
        raise NotSupported(
            "The image has no machine id, which its homes are bound to:"
            " `systemd-machine-id-setup --root=DIR` gives it one."
        )
    try:
        hostname = Path("/etc/hostname").read_text(encoding="utf-8").strip()
    except (FileNotFoundError, UnicodeDecodeError):
        hostname = ""
    return Machine(machine_id, hostname or None, home_root)
