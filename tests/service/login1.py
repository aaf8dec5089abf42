"""Stands in for logind, as far as sleep goes: gives delay locks, tells of sleep."""

from __future__ import annotations

import asyncio
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self

from homemgr.files import Fd
from homemgr.wire.connection import Connection
from homemgr.wire.dispatch import Call, Interface, Method, Property
from tests.service.site import MANAGER_PATH, NAME
from tests.service.stand_in import StandIn

if TYPE_CHECKING:
    from collections.abc import Iterator

PATH = "/org/freedesktop/login1"
MANAGER = "org.freedesktop.login1.Manager"
_WHAT = (("what", "s"), ("who", "s"), ("why", "s"), ("mode", "s"))


class Login1(StandIn):
    """A logind whose machine goes to sleep when it is told to."""

    def __init__(self, longest_delay_s: float = 5.0) -> None:
        """Wait ``longest_delay_s`` at most for locks, or say so."""
        super().__init__("org.freedesktop.login1", PATH, _INTERFACE)
        self.longest_delay_s = longest_delay_s
        #: What each lock was asked for with, in order.
        self.asked: list[tuple[object, ...]] = []
        #: Our ends of the locks: they hang up when a lock is given back.
        self._locks: list[Fd] = []

    @property
    def held(self) -> int:
        """How many locks are held now."""
        return sum(not _has_hung_up(lock) for lock in self._locks)

    def tell(self, *, is_about_to: bool) -> None:
        """PrepareForSleep: the machine is about to sleep, or has woken up."""
        assert self.loop is not None
        assert self.connection is not None
        body = (PATH, MANAGER, "PrepareForSleep", "b", (is_about_to,))
        self.loop.call_soon_threadsafe(self.connection.emit, *body)

    def forge(self, address: str) -> None:
        """PrepareForSleep, sent by somebody else straight to the service, and seen there."""

        async def send() -> None:
            stranger = await Connection.open(address)
            signal = (PATH, MANAGER, "PrepareForSleep", "b", (True,))
            stranger.emit(*signal, destination=NAME)
            await stranger.call(NAME, MANAGER_PATH, "org.freedesktop.DBus.Peer", "Ping")
            await stranger.close()

        asyncio.run(send())

    def inhibit(self, *asked: object) -> Fd:
        """Give a lock."""
        self.asked.append(asked)
        ours, theirs = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._locks.append(Fd(ours))
        return Fd(theirs)

    @contextmanager
    def on(self, address: str) -> Iterator[Self]:
        """Be on the bus until the end of the block; locks end with it."""
        try:
            with super().on(address):
                yield self
        finally:
            for lock in self._locks:
                lock.close()


def _has_hung_up(lock: Fd) -> bool:
    try:
        return os.read(lock.fileno(), 1) == b""
    except BlockingIOError:
        return False


def _inhibit(target: Login1, _call: Call, *asked: object) -> tuple[object]:
    return (target.inhibit(*asked),)


_INTERFACE = Interface(
    MANAGER,
    methods=(Method("Inhibit", _WHAT, (("pipe_fd", "h"),), _inhibit),),
    properties=(
        Property("InhibitDelayMaxUSec", "t", lambda t, _call: int(t.longest_delay_s * 1_000_000)),
    ),
)
