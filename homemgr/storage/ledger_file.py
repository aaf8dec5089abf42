"""The file of a `ledger.Ledger`: its tables, how it is opened, and what its failures mean.

One process uses it at a time, and after a power failure it is as of the last commit: see
"Atomic Commit In SQLite" in SQLite's documentation. Whether that is so is looked at when it is
opened; not again after a run of the same boot that ended in order, as nothing but a disk that
breaks its word can make it another file then, and a look takes as long as many a transfer.
"""

from __future__ import annotations

import errno
import os
import sqlite3
from contextlib import suppress
from typing import TYPE_CHECKING

from homemgr.errors import NoDiskSpace, SystemFailure, TransferBusy, from_os_error

if TYPE_CHECKING:
    from collections.abc import Iterable

    from homemgr.errors import HomeError

#: The form of the tables and of the digests in them. Of another one all is found out again.
_VERSION = 3

#: SQLite's cache, in KiB: bounds the memory, whatever the size of the home.
_CACHE_KIB = 16 << 10

#: How the file is used: by one process alone, and after a power failure it is whole.
_USE = (
    f"PRAGMA cache_size = -{_CACHE_KIB}",
    "PRAGMA locking_mode = EXCLUSIVE",
    "PRAGMA synchronous = FULL",
)

#: With less there may be no room for one more file (bytes); xfs makes room for 64 at once.
_FULL_BYTES = 1 << 20

_SCHEMA = (
    """CREATE TABLE entry (
        directory BLOB NOT NULL, name BLOB NOT NULL,
        signature BLOB NOT NULL, kind INTEGER NOT NULL, size INTEGER NOT NULL,
        inode INTEGER, proof BLOB NOT NULL, entry BLOB NOT NULL, digest BLOB NOT NULL,
        blocks BLOB NOT NULL,
        PRIMARY KEY (directory, name)
    ) WITHOUT ROWID""",
    "CREATE INDEX by_inode ON entry (inode) WHERE inode IS NOT NULL",
    # Of large files alone: for the many small ones it would take more time than all the rest.
    "CREATE INDEX by_digest ON entry (digest) WHERE size > 65536",
    "CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID",
    f"PRAGMA user_version = {_VERSION}",
)

#: SQLite's result codes for a file that is damaged, none of SQLite, or has other tables.
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR)

#: Extended attribute: what the file was when a run that ended in order left it, see `_looks`.
_LEFT = "trusted.homemgr.left"
#: Another one after each boot, see random(4).
_BOOT = "/proc/sys/kernel/random/boot_id"


class _UnreadableError(Exception):
    """The file is no ledger of this version."""


def open_database(path: str) -> sqlite3.Connection:
    """The ledger at ``path``, made or begun anew if need be, with a transaction open.

    `TransferBusy` if another process uses it, `SystemFailure` if it cannot be had.
    """
    try:
        try:
            return _open(path)
        except _UnreadableError:
            os.replace(path, f"{path}.corrupt")
            # It would be applied to the new file.
            with suppress(FileNotFoundError):
                os.unlink(f"{path}-journal")
            return _open(path)
    except sqlite3.Error as error:
        raise failure(error, path) from error
    except OSError as error:
        raise from_os_error(error, f"Cannot open {path}") from error


def _open(path: str) -> sqlite3.Connection:
    # Made here: sqlite would leave it to the umask who else may read it.
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    is_checked = _is_as_left(path)
    # Who has it open works on the same transfer: not waited for, but TransferBusy at once.
    database = sqlite3.connect(path, isolation_level=None, timeout=0)
    try:
        _prepare(database, is_checked=is_checked)
    except BaseException as error:
        database.close()
        if isinstance(error, sqlite3.Error) and _code(error) in _DAMAGED:
            raise _UnreadableError from error
        raise
    return database


def _prepare(database: sqlite3.Connection, *, is_checked: bool) -> None:
    """Check what is there, or make the tables; a transaction is open then, as ever after."""
    _execute(database, (*_USE, "BEGIN EXCLUSIVE"))
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version == 0:
        _execute(database, _SCHEMA)
        return
    if version != _VERSION or not (is_checked or _is_whole(database)):
        raise _UnreadableError


def _is_whole(database: sqlite3.Connection) -> bool:
    found: object = database.execute("PRAGMA quick_check(1)").fetchone()
    return found == ("ok",)


def note_left(path: str) -> None:
    """Note that the ledger at ``path``, closed by now, was in use to the end of a run in order."""
    # Where that cannot be noted it is looked at the next time.
    with suppress(OSError):
        looks = _looks(path)
        if not _is_as_left(path):
            os.setxattr(path, _LEFT, looks, follow_symlinks=False)


def _is_as_left(path: str) -> bool:
    try:
        return os.getxattr(path, _LEFT, follow_symlinks=False) == _looks(path)
    except OSError:
        return False


def _looks(path: str) -> bytes:
    """The boot, and what tells the file from another one, or from itself once it was written."""
    with open(_BOOT, "rb") as file:
        boot = file.read().strip()
    found = os.stat(path, follow_symlinks=False)
    return b"%b %d %d %d" % (boot, found.st_ino, found.st_size, found.st_mtime_ns)


def _execute(database: sqlite3.Connection, statements: Iterable[str]) -> None:
    for statement in statements:
        database.execute(statement)


def _code(error: sqlite3.Error) -> int:
    """SQLite's primary result code."""
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def failure(error: sqlite3.Error, path: str) -> HomeError:
    """The answer for what SQLite says about the ledger at ``path``."""
    code = _code(error)
    if code in _DAMAGED:
        # It is looked at the next time, and then begun anew.
        with suppress(OSError):
            os.removexattr(path, _LEFT, follow_symlinks=False)
    # The latter too if there is no space for its journal, and does not say so.
    if code == sqlite3.SQLITE_FULL or (code == sqlite3.SQLITE_CANTOPEN and _is_full(path)):
        return NoDiskSpace(f"No space is left to write {path}.")
    if code == sqlite3.SQLITE_BUSY:
        return TransferBusy("Another transfer of this home area with the same peer is under way.")
    return SystemFailure(OSError(errno.EIO, os.strerror(errno.EIO)), f"{path}: {error}")


def _is_full(path: str) -> bool:
    """Whether the file system has hardly a block left: what it keeps for itself counts as used."""
    found = os.statvfs(os.path.dirname(path))
    return found.f_bavail * found.f_frsize < _FULL_BYTES
