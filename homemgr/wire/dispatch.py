"""From a method call to the function that runs it, and its result back to the caller.

Knows tables and the object tree; no interface of its own. Handlers run as plain
functions or as tasks; each call is answered once, also when its handler is cancelled
or broken. Error names follow sd-bus.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine
from typing import TYPE_CHECKING

from homemgr.wire import messages
from homemgr.wire.call import Call, Refusal
from homemgr.wire.signature import CodecError
from homemgr.wire.standard import PEER, Place
from homemgr.wire.table import Interface, Method, Node, Objects, Property, Signal

if TYPE_CHECKING:
    from homemgr.wire.connection import Connection
    from homemgr.wire.messages import Message

__all__ = [
    "Call",
    "Dispatcher",
    "Interface",
    "Method",
    "Node",
    "Objects",
    "Property",
    "Signal",
]

#: Handlers one caller may have running, and all callers together. The bus itself
#: limits calls that wait for a reply (128 each), but not those that want none.
MAX_RUNNING_PER_SENDER = 128
MAX_RUNNING = 8192
#: Bytes of arguments with arrays or variants among them. Each item takes its time, for which
#: everybody else waits; a text of any length takes none, nor do bytes.
MAX_ITEM_BYTES = (1 << 20) + (64 << 10)


class Dispatcher:
    """Serves the objects of one tree; give it to `Connection.serve`.

    Owns the tasks of its handlers: `drain` them before the end of the process.
    """

    def __init__(self, objects: Objects) -> None:
        """Serve what ``objects`` resolves."""
        self._objects = objects
        self._tasks: dict[asyncio.Task[object], Call] = {}
        self._running: Counter[str] = Counter()
        self._is_draining = False

    def dispatch(self, connection: Connection, message: Message) -> None:
        """Run the handler of ``message``, a method call, and see to its answer."""
        call = Call(connection, message)
        with call:
            self._check_limits(call, message)
            method, target = self._find(call, message)
            call.out_signature = method.out_signature
            result = method.run(target, call, *_arguments(method, message))
            if isinstance(result, Coroutine):
                self._start(call, result)
            else:
                call.finish(result)

    def _check_limits(self, call: Call, message: Message) -> None:
        if message.fds_lost:
            text = f"{call.member}: too many files are open here to take those sent along."
            raise Refusal(messages.LIMITS_EXCEEDED, text)
        # To the caller the service is gone, as it really will be in a moment.
        if self._is_draining:
            raise Refusal(messages.NO_REPLY_ERROR, "The service is ending.")
        is_greedy = self._running.get(call.sender, 0) >= MAX_RUNNING_PER_SENDER
        if is_greedy or len(self._tasks) >= MAX_RUNNING:
            text = f"{call.member}: too many calls are still waiting for their answers."
            raise Refusal(messages.LIMITS_EXCEEDED, text)

    def _find(self, call: Call, message: Message) -> tuple[Method, object]:
        """The method meant and the target to run it on."""
        node = self._objects.resolve(call.path)
        if node is not None:
            # What is called nearly always, before all that there is for the rest.
            for interface in node.interfaces:
                method = interface.method.get(call.member)
                if method is not None and call.interface == interface.name:
                    return method, node.target
        place = Place(self._objects, call.path, node)
        knows_interface = False
        for interface in place.interfaces():
            # A call may leave the interface out; then the first member of that name counts.
            if call.interface and call.interface != interface.name:
                continue
            knows_interface = True
            method = interface.method.get(call.member)
            if method is not None:
                call.interface = interface.name
                is_own = node is not None and interface in node.interfaces
                return method, node.target if is_own and node else place
        raise _unknown(call, node, message.signature, knows_interface=knows_interface)

    def _start(self, call: Call, handler: Coroutine[object, object, object]) -> None:
        task = asyncio.get_running_loop().create_task(handler)
        self._tasks[task] = call
        self._running[call.sender] += 1
        # Not around the coroutine: a task cancelled before its first step never enters it.
        task.add_done_callback(self._finish)

    def _finish(self, task: asyncio.Task[object]) -> None:
        call = self._tasks.pop(task)
        self._running[call.sender] -= 1
        # Callers come and go; the table must not keep every one that ever was.
        if not self._running[call.sender]:
            del self._running[call.sender]
        if task.cancelled():
            call.fail(asyncio.CancelledError())
        elif (error := task.exception()) is not None:
            call.fail(error)
        else:
            call.finish(task.result())

    async def drain(self, timeout_s: float | None = None) -> None:
        """Refuse new calls and wait for those that run; cancel them after ``timeout_s``."""
        self._is_draining = True
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=timeout_s)
            for task in late:
                task.cancel()
        if self._tasks:
            # Bounded again: a handler that swallows its cancellation must not keep us.
            await asyncio.wait(self._tasks, timeout=timeout_s)


def _arguments(method: Method, message: Message) -> list[object]:
    if message.signature != method.in_signature:
        text = (
            f"{method.name} takes arguments of type {method.in_signature!r},"
            f" not {message.signature!r}."
        )
        raise Refusal(messages.INVALID_ARGS, text)
    if message.body_bytes > MAX_ITEM_BYTES and _holds_items(message.signature):
        text = f"{method.name} takes at most {MAX_ITEM_BYTES} bytes, not {message.body_bytes}."
        raise Refusal(messages.LIMITS_EXCEEDED, text)
    try:
        # The walk through the values is spared where no descriptor can be.
        if "h" in message.signature:
            return message.arguments()[0]
        return message.body()
    except CodecError as wrong:
        text = f"The arguments of {method.name} are malformed."
        raise Refusal(messages.INVALID_ARGS, text) from wrong


def _holds_items(signature: str) -> bool:
    return not {"a", "v"}.isdisjoint(signature.replace("ay", ""))


def _unknown(call: Call, node: Node | None, signature: str, *, knows_interface: bool) -> Refusal:
    """The right one of three ways not to exist."""
    if node is None and call.interface != PEER.name:
        return Refusal(messages.UNKNOWN_OBJECT, f"There is no object {call.path}.")
    if knows_interface:
        text = f"There is no method {call.member} with arguments {signature!r} at {call.path}."
        return Refusal(messages.UNKNOWN_METHOD, text)
    text = f"The object {call.path} has no interface {call.interface}."
    return Refusal(messages.UNKNOWN_INTERFACE, text)
