"""When the host copy of each record was changed last, kept apart from the copy itself.

A host copy that is lost or damaged is replaced by the record in the home, which its user can
write: there he could put an older one that was signed once, with rights or a password that were
taken from him since. So what comes in its place must not be older than what was lost. One small
file for each user, root's alone; who deletes it accepts any record that is signed.
"""

from __future__ import annotations

import logging
import os
from contextlib import suppress

from homemgr import files

log = logging.getLogger(__name__)

#: Digits of the largest number that a record can hold.
_MAX_BYTES = 32


class Stamps:
    """The files of one directory. All methods may block."""

    def __init__(self, directory: str) -> None:
        """Use this directory, which `prepare` makes."""
        self._directory = directory
        #: What the files hold, as far as we looked: most saves change only counters.
        self._known: dict[str, int] = {}

    def prepare(self) -> None:
        """Make the directory: nobody else has to know who has been here."""
        os.makedirs(self._directory, 0o700, exist_ok=True)

    def path_of(self, user: str) -> str:
        """The file of ``user``."""
        return os.path.join(self._directory, user)

    def read(self, user: str) -> int:
        """``lastChangeUSec`` of the host copy that ``user`` had last; 0 if nothing is known."""
        try:
            text = files.read_bounded(self._directory, user, _MAX_BYTES)
            return int(text)
        except FileNotFoundError:
            return 0
        except (OSError, ValueError) as error:
            # It only ever says no: without it, things are as good as they were before.
            log.error("Cannot read %s: %s", self.path_of(user), error)
            return 0

    def note(self, user: str, stamp: int) -> None:
        """Have ``stamp`` on disk when this returns; what cannot be written is logged."""
        if user not in self._known:
            self._known[user] = self.read(user)
        if self._known[user] == stamp:
            return
        try:
            files.write_atomically(self._directory, user, b"%d\n" % stamp, 0o600)
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
