"""The signed part of each host copy as it was last, kept apart from the copy itself.

A host copy that is lost or damaged is replaced by the record in the home, which its user can
write: there he could put an older one that was signed once, with rights or a password that were
taken from him since. So what comes in its place must not be older than what was lost; if the
record in the home is, as after an update that could not reach it, the one kept here counts. One
file for each user, root's alone; who deletes it accepts any record that is signed.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress
from typing import NamedTuple

from homemgr import errors, files
from homemgr.record import jsontext
from homemgr.record.model import UserRecord

log = logging.getLogger(__name__)

#: Of the largest number that a record can hold, and more than that.
_MAX_DIGITS = 32


class Kept(NamedTuple):
    """What is known of the host copy that a user had last."""

    #: Its ``lastChangeUSec``; 0 if nothing is known.
    stamp: int = 0
    #: The record, without what is of this machine alone; None if the time is all there is.
    record: UserRecord | None = None


class Stamps:
    """The files of one directory. All methods may block."""

    def __init__(self, directory: str) -> None:
        """Use this directory, which `prepare` makes."""
        self._directory = directory
        #: Of which time the files are, as far as we looked: most saves change only counters.
        self._known: dict[str, int | None] = {}

    def prepare(self) -> None:
        """Make the directory: nobody else has to know who has been here."""
        os.makedirs(self._directory, 0o700, exist_ok=True)

    def path_of(self, user: str) -> str:
        """The file of ``user``."""
        return os.path.join(self._directory, user)

    def read(self, user: str) -> Kept:
        """The host copy that ``user`` had last."""
        try:
            text = files.read_bounded(self._directory, user, jsontext.MAX_RECORD_BYTES)
            if len(text) <= _MAX_DIGITS and text.strip().isdigit():
                # Written by a version that kept the time alone.
                return Kept(int(text))
            record = UserRecord.parse(text)
        except FileNotFoundError:
            return Kept()
        except (OSError, errors.HomeError) as error:
            # It only ever says no: without it, things are as good as they were before.
            log.error("Cannot read %s: %s", self.path_of(user), error)
            return Kept()
        return Kept(record.last_change_usec or 0, record)

    def note(self, user: str, record: UserRecord) -> None:
        """Have ``record`` on disk when this returns; what cannot be written is logged."""
        stamp = record.last_change_usec or 0
        if user not in self._known:
            kept = self.read(user)
            self._known[user] = kept.stamp if kept.record else None
        if self._known[user] == stamp:
            return
        text = record.embedded().pretty()
        try:
            files.write_atomically(self._directory, user, text, 0o600)
        except OSError as error:
            # The record itself is saved, and the next save of it comes here again.
            log.warning("Cannot write %s: %s", self.path_of(user), error.strerror)
            return
        self._known[user] = stamp

    def forget(self, user: str) -> None:
        """Know nothing of ``user`` any more; raises OSError."""
        self._known.pop(user, None)
        with suppress(FileNotFoundError):
            os.unlink(self.path_of(user))
