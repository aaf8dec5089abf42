"""Signals we asked the bus for: match rules, whom to tell, and who has left.

Knows match rules and name owners; no meaning of any signal. A signal counts only if
it comes from the present owner of the name we asked about: anybody may send one
straight to us that claims anything.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from homemgr.wire.messages import BUS_NAME, BUS_PATH, BusError
from homemgr.wire.signature import CodecError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homemgr.wire.messages import Message

log = logging.getLogger(__name__)

#: Called with the object path and the arguments of a signal.
OnSignal = Callable[[str, list[object]], None]


class Bus(Protocol):
    """What is needed of the connection: calls to the bus driver, with or without a reply."""

    async def call(
        self,
        destination: str,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        body: Sequence[object] = (),
    ) -> list[object]:
        """Call and wait."""

    def tell(
        self, target: tuple[str, str, str, str], signature: str, body: Sequence[object]
    ) -> None:
        """Call and do not wait."""


@dataclass
class _Subscription:
    sender: str
    interface: str
    member: str
    callback: OnSignal
    #: Called whenever somebody comes to own ``sender`` from now on.
    appeared: Callable[[], object] | None = None
    #: Unique name that owns ``sender`` now; empty while nobody does.
    owner: str = ""


class Signals:
    """The subscriptions of one connection; deliveries are callbacks of the event loop."""

    def __init__(self, bus: Bus) -> None:
        """Ask ``bus`` for what is wanted."""
        self._bus = bus
        self._subscriptions: list[_Subscription] = []
        self._watched: dict[str, list[Callable[[], object]]] = {}

    async def subscribe(
        self,
        sender: str,
        interface: str,
        member: str,
        callback: OnSignal,
        appeared: Callable[[], object] | None = None,
    ) -> None:
        """Call ``callback(path, arguments)`` for each such signal, for good.

        ``appeared`` is called whenever another process comes to be ``sender``.
        """
        one = _Subscription(sender, interface, member, callback, appeared)
        # First the rules, then the question: a change in between is not missed.
        if sender == BUS_NAME:
            one.owner = sender
        else:
            await self._add_match(_owner_rule(sender))
        await self._add_match(
            f"type='signal',sender='{sender}',interface='{interface}',member='{member}'"
        )
        self._subscriptions.append(one)
        if sender != BUS_NAME:
            owner = await self._owner(sender)
            # News that came in the meantime is newer than this answer.
            one.owner = one.owner or owner

    async def _add_match(self, rule: str) -> None:
        await self._bus.call(BUS_NAME, BUS_PATH, BUS_NAME, "AddMatch", "s", [rule])

    async def _owner(self, name: str) -> str:
        try:
            (owner,) = await self._bus.call(
                BUS_NAME, BUS_PATH, BUS_NAME, "GetNameOwner", "s", [name]
            )
        except BusError:
            # Not running now; NameOwnerChanged tells when it is.
            return ""
        return str(owner)

    def watch(self, name: str, callback: Callable[[], object]) -> Callable[[], None]:
        """Call ``callback`` once when ``name`` leaves the bus; returns how to stop watching."""
        callbacks = self._watched.setdefault(name, [])
        if not callbacks:
            self._tell_driver("AddMatch", _vanished_rule(name))
        callbacks.append(callback)

        def stop() -> None:
            waiting = self._watched.get(name, [])
            if callback in waiting:
                waiting.remove(callback)
                if not waiting:
                    self._forget(name)

        return stop

    def _tell_driver(self, member: str, rule: str) -> None:
        self._bus.tell((BUS_NAME, BUS_PATH, BUS_NAME, member), "s", [rule])

    def _forget(self, name: str) -> list[Callable[[], object]]:
        callbacks = self._watched.pop(name, None)
        if callbacks is None:
            return []
        self._tell_driver("RemoveMatch", _vanished_rule(name))
        return callbacks

    def deliver(self, message: Message) -> None:
        """Tell whoever asked for the signal ``message``."""
        loop = asyncio.get_running_loop()
        if message.sender == BUS_NAME and message.member == "NameOwnerChanged":
            self._owner_changed(message)
        for one in self._subscriptions:
            if (one.interface, one.member) != (message.interface, message.member):
                continue
            if not one.owner or one.owner != message.sender:
                continue
            try:
                arguments = message.body()
            except CodecError:
                log.warning("A signal %s.%s is malformed.", one.interface, one.member)
                return
            # A callback of its own each: a broken one must not hurt the reader.
            loop.call_soon(one.callback, message.path, arguments)

    def _owner_changed(self, message: Message) -> None:
        if message.signature != "sss":
            return
        loop = asyncio.get_running_loop()
        name, _, owner = (str(text) for text in message.body())
        for one in self._subscriptions:
            if one.sender == name:
                one.owner = owner
                if owner and one.appeared is not None:
                    loop.call_soon(one.appeared)
        if not owner:
            for callback in self._forget(name):
                loop.call_soon(callback)


def _owner_rule(name: str) -> str:
    return (
        f"type='signal',sender='{BUS_NAME}',interface='{BUS_NAME}',"
        f"member='NameOwnerChanged',arg0='{name}'"
    )


def _vanished_rule(name: str) -> str:
    """Only the end of ``name``: its beginning would wake us for nothing."""
    return _owner_rule(name) + ",arg2=''"
