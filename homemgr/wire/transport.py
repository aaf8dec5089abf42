"""A D-Bus stream on the event loop: whole messages and their descriptors in, frames out.

Knows framing, descriptor passing and fairness; no serial numbers, no names. Neither
a flood of messages nor a full socket buffer may stop the loop or lose a descriptor.
See unix(7), recvmsg(2) and the message format of the D-Bus specification.
"""

from __future__ import annotations

import array
import asyncio
from collections import deque
from socket import (
    CMSG_SPACE,
    MSG_CMSG_CLOEXEC,
    MSG_CTRUNC,
    MSG_NOSIGNAL,
    SCM_RIGHTS,
    SOL_SOCKET,
    socket,
)
from typing import TYPE_CHECKING

from homemgr.files import Fd
from homemgr.wire import messages
from homemgr.wire.messages import Message, ProtocolError
from homemgr.wire.signature import CodecError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_CHUNK_BYTES = 1 << 17
#: As a plain number: an operation of the enumeration takes microseconds, for each message.
_TRUNCATED = int(MSG_CTRUNC)
#: The kernel passes at most 253 descriptors at once (SCM_MAX_FD).
_ANCILLARY = CMSG_SPACE(253 * 4)
#: Messages handled before timers and other connections get their turn.
MESSAGES_PER_TURN = 32
#: Unsent bytes beyond which nothing more is read: who floods us waits for our answers.
HIGH_WATER_BYTES = 16 << 20


class Transport:
    """Owns a connected, authenticated socket; calls back with messages until it is gone."""

    def __init__(
        self,
        connected: socket,
        on_message: Callable[[Message], None],
        on_closed: Callable[[str], None],
    ) -> None:
        """Start reading at once; ``on_closed`` comes exactly once, with the reason."""
        self._loop = asyncio.get_running_loop()
        self._socket = connected
        self._on_message = on_message
        self._on_closed = on_closed
        self._buffer = bytearray()
        # Kept: a buffer of this size is a fresh mapping each time it is asked for.
        self._chunk = memoryview(bytearray(_CHUNK_BYTES))
        #: Descriptors per sendmsg(2) of the other side, and whether some were lost.
        self._groups: deque[tuple[list[Fd], bool]] = deque()
        self._unsent: deque[tuple[memoryview, Sequence[Fd]]] = deque()
        self._unsent_bytes = 0
        self._is_writing = self._is_pumping = self._is_closed = False
        self._emptied: asyncio.Future[None] | None = None
        self._socket.settimeout(0)
        self._loop.add_reader(self._socket, self._on_readable)

    # --- in -------------------------------------------------------------------------

    def _on_readable(self) -> None:
        if self._is_pumping or self._unsent_bytes > HIGH_WATER_BYTES:
            if not self._is_pumping:
                self._loop.remove_reader(self._socket)
            return
        try:
            size, ancillary, flags, _ = self._socket.recvmsg_into(
                [self._chunk], _ANCILLARY, MSG_CMSG_CLOEXEC
            )
        except (BlockingIOError, InterruptedError):
            return
        except OSError as wrong:
            self._fail(f"reading from the bus failed: {wrong}")
            return
        if ancillary or flags & _TRUNCATED:
            self._keep_descriptors(ancillary, is_truncated=bool(flags & _TRUNCATED))
        if not size:
            self._fail("the bus closed the connection")
            return
        self._buffer += self._chunk[:size]
        self._pump()

    def _keep_descriptors(
        self, ancillary: list[tuple[int, int, bytes]], *, is_truncated: bool
    ) -> None:
        """Keep what one recvmsg(2) brought apart: it is what one message was sent with."""
        group = []
        for level, kind, payload in ancillary:
            if (level, kind) == (SOL_SOCKET, SCM_RIGHTS):
                numbers = array.array("i", payload[: len(payload) & -4])
                group += [Fd(number) for number in numbers]
        if group or is_truncated:
            self._groups.append((group, is_truncated))

    def _pump(self) -> None:
        """Hand over whole messages, a bounded number before the loop goes round."""
        self._is_pumping = False
        try:
            frames, has_more = self._frames()
            for frame in frames:
                message = messages.parse(frame)
                self._attach(message)
                self._on_message(message)
                if self._is_closed:
                    return
        except (ProtocolError, CodecError) as wrong:
            self._fail(f"the bus sent something that is not D-Bus: {wrong}")
            return
        if has_more:
            self._is_pumping = True
            self._loop.call_soon(self._pump)

    def _frames(self) -> tuple[list[bytes], bool]:
        """Cut whole frames off the buffer, and tell if it holds more of them."""
        frames: list[bytes] = []
        at = 0
        if self._is_closed:
            return frames, False
        if messages.frame_size(self._buffer) == len(self._buffer) > 0:
            # One message alone, as nearly always.
            frames.append(bytes(self._buffer))
            self._buffer.clear()
            return frames, False
        with memoryview(self._buffer) as view:
            while size := messages.frame_size(self._buffer, at):
                if len(view) - at < size or len(frames) == MESSAGES_PER_TURN:
                    break
                frames.append(bytes(view[at : at + size]))
                at += size
        del self._buffer[:at]
        return frames, len(frames) == MESSAGES_PER_TURN

    def _attach(self, message: Message) -> None:
        if not message.fd_count:
            return
        if not self._groups:
            raise ProtocolError("a message announces descriptors that did not come")
        group, is_truncated = self._groups.popleft()
        message.fds = group
        if is_truncated:
            # At our limit of open files the kernel drops descriptors; never guess which.
            message.fds_lost = True
            message.close_fds()
        elif len(group) != message.fd_count:
            message.close_fds()
            raise ProtocolError("a message came with other descriptors than it announces")

    # --- out ------------------------------------------------------------------------

    def send(self, frame: bytes, fds: Sequence[Fd] = ()) -> None:
        """Send ``frame``, now or when there is room; ``fds`` are closed once they are sent."""
        if self._is_closed:
            _close_all(fds)
            return
        self._unsent.append((memoryview(frame), fds))
        self._unsent_bytes += len(frame)
        if len(self._unsent) == 1:
            self._write()

    def _write(self) -> None:
        try:
            while self._unsent:
                self._write_some()
        except (BlockingIOError, InterruptedError):
            if not self._is_writing:
                self._is_writing = True
                self._loop.add_writer(self._socket, self._write)
            return
        except OSError as wrong:
            self._fail(f"writing to the bus failed: {wrong}")
            return
        if self._is_writing:
            self._is_writing = False
            self._loop.remove_writer(self._socket)
            self._loop.add_reader(self._socket, self._on_readable)
        if self._emptied is not None and not self._emptied.done():
            self._emptied.set_result(None)

    def _write_some(self) -> None:
        view, fds = self._unsent[0]
        if fds:
            numbers = array.array("i", [fd.fileno() for fd in fds])
            rights = [(SOL_SOCKET, SCM_RIGHTS, numbers)]
            sent = self._socket.sendmsg([view], rights, MSG_NOSIGNAL)
            _close_all(fds)
        else:
            sent = self._socket.send(view, MSG_NOSIGNAL)
        self._unsent_bytes -= sent
        if sent == len(view):
            self._unsent.popleft()
        else:
            # Descriptors go with the first byte, so they are never sent twice.
            self._unsent[0] = (view[sent:], ())

    async def flush(self) -> None:
        """Return when everything is sent, or the connection is gone."""
        if self._unsent and not self._is_closed:
            self._emptied = self._loop.create_future()
            await self._emptied

    # --- end ------------------------------------------------------------------------

    def close(self, reason: str = "we closed the connection") -> None:
        """Close the socket and every descriptor that is on its way, in or out."""
        self._fail(reason)

    def _fail(self, reason: str) -> None:
        if self._is_closed:
            return
        self._is_closed = True
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        for _, fds in self._unsent:
            _close_all(fds)
        for group, _ in self._groups:
            _close_all(group)
        self._unsent.clear()
        self._groups.clear()
        if self._emptied is not None and not self._emptied.done():
            self._emptied.set_result(None)
        # Not from inside a send: the caller is in the middle of something.
        self._loop.call_soon(self._on_closed, reason)


def _close_all(fds: Sequence[Fd]) -> None:
    for fd in fds:
        fd.close()
