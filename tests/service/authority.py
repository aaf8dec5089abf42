"""Stands in for polkitd: grants whatever is asked, or one action alone, once it is told to."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from threading import Event, Thread
from typing import TYPE_CHECKING

from homemgr.wire.connection import Connection
from homemgr.wire.dispatch import Call, Dispatcher, Interface, Method, Node

if TYPE_CHECKING:
    from collections.abc import Iterator

_QUESTION = (
    ("subject", "(sa{sv})"),
    ("action_id", "s"),
    ("details", "a{ss}"),
    ("flags", "u"),
    ("cancellation_id", "s"),
)


class Authority:
    """Grants actions as soon as ``granting`` is set; ``asked`` once there was a question."""

    def __init__(self, only: str = "") -> None:
        """Grant nothing yet, and never anything else than ``only``, if that is given."""
        self._only = only
        self.asked = Event()
        self.granting = Event()
        #: The actions asked about, without their common prefix.
        self.actions: list[str] = []
        self._ready = Event()
        self._ending = Event()

    def resolve(self, path: str) -> Node | None:
        """Its only object."""
        return Node(self, (_INTERFACE,)) if path.endswith("/Authority") else None

    def children(self, _path: str) -> list[str]:
        """None below it."""
        return []

    async def check(self, action: str) -> tuple[object]:
        """Yes, some time; or no."""
        name = action.removeprefix("org.freedesktop.home1.")
        self.actions.append(name)
        self.asked.set()
        while not self.granting.is_set():
            await asyncio.sleep(0.01)
        return ((self._only in ("", name), False, {}),)

    async def _serve(self, address: str) -> None:
        connection = await Connection.open(address)
        dispatcher = Dispatcher(self)
        connection.serve(dispatcher)
        await connection.request_name("org.freedesktop.PolicyKit1")
        self._ready.set()
        while not self._ending.is_set():
            await asyncio.sleep(0.01)
        await dispatcher.drain(timeout_s=0.1)
        await connection.close()

    @contextmanager
    def on(self, address: str) -> Iterator[Authority]:
        """Be on the bus until the end of the block."""
        thread = Thread(target=lambda: asyncio.run(self._serve(address)))
        thread.start()
        assert self._ready.wait(5)
        try:
            yield self
        finally:
            self._ending.set()
            thread.join()


async def _check(
    target: Authority, _call: Call, _subject: object, action: str, *_more: object
) -> tuple[object]:
    return await target.check(action)


_INTERFACE = Interface(
    "org.freedesktop.PolicyKit1.Authority",
    (Method("CheckAuthorization", _QUESTION, (("result", "(bba{ss})"),), _check),),
)
