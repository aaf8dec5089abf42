"""Telling the service manager how we are, and taking back what it kept for us.

Knows sd_notify(3), sd_watchdog_enabled(3) and sd_listen_fds(3) by their environment
variables; does nothing where there is no service manager.
"""

from __future__ import annotations

import array
import logging
import os
from socket import AF_UNIX, SCM_RIGHTS, SOCK_CLOEXEC, SOCK_DGRAM, SOL_SOCKET, socket
from typing import TYPE_CHECKING

from homemgr.files import Fd

if TYPE_CHECKING:
    from collections.abc import Sequence

log = logging.getLogger(__name__)

#: First descriptor handed over, by definition (SD_LISTEN_FDS_START).
_FIRST = 3
#: The manager reads at once unless it is stuck itself; then we must go on.
_TIMEOUT_S = 0.5


def notify(*fds: Fd, **assignments: str) -> bool:
    """Send ``READY="1"``, ``STATUS=…`` and so on; True if a service manager took it."""
    # A line break would end the assignment and begin another.
    lines = (f"{key}={value}".replace("\n", " ") for key, value in assignments.items())
    return _send("\n".join(lines).encode("utf-8", "replace"), fds)


def store(name: str, fd: Fd) -> bool:
    """Have a duplicate of ``fd`` kept across our restarts, under ``name``."""
    # FDPOLL=0: a pipe whose other end closed is news for us, not a reason to drop it.
    return notify(fd, FDSTORE="1", FDNAME=name, FDPOLL="0")


def unstore(name: str) -> bool:
    """Have what was kept under ``name`` closed."""
    return notify(FDSTOREREMOVE="1", FDNAME=name)


def _send(text: bytes, fds: Sequence[Fd]) -> bool:
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    rights = []
    if fds:
        numbers = array.array("i", [fd.fileno() for fd in fds])
        rights = [(SOL_SOCKET, SCM_RIGHTS, numbers)]
    # Opened each time: the manager may be a new one after a re-execution.
    with socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC) as sender:
        sender.settimeout(_TIMEOUT_S)
        try:
            name = "\0" + address[1:] if address.startswith("@") else address
            sender.sendmsg([text], rights, 0, name)
        except OSError as wrong:
            log.warning("The service manager cannot be told: %s.", wrong)
            return False
    return True


def watchdog_interval_s() -> float | None:
    """Within how many seconds ``WATCHDOG="1"`` is wanted; None if nobody watches us."""
    usec = os.environ.get("WATCHDOG_USEC", "")
    if not usec.isdecimal() or int(usec) == 0 or not _is_ours("WATCHDOG_PID"):
        return None
    return int(usec) / 1_000_000


def stored() -> dict[str, list[Fd]]:
    """What the service manager handed over, by name; the second time nothing.

    Call it before any file is opened: the numbers are fixed.
    """
    count = os.environ.get("LISTEN_FDS", "")
    names = os.environ.get("LISTEN_FDNAMES", "").split(":")
    is_ours = _is_ours("LISTEN_PID")
    for variable in ("LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID"):
        # Not for our children.
        os.environ.pop(variable, None)
    found: dict[str, list[Fd]] = {}
    if not count.isdecimal() or not is_ours:
        return found
    for index in range(int(count)):
        name = names[index] if index < len(names) and names[index] else "unknown"
        found.setdefault(name, []).append(Fd(_FIRST + index))
    return found


def _is_ours(variable: str) -> bool:
    """Whether the variables are meant for this process; a missing pid means anybody's."""
    return os.environ.get(variable, str(os.getpid())) == str(os.getpid())
