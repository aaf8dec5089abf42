"""A service of the system that is a thread of the test: one object under a name on the bus."""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from threading import Event, Thread
from typing import TYPE_CHECKING, Self

from homemgr.wire.connection import Connection
from homemgr.wire.dispatch import Dispatcher, Interface, Node

if TYPE_CHECKING:
    from collections.abc import Iterator

_POLL_S = 0.01
_START_S = 5.0


class StandIn:
    """What is at ``path`` of ``name``; the methods of ``interface`` get the object itself."""

    def __init__(self, name: str, path: str, interface: Interface) -> None:
        """Be nowhere yet."""
        self._name, self._path, self._interface = name, path, interface
        self.loop: asyncio.AbstractEventLoop | None = None
        self.connection: Connection | None = None
        self._ready, self._ending = Event(), Event()

    def resolve(self, path: str) -> Node | None:
        """Its only object."""
        return Node(self, (self._interface,)) if path == self._path else None

    def children(self, _path: str) -> list[str]:
        """None below it."""
        return []

    async def _serve(self, address: str) -> None:
        self.loop = asyncio.get_running_loop()
        self.connection = await Connection.open(address)
        dispatcher = Dispatcher(self)
        self.connection.serve(dispatcher)
        await self.connection.request_name(self._name)
        self._ready.set()
        while not self._ending.is_set():
            await asyncio.sleep(_POLL_S)
        await dispatcher.drain(timeout_s=0.1)
        await self.connection.close()

    @contextmanager
    def on(self, address: str) -> Iterator[Self]:
        """Be on the bus until the end of the block."""
        thread = Thread(target=lambda: asyncio.run(self._serve(address)))
        thread.start()
        try:
            assert self._ready.wait(_START_S)
            yield self
        finally:
            self._ending.set()
            thread.join()
