"""The byte stream between the workers of two machines: a greeting, then frames, in `chunks`.

Each direction has a thread of its own, so that compressing and waiting for the network cost
the walk through the home nothing. Knows frames, not what is said with them.
"""

from __future__ import annotations

import fcntl
import os
import queue
import select
import socket
import stat
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from homemgr.errors import StreamError, TransferInterrupted
from homemgr.transfer import chunks, frames
from homemgr.transfer.decoder import Decoder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from homemgr.files import Fd
    from homemgr.transfer.frames import Content, Frame

#: The first line of each direction; another version is refused before anything is believed.
GREETING = b"homemgr transfer 6\n"

#: Frames are handed to the other thread about so many bytes at a time, and so often at most
#: before it has taken them: each time costs both threads, many small ones more than the work.
_BATCH_BYTES = 512 << 10
_BATCHES = 4
#: Asked of the pipe or socket that the stream is; what root may have, whatever the limit.
_UNDER_WAY_BYTES = 1 << 20
_SO_SNDBUFFORCE = 32
#: Of what was said in the place of the greeting about so much is told.
_SHOWN_BYTES = 40
#: Who waits looks this often (s) whether he still should, and at the end waits so long (s).
_PATIENCE_S = 0.5
_LAST_WORDS_S = 5.0
#: Virtual memory for each thread; the address space of a worker is limited.
_STACK_BYTES = 512 << 10

_BROKEN = "The connection to the other machine broke; run the same command again to go on."


def start_thread(target: Callable[[], None]) -> threading.Thread:
    """Run ``target`` in a thread that takes little of the address space of a worker."""
    before = threading.stack_size(_STACK_BYTES)
    try:
        thread = threading.Thread(target=target, daemon=True)
        thread.start()
    finally:
        threading.stack_size(before)
    return thread


def _widen(fd: int) -> None:
    """Let more be under way between us and who holds the other end: fewer turns for both."""
    with suppress(OSError):
        # Where that is refused it works as it is, in more turns.
        if stat.S_ISFIFO(os.fstat(fd).st_mode):
            fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _UNDER_WAY_BYTES)
        elif stat.S_ISSOCK(os.fstat(fd).st_mode):
            # Of a copy, since the object closes the descriptor that it has.
            with socket.socket(fileno=os.dup(fd)) as end:
                end.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _UNDER_WAY_BYTES)


class Outgoing:
    """Frames to the other side. Used by one thread; `send` may raise what broke earlier."""

    def __init__(self, fd: Fd, patience: Callable[[], None]) -> None:
        """Write to ``fd``, which stays the caller's; ``patience`` may raise while we wait."""
        self._fd = fd.fileno()
        _widen(self._fd)
        self._patience = patience
        self._parts: list[Content] = []
        self._size = 0
        #: Whether what was handed over last may wait for more.
        self._is_behind = False
        self._batches: queue.Queue[_Batch | None] = queue.Queue(_BATCHES)
        self._broken: BaseException | None = None
        #: Bytes that left, as they travel.
        self.sent_bytes = 0
        self._writer = start_thread(self._write)

    def send(self, frame: Frame) -> None:
        """Queue one frame; it leaves when enough are together, or at `flush`."""
        parts = frames.parts(frame)
        self._parts += parts
        self._size += sum(map(len, parts))
        if self._size >= _BATCH_BYTES:
            self._hand_over(is_urgent=False)

    def flush(self) -> None:
        """Let everything queued leave; does not wait for it."""
        self._hand_over(is_urgent=True)

    def _hand_over(self, *, is_urgent: bool) -> None:
        if self._broken is not None:
            raise TransferInterrupted(_BROKEN) from self._broken
        while self._parts or (is_urgent and self._is_behind):
            try:
                self._batches.put(_Batch(self._parts, is_urgent), timeout=_PATIENCE_S)
            except queue.Full:
                self._patience()
                continue
            self._parts, self._size = [], 0
            self._is_behind = not is_urgent

    def end(self, failure: Frame | None = None) -> None:
        """Wait until all has left, but not for one who does not read any more.

        With a ``failure`` that is all that is still said.
        """
        until = time.monotonic() + _LAST_WORDS_S
        if failure is not None:
            self._parts = list(frames.parts(failure))
            with suppress(queue.Empty):
                while True:
                    self._batches.get_nowait()
        # Who does not read any more gets no last word.
        with suppress(queue.Full):
            if self._broken is None and (self._parts or self._is_behind):
                self._batches.put(_Batch(self._parts, is_urgent=True), timeout=_LAST_WORDS_S)
            self._parts = []
            self._batches.put(None, timeout=max(0.0, until - time.monotonic()))
            self._writer.join(max(0.0, until - time.monotonic()))

    def _write(self) -> None:
        batch: _Batch | None = _Batch([], is_urgent=False)
        try:
            self._write_out([GREETING])
            packer = chunks.Packer()
            while (batch := self._batches.get()) is not None:
                for pieces in packer.pack(batch.parts, is_urgent=batch.is_urgent):
                    self._write_out(pieces)
            self._write_out([chunks.THE_END])
        except BaseException as error:  # noqa: BLE001 -- raised in the thread that sends
            self._broken = error
            # Whoever still puts something in must not wait for us.
            while batch is not None:
                batch = self._batches.get()

    def _write_out(self, pieces: Sequence[Content]) -> None:
        count = os.writev(self._fd, pieces)
        self.sent_bytes += count
        if count == sum(map(len, pieces)):
            return
        # Only a signal cuts one short that may wait.
        rest = memoryview(b"".join(pieces))[count:]
        while rest:
            count = os.write(self._fd, rest)
            self.sent_bytes += count
            rest = rest[count:]


class _Batch(NamedTuple):
    """Pieces of frames for the other thread."""

    parts: list[Content]
    #: Whether they are to leave now, and not only when more has come.
    is_urgent: bool


class Incoming:
    """Frames from the other side, in order."""

    def __init__(self, fd: Fd, patience: Callable[[], None]) -> None:
        """Read from ``fd``, which stays the caller's; ``patience`` may raise while we wait."""
        self._fd = fd.fileno()
        _widen(self._fd)
        self._patience = patience
        self._chunks: queue.Queue[bytes | bytearray | BaseException] = queue.Queue(_BATCHES)
        self._is_given_up = False
        self._frames = self._decode()
        start_thread(self._read)

    def receive(self) -> Frame:
        """The next frame. Raises TransferInterrupted at the end, StreamError for nonsense."""
        return next(self._frames)

    @property
    def has_come(self) -> bool:
        """Whether something has come since the last frame that was received."""
        return not self._chunks.empty()

    def give_up(self) -> None:
        """Want nothing more; what still comes is thrown away."""
        self._is_given_up = True
        while not self._chunks.empty():
            self._chunks.get()

    def _decode(self) -> Iterator[Frame]:
        decoder = Decoder()
        while True:
            chunk = self._next()
            if isinstance(chunk, StreamError):
                raise chunk
            if isinstance(chunk, BaseException):
                raise TransferInterrupted(_BROKEN) from chunk
            yield from decoder.feed(chunk)

    def _next(self) -> bytes | bytearray | BaseException:
        while True:
            try:
                return self._chunks.get(timeout=_PATIENCE_S)
            except queue.Empty:
                self._patience()

    def _read(self) -> None:
        try:
            self._require_greeting()
            unpacker = chunks.Unpacker()
            while (head := self._exactly(chunks.HEAD_BYTES)) != chunks.THE_END:
                kind, length = unpacker.begun(head)
                for data in unpacker.unpack(kind, self._exactly(length)):
                    self._put(data)
            raise EOFError("the connection ended")
        except BaseException as error:  # noqa: BLE001 -- raised in the thread that receives
            self._put(error)

    def _require_greeting(self) -> None:
        """Raise StreamError unless it begins with the greeting."""
        seen = b""
        while len(seen) < len(GREETING):
            if not (data := os.read(self._fd, len(GREETING) - len(seen))):
                raise EOFError("the connection ended")
            seen += data
            if not GREETING.startswith(seen):
                if select.select([self._fd], [], [], 0)[0]:
                    seen += os.read(self._fd, _SHOWN_BYTES)
                raise StreamError(
                    f"The other machine said {seen!r}, expected {GREETING!r}: either a program"
                    " at login prints something, or its homemgr is of another version."
                )

    def _exactly(self, count: int) -> bytearray:
        """The next ``count`` bytes."""
        data = bytearray(count)
        rest = memoryview(data)
        while rest:
            if not (came := os.readv(self._fd, [rest])):
                raise EOFError("the connection ended")
            rest = rest[came:]
        return data

    def _put(self, chunk: bytes | bytearray | BaseException) -> None:
        if not self._is_given_up:
            self._chunks.put(chunk)
