"""Processes of a user, see proc_pid_status(5): by every uid that a process can have."""

from __future__ import annotations

import os
from contextlib import suppress

from homemgr.files import Fd, read_limited

_LIMIT = 1 << 16


def processes_of(uid: int) -> list[tuple[int, str]]:
    """Number and name of every process with ``uid`` as real, effective, saved or file system id."""
    found = []
    for name in os.listdir("/proc"):
        # Ended meanwhile.
        with suppress(OSError):
            if name.isdigit() and (status := _status(name)) and uid in status[1]:
                found.append((int(name), status[0]))
    return sorted(found)


def _status(pid: str) -> tuple[str, list[int]] | None:
    with Fd.open(f"/proc/{pid}/status", os.O_RDONLY) as fd:
        text = read_limited(fd.fileno(), _LIMIT, pid).decode("utf-8", "replace")
    members = dict(line.partition(":")[::2] for line in text.splitlines())
    if "Uid" not in members:
        return None
    return members.get("Name", "").strip(), [int(word) for word in members["Uid"].split()]
