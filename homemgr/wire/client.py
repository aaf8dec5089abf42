"""A synchronous D-Bus client for the command line: one socket, no event loop.

Knows authentication, Hello and one call at a time; no names of services. asyncio
and dbus-next would cost 100 ms per start, so neither may be imported from here
(tests/unit/wire checks it). Follows the D-Bus specification.
"""

from __future__ import annotations

import os
from _socket import (
    AF_UNIX,
    CMSG_SPACE,
    MSG_CMSG_CLOEXEC,
    MSG_CTRUNC,
    MSG_NOSIGNAL,
    SCM_RIGHTS,
    SO_SNDTIMEO,
    SOCK_CLOEXEC,
    SOCK_STREAM,
    SOL_SOCKET,
    socket,
)
from array import array
from contextlib import suppress
from struct import pack
from time import monotonic

from homemgr.files import Fd
from homemgr.wire import messages
from homemgr.wire.address import system_bus, unix_sockets
from homemgr.wire.codec import encode
from homemgr.wire.messages import BUS_NAME, BUS_PATH, BusError, Message, ProtocolError
from homemgr.wire.signature import CodecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import TracebackType

_ERROR = "org.freedesktop.DBus.Error."
#: Long enough for a bus that starts a service first, short for one that is stuck.
_CONNECT_TIMEOUT = pack("ll", 25, 0)
_HELLO_SERIAL = 1
#: Below what malloc(3) maps anew each time.
_CHUNK_BYTES = 1 << 16
#: How often somebody who waits for an answer may do something else (s).
_IDLE_S = 0.1
#: How long a full socket may keep a message that nobody answers (s).
_TELL_S = 5.0
_ANCILLARY = CMSG_SPACE(253 * array("i").itemsize)
#: Longest line a server may send while authenticating.
_MAX_LINE_BYTES = 16 << 10


class Reply:
    """What a call gave back; the caller owns the descriptors, ``h`` in the body indexes them."""

    __slots__ = ("body", "fds")

    def __init__(self, body: list[object], fds: list[Fd]) -> None:
        """As received."""
        self.body = body
        self.fds = fds


class Client:
    """A connection to the bus, opened by the first call and good for many.

    Every failure is a `BusError`: the peer's own error reply, or ours when the bus
    cannot be reached (NoServer, AccessDenied), leaves (Disconnected) or
    stays silent (NoReply). Close it, or use it as a context manager.
    """

    def __init__(self, address: str | None = None, *, line: socket | None = None) -> None:
        """Remember ``address``; the system bus if there is none.

        ``line`` is a connected socket with a service at its other end, and no bus between.
        """
        self._address = address
        self._socket: socket | None = line
        self._received = bytearray()
        self._fds: list[Fd] = []
        self._serial = 0
        #: Given every signal that comes while a call waits; nothing is asked for by itself.
        self.on_signal: Callable[[Message], None] | None = None
        #: Called again and again while a call waits and nothing comes; it may `tell`, not `call`.
        self.on_idle: Callable[[], None] | None = None

    def __enter__(self) -> Client:
        """Close at the end of the block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close, whatever happened."""
        self.close()

    def close(self) -> None:
        """Leave the bus; the next call would come back to it."""
        if self._socket is not None:
            self._socket.close()
        for fd in self._fds:
            fd.close()
        self._socket, self._fds, self._serial = None, [], 0
        self._received.clear()

    def call(
        self,
        destination: str,
        path: str,
        interface: str,
        member: str,
        signature: str = "",
        body: Sequence[object] = (),
        *,
        fds: Sequence[Fd] = (),
        interactive: bool = True,
        timeout_s: float = 25.0,
    ) -> Reply:
        """Call a method and wait for its answer.

        ``fds`` stay the caller's; ``h`` in ``body`` is an index into them.
        """
        target = (destination, path, interface, member)
        flags = messages.INTERACTIVE if interactive else 0
        # Hello takes the first number, and whether it is sent is decided later.
        self._serial = serial = max(self._serial, _HELLO_SERIAL) + 1
        try:
            encoded = encode(signature, body, fds)
            frame = messages.call(serial, target, signature, encoded, flags)
        except CodecError as wrong:
            raise BusError(messages.INVALID_ARGS, f"Call of {member}: {wrong}.") from wrong
        try:
            deadline = monotonic() + timeout_s
            self._send(frame, encoded.fds, deadline)
            return self._wait(serial, member, deadline)
        except TimeoutError as late:
            # Leaving tells the service that nobody waits any more.
            self.close()
            text = f"No answer to {member} from {destination} within {timeout_s:g} seconds."
            raise BusError(messages.NO_REPLY_ERROR, text) from late
        except (OSError, ProtocolError, CodecError, EOFError) as gone:
            self.close()
            text = f"The bus broke the connection while {member} was waiting: {gone}."
            raise BusError(messages.DISCONNECTED, text) from gone

    def tell(self, destination: str, path: str, interface: str, member: str) -> None:
        """Call a method without arguments and without wanting to know what comes of it.

        Also good while a call waits. A connection that is gone is noticed by that call.
        """
        self._serial = max(self._serial, _HELLO_SERIAL) + 1
        target = (destination, path, interface, member)
        frame = messages.call(self._serial, target, flags=messages.NO_REPLY)
        with suppress(OSError):
            self._send(frame, [], monotonic() + _TELL_S)

    # --- sending --------------------------------------------------------------------

    def _send(self, frame: bytes, fds: list[Fd], deadline: float) -> None:
        if self._socket is not None:
            _send_all(self._socket, frame, fds, deadline)
            return
        self._socket = self._connect()
        greeting = self._greeting()
        if fds:
            # The bus reads no descriptors before the authentication is through.
            _send_all(self._socket, greeting, [], deadline)
            self._authenticated(deadline)
            _send_all(self._socket, frame, fds, deadline)
        else:
            # One system call for everything: the bus answers in order anyway.
            _send_all(self._socket, greeting + frame, [], deadline)
            self._authenticated(deadline)

    def _connect(self) -> socket:
        address = self._address or system_bus()
        failure: OSError | None = None
        for name in unix_sockets(address):
            new = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
            # A socket with Python's timeout fails at once when the backlog is full.
            new.setsockopt(SOL_SOCKET, SO_SNDTIMEO, _CONNECT_TIMEOUT)
            try:
                new.connect(name)
            except OSError as wrong:
                new.close()
                failure = wrong
            else:
                return new
        name = _ERROR + ("AccessDenied" if isinstance(failure, PermissionError) else "NoServer")
        reason = (failure.strerror or failure) if failure else "no address"
        raise BusError(name, f"The bus at {address} cannot be reached: {reason}.") from failure

    def _greeting(self) -> bytes:
        uid = str(os.geteuid()).encode().hex()
        lines = f"\0AUTH EXTERNAL {uid}\r\nNEGOTIATE_UNIX_FD\r\nBEGIN\r\n"
        hello = (BUS_NAME, BUS_PATH, BUS_NAME, "Hello")
        return lines.encode() + messages.call(_HELLO_SERIAL, hello)

    # --- receiving ------------------------------------------------------------------

    def _authenticated(self, deadline: float) -> None:
        """Read the two answers to the authentication; what follows them are messages."""
        for wanted in (b"OK", b"AGREE_UNIX_FD"):
            while (end := self._received.find(b"\r\n")) < 0:
                if len(self._received) > _MAX_LINE_BYTES:
                    raise ProtocolError("the bus sent an endless line")
                self._receive(deadline)
            line = bytes(self._received[:end])
            del self._received[: end + 2]
            if not line.startswith(wanted):
                text = f"The bus refused the authentication: {line.decode(errors='replace')}."
                self.close()
                raise BusError(_ERROR + "AuthFailed", text)

    def _wait(self, serial: int, member: str, deadline: float) -> Reply:
        while True:
            message = self._next_message(deadline)
            if message.kind in (messages.RETURN, messages.ERROR):
                if message.reply_serial == serial:
                    return _reply(message, member)
                if message.kind == messages.ERROR and message.reply_serial == _HELLO_SERIAL:
                    # Hello was refused: nothing else will ever be answered.
                    raise message.error()
            elif message.kind == messages.SIGNAL and self.on_signal is not None:
                self.on_signal(message)
            message.close_fds()

    def _next_message(self, deadline: float) -> Message:
        while True:
            size = messages.frame_size(self._received)
            if size and len(self._received) >= size:
                message = messages.parse(bytes(self._received[:size]))
                del self._received[:size]
                message.fds = self._fds[: message.fd_count]
                del self._fds[: message.fd_count]
                return message
            self._receive(deadline)

    def _receive(self, deadline: float) -> None:
        data, ancillary, flags = self._take(deadline)
        for level, kind, payload in ancillary:
            if (level, kind) == (SOL_SOCKET, SCM_RIGHTS):
                numbers = array("i", payload[: len(payload) & -4])
                self._fds += [Fd(number) for number in numbers]
        if flags & MSG_CTRUNC:
            raise ProtocolError("descriptors were lost, this process has too many open")
        if not data:
            raise EOFError("end of stream")
        self._received += data

    def _take(self, deadline: float) -> tuple[bytes, list[tuple[int, int, bytes]], int]:
        """What has come, as recvmsg(2) gives it, with `on_idle` in between."""
        assert self._socket is not None
        while True:
            left = _remaining(deadline)
            self._socket.settimeout(left if self.on_idle is None else min(left, _IDLE_S))
            try:
                return self._socket.recvmsg(_CHUNK_BYTES, _ANCILLARY, MSG_CMSG_CLOEXEC)[:3]
            except TimeoutError:
                if self.on_idle is None:
                    raise
                self.on_idle()


def _remaining(deadline: float) -> float:
    left = deadline - monotonic()
    if left <= 0:
        raise TimeoutError
    return left


def _send_all(to: socket, data: bytes, fds: list[Fd], deadline: float) -> None:
    view = memoryview(data)
    rights: list[tuple[int, int, array[int]]] = []
    if fds:
        numbers = array("i", [fd.fileno() for fd in fds])
        rights = [(SOL_SOCKET, SCM_RIGHTS, numbers)]
    while view:
        to.settimeout(_remaining(deadline))
        view = view[to.sendmsg([view], rights, MSG_NOSIGNAL) :]
        rights = []


def _reply(message: Message, member: str) -> Reply:
    if message.kind == messages.ERROR:
        message.close_fds()
        raise message.error()
    try:
        return Reply(message.body(), message.fds)
    except CodecError as wrong:
        message.close_fds()
        text = f"The answer to {member} is malformed: {wrong}."
        raise BusError(_ERROR + "InconsistentMessage", text) from wrong
