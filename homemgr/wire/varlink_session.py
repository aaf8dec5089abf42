"""One varlink client: requests cut from its stream, answered in order, written as it reads.

Knows framing and the bounds of one connection; not what is asked. Replies are framed
only as the client takes them, and nothing is read while it does not, so a client that
stops reading costs its connection and nothing else.
"""

from __future__ import annotations

import asyncio
import errno
import json
import logging
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Protocol

from homemgr.wire.outline import outline
from homemgr.wire.varlink_service import VarlinkError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from socket import socket
    from types import TracebackType

    from homemgr.wire.peer import Peer

log = logging.getLogger(__name__)

# What one connection may do before the loop goes round.
_REQUESTS_PER_TURN = 16
_CHUNKS_PER_TURN = 8
_CHUNK_BYTES = 1 << 16
_REPLIES_PER_CHUNK = 32


@dataclass(frozen=True)
class Limits:
    """What clients may take from the server; all of it stands here."""

    #: Longest request. Parsing one takes time that everybody else waits.
    request_bytes: int = 1 << 20
    root_request_bytes: int = 16 << 20
    #: Unfinished requests of all clients together, and of one user that is not root.
    buffered_bytes: int = 64 << 20
    buffered_bytes_per_uid: int = 4 << 20
    #: Connections in all and of one user; then the one idle for longest has to go.
    sessions: int = 4096
    sessions_per_uid: int = 1024
    #: A client that takes nothing for so long is gone, or as good as.
    stall_s: float = 60.0


class Server(Protocol):
    """What a session needs of its server."""

    limits: Limits

    def replies(
        self, peer: Peer, method: str, parameters: dict[str, object], *, more: bool
    ) -> Iterator[bytes]:
        """Encoded parameters of all replies, of which there is at least one."""

    def buffer(self, peer: Peer, size: int) -> None:
        """A session of ``peer`` keeps so many more bytes of requests, or fewer if negative."""

    def is_full(self, peer: Peer) -> bool:
        """Whether clients keep too many bytes already, all or those of this user."""

    def is_active(self, session: Session) -> None:
        """The session asked something."""

    def has_left(self, session: Session) -> None:
        """The session is closed."""


class _Garbage(Exception):
    """The client does not speak varlink."""


class Session:
    """Owns one accepted connection until either side closes it."""

    def __init__(self, server: Server, connected: socket, peer: Peer) -> None:
        """Serve ``peer`` on ``connected``, once `start` is called."""
        self.peer = peer
        self._server = server
        self._socket = connected
        self._loop = asyncio.get_running_loop()
        limits = server.limits
        self._limit = limits.root_request_bytes if peer.uid == 0 else limits.request_bytes
        self._input = bytearray()
        self._searched = 0
        self._output: Iterator[bytes] = iter(())
        self._chunk = memoryview(b"")
        self._stall: asyncio.TimerHandle | None = None
        self._is_writing = self._is_closed = self._is_scheduled = False

    def start(self) -> None:
        """Begin: most clients have sent their request by now."""
        self._loop.add_reader(self._socket, self._on_readable)
        self._on_readable()

    def close(self) -> None:
        """End the connection; twice does no harm."""
        if self._is_closed:
            return
        self._is_closed = True
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        if self._stall is not None:
            self._stall.cancel()
        self._server.buffer(self.peer, -len(self._input))
        self._input.clear()
        self._output, self._chunk = iter(()), memoryview(b"")
        self._server.has_left(self)
        self._socket.close()

    # --- in -------------------------------------------------------------------------

    def _on_readable(self) -> None:
        if self._is_scheduled:
            # Requests are waiting already; those to come shall wait in the kernel.
            return
        # One read per event: who sends without end waits for the others.
        try:
            data = self._socket.recv(_CHUNK_BYTES)
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            data = b""
        if not data:
            self.close()
            return
        self._input += data
        self._server.buffer(self.peer, len(data))
        self._turn()

    def _turn(self) -> None:
        """Answer what has been asked, in order, a bounded number before others get a turn."""
        self._is_scheduled = False
        try:
            for _ in range(_REQUESTS_PER_TURN):
                if self._is_closed or self._is_writing:
                    return
                request = self._next_request()
                if request is None:
                    return
                self._answer(request)
        except _Garbage as garbage:
            log.debug("Closing the connection of uid %d: %s.", self.peer.uid, garbage)
            self.close()
            return
        self._schedule()

    def _schedule(self) -> None:
        if not self._is_scheduled and not self._is_closed:
            self._is_scheduled = True
            self._loop.call_soon(self._turn)

    def _next_request(self) -> bytes | None:
        end = self._input.find(0, self._searched)
        if end < 0:
            self._searched = len(self._input)
            if self._searched > self._limit or self._server.is_full(self.peer):
                raise _Garbage("a request without end")
            return None
        request = bytes(self._input[:end])
        del self._input[: end + 1]
        self._server.buffer(self.peer, -(end + 1))
        self._searched = 0
        if end > self._limit:
            raise _Garbage("a request that is too long")
        return request

    def _answer(self, raw: bytes) -> None:
        request = _parsed(raw)
        self._server.is_active(self)
        answer = _Answer(str(request["method"]))
        with answer:
            parameters = request.get("parameters") or {}
            assert isinstance(parameters, dict)
            answer.replies = self._server.replies(
                self.peer, answer.method, parameters, more=bool(request.get("more"))
            )
        if not request.get("oneway"):
            self._output = answer.frames()
            self._write()

    # --- out ------------------------------------------------------------------------

    def _write(self) -> None:
        try:
            for _ in range(_CHUNKS_PER_TURN):
                if not self._chunk and not self._refill():
                    self._written()
                    return
                self._chunk = self._chunk[self._socket.send(self._chunk) :]
                self._progressed()
        except (BlockingIOError, InterruptedError):
            log.debug("uid %d reads slower than we write.", self.peer.uid)
        except OSError:
            # Gone before its answer: its business.
            self.close()
            return
        if not self._is_writing:
            self._is_writing = True
            # Not reading is what slows the client down; its requests wait in the kernel.
            self._loop.remove_reader(self._socket)
            self._loop.add_writer(self._socket, self._write)
            self._progressed()

    def _refill(self) -> bool:
        """Frame the next few replies; False if there are none."""
        frames, size = [], 0
        try:
            for frame in islice(self._output, _REPLIES_PER_CHUNK):
                frames.append(frame)
                size += len(frame)
                if size >= _CHUNK_BYTES:
                    break
        except Exception as error:  # noqa: BLE001 -- a bug: the client must not wait for ever
            log.error("An answer broke off: %s", outline(error))
            self.close()
            return False
        self._chunk = memoryview(b"".join(frames))
        return size > 0

    def _progressed(self) -> None:
        if self._is_writing:
            if self._stall is not None:
                self._stall.cancel()
            self._stall = self._loop.call_later(self._server.limits.stall_s, self.close)

    def _written(self) -> None:
        if not self._is_writing:
            return
        self._is_writing = False
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
        self._loop.remove_writer(self._socket)
        self._loop.add_reader(self._socket, self._on_readable)
        # Requests sent ahead are in the buffer already: no event will tell of them.
        self._schedule()


class _Answer:
    """The frames of one answer, whatever happens while it is looked for."""

    def __init__(self, method: str) -> None:
        self.method = method
        self.replies: Iterator[bytes] = iter(())
        self._error: VarlinkError | None = None

    def __enter__(self) -> _Answer:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        if isinstance(error, VarlinkError):
            self._error = error
        elif isinstance(error, Exception):
            log.error("%s failed: %s", self.method, outline(error))
            self._error = VarlinkError("io.systemd.System", {"errno": errno.EIO})
        return isinstance(error, Exception)

    def frames(self) -> Iterator[bytes]:
        """What goes over the wire; joined only when it is asked for."""
        if self._error is not None:
            text = {"error": self._error.name, "parameters": self._error.parameters}
            yield json.dumps(text, separators=(",", ":")).encode() + b"\0"
            return
        # One ahead: the last one has to be told from the others.
        reply = next(self.replies)
        for following in self.replies:
            yield b'{"parameters":' + reply + b',"continues":true}\0'
            reply = following
        yield b'{"parameters":' + reply + b"}\0"


def _parsed(raw: bytes) -> dict[str, object]:
    """A request whose members have the right types."""
    try:
        request = json.loads(raw.decode("utf-8"))
    except (ValueError, RecursionError) as wrong:
        raise _Garbage("a request that is not JSON") from wrong
    if not isinstance(request, dict) or not isinstance(request.get("method"), str):
        raise _Garbage("a request without a method")
    if not isinstance(request.get("parameters"), dict | None):
        raise _Garbage("parameters that are not an object")
    flags = (request.get("more"), request.get("oneway"), request.get("upgrade"))
    if not all(isinstance(flag, bool | None) for flag in flags) or flags[2]:
        raise _Garbage("a flag that is not a boolean, or an upgrade")
    return request
