"""The service's connection to a bus: names, calls both ways, signals, identities.

Knows the bus driver's own methods; no other service. Runs on one event loop and
never blocks it. When the bus goes, everything that waits is told; the process is
then expected to end and be started anew. Follows the D-Bus specification.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from homemgr.files import Fd
from homemgr.wire import messages
from homemgr.wire.codec import encode
from homemgr.wire.handshake import connected_socket
from homemgr.wire.messages import BUS_NAME, BUS_PATH, BusError, Message
from homemgr.wire.peer import Peer
from homemgr.wire.signals import OnSignal, Signals
from homemgr.wire.signature import CodecError
from homemgr.wire.transport import Transport

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from socket import socket

    from homemgr.wire.codec import Body
    from homemgr.wire.dispatch import Dispatcher

__all__ = ["BusError", "Connection", "Peer"]

log = logging.getLogger(__name__)

#: A system bus allows 128 calls without an answer per connection; stay well below.
MAX_OUTSTANDING = 100
#: Identities kept; unique names are never used again, so a kept one is never wrong.
MAX_IDENTITIES = 1024

#: Letters of the text of an error. It may quote what a caller has sent, who may send as much as
#: fits into a message: the answer would not, and a bus disconnects whoever sends more.
MAX_ERROR_TEXT = 16 << 10

_DO_NOT_QUEUE = 4
_PRIMARY_OWNER, _ALREADY_OWNER = 1, 4
_FLUSH_TIMEOUT_S = 2.0


class Connection:
    """One connection to a bus; `open` it, `serve` a dispatcher, `close` it at the end.

    Calls fail with `BusError`: the peer's own, or NoReply and Disconnected for ours.
    """

    def __init__(self, connected: socket) -> None:
        """Use `open`."""
        #: Our address on the bus, like ``:1.7``.
        self.unique_name = ""
        self._serial = 0
        self._pending: dict[int, asyncio.Future[Message]] = {}
        self._slots = asyncio.Semaphore(MAX_OUTSTANDING)
        self._identities: dict[str, Peer] = {}
        self._dispatcher: Dispatcher | None = None
        self._signals = Signals(self)
        self._reason = ""
        self._gone = asyncio.Event()
        self._transport = Transport(connected, self._on_message, self._on_closed)

    @classmethod
    async def open(cls, address: str | None = None) -> Connection:
        """Connect to ``address``, else $DBUS_SYSTEM_BUS_ADDRESS, else the system bus."""
        connection = cls(await connected_socket(address))
        try:
            (name,) = await connection._driver("Hello")
            connection.unique_name = str(name)
        finally:
            if not connection.unique_name:
                connection._transport.close()
        return connection

    async def _driver(
        self, member: str, signature: str = "", body: Sequence[object] = ()
    ) -> list[object]:
        return await self.call(BUS_NAME, BUS_PATH, BUS_NAME, member, signature, body)

    async def request_name(self, name: str) -> None:
        """Become the owner of ``name``; `BusError` if another process is, or we may not."""
        (result,) = await self._driver("RequestName", "su", [name, _DO_NOT_QUEUE])
        if result not in (_PRIMARY_OWNER, _ALREADY_OWNER):
            raise BusError(
                "org.freedesktop.DBus.Error.AddressInUse",
                f"The bus name {name} belongs to another process; stop that service first.",
            )

    # --- calls we make -----------------------------------------------------------------

    async def call(
        self,
        destination: str,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        body: Sequence[object] = (),
        *,
        timeout_s: float | None = 25.0,
        interactive: bool = False,
    ) -> list[object]:
        """Call a method and wait for its answer, ``timeout_s`` at most (None: for ever).

        `Fd` objects in ``body`` are closed after the send; those in the answer (in the
        place of ``h``) are the caller's to close.
        """
        target = (destination, path, interface, member)
        flags = messages.INTERACTIVE if interactive else 0
        try:
            async with asyncio.timeout(timeout_s):
                if destination == BUS_NAME:
                    # The driver answers at once and does not count; it must stay reachable.
                    return await self._exchange(target, signature, body, flags)
                async with self._slots:
                    return await self._exchange(target, signature, body, flags)
        except TimeoutError as late:
            text = f"{destination} did not answer {member} within {timeout_s:g} seconds."
            raise BusError(messages.NO_REPLY_ERROR, text) from late
        except CodecError as wrong:
            text = f"The call of {member} or its answer is malformed: {wrong}."
            raise BusError(messages.INVALID_ARGS, text) from wrong

    async def _exchange(
        self,
        target: tuple[str, str, str, str],
        signature: str,
        body: Sequence[object],
        flags: int,
    ) -> list[object]:
        self._check_connected()
        serial = self._next_serial()
        encoded = encode(signature, body)
        try:
            frame = messages.call(serial, target, signature, encoded, flags)
        except CodecError:
            encoded.close_fds()
            raise
        # Registered before it is sent: the answer cannot be earlier.
        answer: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._pending[serial] = answer
        self._transport.send(frame, encoded.fds)
        try:
            message = await answer
            if message.kind == messages.ERROR:
                raise message.error()
            values, message.fds = message.arguments()
            return values
        finally:
            self._pending.pop(serial, None)
            if answer.done() and not answer.cancelled() and answer.exception() is None:
                # Cancelled in the very moment the answer came, or an error reply.
                answer.result().close_fds()

    def tell(
        self, target: tuple[str, str, str, str], signature: str, body: Sequence[object]
    ) -> None:
        """Call destination, path, interface, member of ``target`` and expect no answer."""
        encoded = encode(signature, body)
        serial = self._next_serial()
        self._transport.send(messages.call(serial, target, signature, encoded, messages.NO_REPLY))

    def _next_serial(self) -> int:
        # 32 bits, and 0 means none.
        self._serial = self._serial % 0xFFFFFFFF + 1
        return self._serial

    def _check_connected(self) -> None:
        if self._gone.is_set():
            raise BusError(messages.DISCONNECTED, f"The bus is gone: {self._reason}.")

    # --- calls we answer ---------------------------------------------------------------

    def serve(self, dispatcher: Dispatcher) -> None:
        """Have ``dispatcher`` answer all calls from now on."""
        self._dispatcher = dispatcher

    def reply(self, request: Message, signature: str, body: Body | bytes) -> None:
        """Answer ``request``; descriptors in ``body`` are closed after the send."""
        frame = messages.answer(self._next_serial(), request, signature, body)
        self._transport.send(frame, () if isinstance(body, bytes) else body.fds)

    def reply_error(self, request: Message, name: str, text: str) -> None:
        """Answer ``request`` with an error."""
        # A file name in the text may be no text at all; the bus would disconnect us.
        clean = _shortened(text).encode("utf-8", "backslashreplace").decode().replace("\0", "\\0")
        frame = messages.error(self._next_serial(), request, name, encode("s", (clean,)))
        self._transport.send(frame)

    # --- signals -----------------------------------------------------------------------

    def emit(
        self,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        body: Sequence[object] = (),
        *,
        destination: str | None = None,
    ) -> None:
        """Send a signal, to everybody or only to ``destination``."""
        frame = messages.signal(
            self._next_serial(),
            (path, interface, member),
            signature,
            encode(signature, body),
            destination or "",
        )
        self._transport.send(frame)

    async def subscribe(
        self,
        sender: str,
        interface: str,
        member: str,
        callback: OnSignal,
        appeared: Callable[[], object] | None = None,
    ) -> None:
        """Call ``callback(path, arguments)`` for each such signal of the service ``sender``.

        ``appeared`` is called whenever another process comes to be that service.
        """
        await self._signals.subscribe(sender, interface, member, callback, appeared)

    def watch(self, name: str, callback: Callable[[], object]) -> Callable[[], None]:
        """Call ``callback`` once when ``name`` leaves the bus; returns how to stop watching."""
        return self._signals.watch(name, callback)

    # --- identities --------------------------------------------------------------------

    async def credentials(self, sender: str) -> Peer:
        """User and process behind the unique name ``sender``, asked once."""
        known = self._identities.get(sender)
        if known is not None:
            return known
        (found,) = await self._driver("GetConnectionCredentials", "s", [sender])
        assert isinstance(found, dict)
        numbers = {}
        for key, variant in found.items():
            if isinstance(variant.value, Fd):
                # A pidfd; the process id is enough for a log line.
                variant.value.close()
            elif isinstance(variant.value, int):
                numbers[key] = variant.value
        if "UnixUserID" not in numbers:
            text = f"The bus does not know which user {sender} is."
            raise BusError("org.freedesktop.DBus.Error.AccessDenied", text)
        peer = Peer(numbers["UnixUserID"], numbers.get("ProcessID", 0))
        while len(self._identities) >= MAX_IDENTITIES:
            del self._identities[next(iter(self._identities))]
        self._identities[sender] = peer
        return peer

    # --- what the transport tells ------------------------------------------------------

    def _on_message(self, message: Message) -> None:
        if message.kind == messages.CALL:
            if self._dispatcher is not None:
                self._dispatcher.dispatch(self, message)
                return
            if message.expects_reply:
                self.reply_error(message, messages.UNKNOWN_OBJECT, "Nothing is served here yet.")
        elif message.kind == messages.SIGNAL:
            self._signals.deliver(message)
        else:
            # Nobody waits for it if it is late or made up: then its descriptors are closed.
            answer = self._pending.pop(message.reply_serial, None)
            if answer is not None and not answer.done():
                answer.set_result(message)
                return
        message.close_fds()

    def _on_closed(self, reason: str) -> None:
        self._reason = reason
        self._gone.set()
        for answer in self._pending.values():
            if not answer.done():
                text = f"The bus is gone: {reason}."
                answer.set_exception(BusError(messages.DISCONNECTED, text))

    async def wait_closed(self) -> None:
        """Return when the bus is gone, whoever closed."""
        await self._gone.wait()

    async def close(self) -> None:
        """Send what is still to be sent, within bounds, and leave the bus."""
        try:
            async with asyncio.timeout(_FLUSH_TIMEOUT_S):
                await self._transport.flush()
        except TimeoutError:
            log.warning("The bus does not take our last messages; leaving without them.")
        self._transport.close()
        await self._gone.wait()


def _shortened(text: str) -> str:
    return text if len(text) <= MAX_ERROR_TEXT else f"{text[:MAX_ERROR_TEXT]}…"
