"""Which names and ids the rest of the machine already uses.

Asks NSS (passwd, group) and the tables of System V IPC objects. Every call may
block on a directory server, so all of it runs in threads. Our own user
database is left out of the answers by SYSTEMD_BYPASS_USERDB, which the
composition root sets before the first look-up (nss-systemd(8)).
"""

from __future__ import annotations

import asyncio
import grp
import pwd
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from homemgr import errors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

T = TypeVar("T")

_IPC_TABLES = ("/proc/sysvipc/shm", "/proc/sysvipc/sem", "/proc/sysvipc/msg")


async def name_taken(name: str) -> bool:
    """True if a user or group of this name exists outside of our home areas."""
    return await asyncio.to_thread(_name_taken, name)


async def require_free(names: Iterable[str]) -> None:
    """Raise UserNameExists if one of ``names`` is a user's or group's outside of our home areas.

    Also for aliases: an account's password would otherwise no longer be the only one
    that opens a session under its name.
    """
    for name in names:
        if await name_taken(name):
            raise errors.UserNameExists(f"The name {name} is already taken by an account or group.")


async def id_taken(number: int) -> bool:
    """True if a user, a group or an IPC object outside of our home areas has this id."""
    return await asyncio.to_thread(_id_taken, number)


def _name_taken(name: str) -> bool:
    return _found(pwd.getpwnam, name) or _found(grp.getgrnam, name)


def _id_taken(number: int) -> bool:
    return (
        _found(pwd.getpwuid, number)
        or _found(grp.getgrgid, number)
        or any(_owns_ipc(Path(table), number) for table in _IPC_TABLES)
    )


def _found(look_up: Callable[[T], object], key: T) -> bool:
    try:
        look_up(key)
    except KeyError:
        return False
    return True


def _owns_ipc(table: Path, number: int) -> bool:
    """True if ``number`` stands in the uid, gid, cuid or cgid column of a table (proc(5))."""
    try:
        lines = table.read_text(encoding="ascii").splitlines()
    except FileNotFoundError:
        return False
    if not lines:
        return False
    header = lines[0].split()
    columns = [header.index(c) for c in ("uid", "gid", "cuid", "cgid") if c in header]
    rows = (line.split() for line in lines[1:])
    return any(
        row[column] == str(number) for row in rows for column in columns if column < len(row)
    )
