"""Rows and texts in the file of a ledger: given to SQLite many at once, kept by a commit only.

Knows how the file grows and what is remembered of all names, not what the names mean.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Any

from homemgr.errors import NotSupported
from homemgr.storage.ledger_file import failure, note_left, open_database

if TYPE_CHECKING:
    from types import TracebackType

#: The largest ledger (bytes): of any home, and more for each name, and for each so many bytes of
#: content, of which blocks have digests. Names with paths of a hundred bytes take a quarter.
_BASE_BYTES = 256 << 20
_NAME_BYTES = 4096
_CONTENT_SHARE = 2048
#: What a row takes besides its path and entry, and how often the size is looked at.
_ROW_BYTES = 256
_CHECK_BYTES = 4 << 20
#: What is remembered of all names, beside texts that are kept until they are set anew.
_OF_ALL = "of all: "

#: How many rows are put at once, and what they hold at most (bytes).
_AT_ONCE, _AT_ONCE_BYTES = 200, 64 << 10


class Table:
    """The open file; leaving the block drops what was not committed.

    All members raise `NoDiskSpace` or `SystemFailure` if the file cannot be written or read,
    and `NotSupported` beyond `limit`.
    """

    def __init__(self, path: str) -> None:
        """Open or create ``path``, mode 0600; `TransferBusy` if another process has it open."""
        self._path = path
        self._database = open_database(path)
        self._most_bytes: int | None = None
        self._unchecked = 0
        #: Rows that SQLite has not been given yet: many at once cost it less.
        self._waiting: list[tuple[object, ...]] = []
        self._waiting_bytes = 0
        #: Whether there may be something to forget once a name changes.
        self._has_remembered = True

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close; what was not committed is dropped."""
        self._database.close()
        if kind is None:
            note_left(self._path)

    def limit(self, files: int, content: int) -> None:
        """Hold no more than a home of so many names and bytes needs, and plenty besides.

        Each name repeats the path of its directory: somebody could make them so long that the
        ledger takes all the room of a disk that is not his.
        """
        self.hold(_BASE_BYTES + files * _NAME_BYTES + content // _CONTENT_SHARE)

    def hold(self, most_bytes: int) -> None:
        """Hold no more than about ``most_bytes``."""
        self._most_bytes = most_bytes

    def meta(self, key: str) -> str | None:
        """The text kept under ``key``."""
        rows = self._all("SELECT value FROM meta WHERE key = ?", key)
        return str(rows[0][0]) if rows else None

    def set_meta(self, key: str, value: str) -> None:
        """Keep a text under ``key``."""
        self._change("INSERT OR REPLACE INTO meta VALUES (?, ?)", key, value)

    def remembered(self, key: str) -> str | None:
        """The text that was last kept under ``key`` by `remember`, if it still holds."""
        return self.meta(_OF_ALL + key)

    def remember(self, key: str, value: str) -> None:
        """Keep a text about all names as they are; with the next name that changes it is gone."""
        self.set_meta(_OF_ALL + key, value)
        self._has_remembered = True

    def commit(self) -> None:
        """Keep all changes, durably and together."""
        self._change("COMMIT")
        # At once again: whoever else opens the file has to find it in use.
        self._change("BEGIN EXCLUSIVE")

    def _wait(self, row: tuple[object, ...], length: int) -> None:
        """Have a row of ``length`` bytes replace the one of its name, at the latest when asked."""
        self._grow(length)
        self._waiting.append(row)
        self._waiting_bytes += length
        if len(self._waiting) >= _AT_ONCE or self._waiting_bytes >= _AT_ONCE_BYTES:
            self._store()

    def _grow(self, count: int) -> None:
        """Raise NotSupported if the ledger has become too large; it is looked at now and then."""
        self._unchecked += count + _ROW_BYTES
        if self._most_bytes is None or self._unchecked < _CHECK_BYTES:
            return
        self._unchecked = 0
        ((pages,),) = self._all("PRAGMA page_count")
        ((page_bytes,),) = self._all("PRAGMA page_size")
        if pages * page_bytes > self._most_bytes:
            raise NotSupported(
                f"To remember what has travelled takes more than {self._most_bytes} bytes in"
                f" {self._path}: the home area has too many names in directories with too long"
                " paths."
            )

    def _all(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        if self._waiting:
            self._store()
        try:
            return self._database.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise failure(error, self._path) from error

    def _alter(self, statement: str, *values: object) -> None:
        """Change names or what they are: what was remembered of all of them holds no more."""
        self._forget()
        self._change(statement, *values)

    def _forget(self) -> None:
        if self._has_remembered:
            self._has_remembered = False
            self._change(
                "DELETE FROM meta WHERE key >= ? AND key < ?", _OF_ALL, _OF_ALL + "\U0010ffff"
            )

    def _store(self) -> None:
        """Give SQLite what was put since the last time; before anything else is asked or told."""
        rows, self._waiting, self._waiting_bytes = self._waiting, [], 0
        self._forget()
        try:
            self._database.executemany(
                "INSERT OR REPLACE INTO entry VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows
            )
        except sqlite3.Error as error:
            raise failure(error, self._path) from error

    def _change(self, statement: str, *values: object) -> None:
        if self._waiting:
            self._store()
        try:
            self._database.execute(statement, values)
        except sqlite3.Error as error:
            raise failure(error, self._path) from error
