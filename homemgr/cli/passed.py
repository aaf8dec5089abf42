"""Credentials that a service manager passed: to this unit, or to the whole machine.

See systemd.exec(5) and systemd.system-credentials(7). Knows where they lie, not what is in them.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from homemgr.files import Fd, read_bounded

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Passed to the machine by its firmware, hypervisor, boot loader or container manager. Units
#: import from there (ImportCredential=), but only from systemd 254 on.
_OF_THE_MACHINE = "/run/credentials/@system"


def passed(
    prefix: str, limit: int, environment: Mapping[str, str], of_machine: str = _OF_THE_MACHINE
) -> dict[str, bytes]:
    """All credentials whose name begins with ``prefix``, by the rest of the name, sorted.

    The unit's own come before the machine's. One larger than ``limit`` bytes raises OSError.
    """
    found: dict[str, bytes] = {}
    for directory in (environment.get("CREDENTIALS_DIRECTORY"), of_machine):
        for name in _names(directory):
            if name.startswith(prefix) and name != prefix:
                assert directory
                found.setdefault(name.removeprefix(prefix), read_bounded(directory, name, limit))
    return dict(sorted(found.items()))


def _names(directory: str | None) -> list[str]:
    """Regular files in it; none if there is no such directory, or it is not for us to read."""
    if not directory:
        return []
    try:
        with Fd.open(directory, os.O_RDONLY | os.O_DIRECTORY) as opened:
            entries = os.listdir(opened.fileno())
    except (FileNotFoundError, PermissionError):
        return []
    return [name for name in entries if os.path.isfile(os.path.join(directory, name))]
