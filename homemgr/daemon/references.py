"""The references that keep a home area active: descriptors clients hold.

A reference is the write end of a FIFO; all clients of one kind share the FIFO,
so the kernel counts them, also those of a login process that died. The file
survives a restart of the daemon and so do the references. Interface as
systemd-homed 262 (org.freedesktop.home1(5), AcquireHome).
"""

from __future__ import annotations

import asyncio
import logging
import os
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.files import Fd

if TYPE_CHECKING:
    from collections.abc import Callable

log = logging.getLogger(__name__)

#: NONBLOCK, because a FIFO without its other end has who opens it wait, see fifo(7).
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW
_WRITE = os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW

#: Nobody has anything to write here; who does so all the same is looked at only this often.
_REST_S = 0.25
#: A full FIFO of the default size is drained by one read.
_ROOM = 1 << 16

#: File name suffix by whether the client may be suspended with its home locked.
_SUFFIXES = {False: "dont-suspend", True: "please-suspend"}


class References:
    """All references to one home area; calls ``gone`` when the last one disappears.

    Owned by the home; ``close`` forgets them without calling anybody.
    """

    def __init__(self, directory: str, user: str, gone: Callable[[], None]) -> None:
        """Watch nothing yet; the FIFOs are made on first need."""
        self._directory = directory
        self._user = user
        self._gone = gone
        self._read_ends: dict[bool, Fd] = {}
        self._resting: dict[bool, asyncio.TimerHandle] = {}

    @property
    def held(self) -> bool:
        """True while any client holds a reference."""
        return bool(self._read_ends)

    @property
    def may_be_locked(self) -> bool:
        """True if all clients can do without the home while it is locked, and there are any."""
        return set(self._read_ends) == {True}

    def add(self, *, please_suspend: bool) -> Fd:
        """A new reference: the caller sends it away and closes its own copy.

        Raises NoDiskSpace and SystemFailure.
        """
        try:
            return self._add(self._path(please_suspend=please_suspend), please_suspend)
        except OSError as error:
            raise errors.from_os_error(error, f"Making a reference to {self._user}") from error

    def _add(self, path: str, please_suspend: bool) -> Fd:  # noqa: FBT001 -- the key of the table
        if please_suspend in self._read_ends:
            return Fd(os.open(path, _WRITE))
        os.makedirs(self._directory, 0o755, exist_ok=True)
        # It may be left by the last session, or by the daemon before us.
        with suppress(FileExistsError):
            os.mkfifo(path, 0o600)
        with ExitStack() as on_failure:
            end = on_failure.enter_context(Fd(os.open(path, _READ)))
            reference = Fd(os.open(path, _WRITE))
            # Only a FIFO that somebody had open for writing tells of its last writer's end.
            on_failure.pop_all()
        self._watch(please_suspend, end)
        return reference

    def recover(self) -> bool:
        """Take up what a daemon before us left; True if clients held the home then but none now."""
        abandoned = False
        for please_suspend in _SUFFIXES:
            try:
                end = Fd(os.open(self._path(please_suspend=please_suspend), _READ))
            except FileNotFoundError:
                continue
            if _has_writers(end):
                self._watch(please_suspend, end)
            else:
                end.close()
                abandoned = True
        return abandoned and not self.held

    def forget(self) -> None:
        """Remove the FIFOs once the home is inactive: what is left means a daemon that died."""
        for please_suspend in _SUFFIXES:
            if please_suspend not in self._read_ends:
                try:
                    os.unlink(self._path(please_suspend=please_suspend))
                except FileNotFoundError:
                    continue

    def files(self) -> list[str]:
        """The FIFOs that are there, whoever made them."""
        paths = [self._path(please_suspend=suspends) for suspends in _SUFFIXES]
        return [path for path in paths if os.path.lexists(path)]

    def close(self) -> None:
        """Stop watching; the references themselves stay with their holders."""
        for please_suspend in list(self._read_ends):
            self._unwatch(please_suspend)

    def _path(self, *, please_suspend: bool) -> str:
        return os.path.join(self._directory, f"{self._user}.{_SUFFIXES[please_suspend]}")

    def _watch(self, please_suspend: bool, end: Fd) -> None:  # noqa: FBT001 -- the key of the table
        self._read_ends[please_suspend] = end
        self._resting.pop(please_suspend, None)
        asyncio.get_running_loop().add_reader(end.fileno(), self._readable, please_suspend)

    def _unwatch(self, please_suspend: bool) -> None:  # noqa: FBT001 -- the key of the table
        end = self._read_ends.pop(please_suspend)
        if timer := self._resting.pop(please_suspend, None):
            timer.cancel()
        asyncio.get_running_loop().remove_reader(end.fileno())
        end.close()

    def _readable(self, please_suspend: bool) -> None:  # noqa: FBT001 -- the key of the table
        end = self._read_ends[please_suspend]
        if _has_writers(end):
            # Written into: reading on as long as there is something would be all we do.
            loop = asyncio.get_running_loop()
            loop.remove_reader(end.fileno())
            self._resting[please_suspend] = loop.call_later(
                _REST_S, self._watch, please_suspend, end
            )
            return
        self._unwatch(please_suspend)
        if not self.held:
            log.info("The last reference to home area %s is gone.", self._user)
            self._gone()


def _has_writers(end: Fd) -> bool:
    """False if nobody has ``end`` open for writing (fifo(7): read gives 0)."""
    try:
        return bool(os.read(end.fileno(), _ROOM))
    except BlockingIOError:
        return True
