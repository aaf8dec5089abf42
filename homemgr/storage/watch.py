"""Notices that homes may have appeared or gone in the directories where they lie.

Wraps inotify(7) for the daemon's event loop; which homes there are now is found
out by looking again, so that a lost event costs nothing but time.
"""

from __future__ import annotations

import logging
import os

from homemgr.kernel import inotify

log = logging.getLogger(__name__)

#: Entries that come or go. What happens inside an image is its user's business.
_MASK = (
    inotify.IN_CREATE
    | inotify.IN_DELETE
    | inotify.IN_MOVED_FROM
    | inotify.IN_MOVED_TO
    | inotify.IN_ONLYDIR
)


class Watch:
    """Watches directories until closed; those that do not exist yet are retried on each drain."""

    def __init__(self, directories: list[str]) -> None:
        """Begin to watch."""
        self._fd = inotify.inotify_init()
        self._missing = list(directories)
        self._add_missing()

    def fileno(self) -> int:
        """Readable when something changed."""
        return self._fd.fileno()

    def drain(self) -> bool:
        """Forget what happened so far; True if anything did."""
        events = inotify.read_events(self._fd.fileno())
        appeared = self._add_missing()
        return bool(events) or appeared

    def close(self) -> None:
        """Stop watching."""
        self._fd.close()

    def _add_missing(self) -> bool:
        """Watch directories that have come into being; True if one has."""
        missing, self._missing = self._missing, []
        for path in missing:
            try:
                inotify.inotify_add_watch(self._fd.fileno(), path, _MASK)
            except FileNotFoundError:
                self._missing.append(path)
            except OSError as error:
                log.warning("Cannot watch %s: %s", path, os.strerror(error.errno or 0))
        return len(self._missing) < len(missing)
