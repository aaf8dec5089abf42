"""The byte stream between the workers of two machines: a greeting, then frames, compressed.

Each direction has a thread of its own, so that compressing and waiting for the network cost
the walk through the home nothing. The bytes are one zstd stream (RFC 8878) for the whole
conversation; its window is bounded, so that the other side cannot choose how much memory
we need. Knows frames, not what is said with them.
"""

from __future__ import annotations

import fcntl
import os
import queue
import select
import socket
import stat
import sys
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from homemgr.errors import StreamError, TransferInterrupted
from homemgr.transfer import frames
from homemgr.transfer.decoder import Decoder

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from homemgr.files import Fd
    from homemgr.transfer.frames import Content, Frame

#: The first line of each direction; another version is refused before anything is believed.
GREETING = b"homemgr transfer 5\n"

#: Fast enough for a network of several hundred megabytes a second, and most of the gain. Level 1
#: looks for matches of seven bytes; of five there are more, in text, and they cost no more time.
_COMPRESSION = {
    int(zstd.CompressionParameter.compression_level): 1,
    int(zstd.CompressionParameter.min_match): 5,
}
#: Largest window (as a power of two) that is taken; level 1 uses 2^19.
_WINDOW_LOG = 21
#: Frames are handed to the other thread about so many bytes at a time, and so often at most
#: before it has taken them: each time costs both threads, many small ones more than the work.
_BATCH_BYTES = 512 << 10
_BATCHES = 4
_READ_BYTES = 256 << 10
#: Asked of the pipe or socket that the stream is; what root may have, whatever the limit.
_UNDER_WAY_BYTES = 1 << 20
_SO_SNDBUFFORCE = 32
#: What has arrived is handed to the other thread from this size on: mostly as it was unpacked.
_CHUNK_BYTES = 192 << 10
#: Pieces from this size on are compressed where they are, smaller ones are put together before.
_LARGE_BYTES = 32 << 10
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
        self._batches: queue.Queue[_Batch | None] = queue.Queue(_BATCHES)
        self._broken: BaseException | None = None
        #: Bytes that left, compressed.
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
        while self._parts:
            try:
                self._batches.put(_Batch(self._parts, is_urgent), timeout=_PATIENCE_S)
                self._parts, self._size = [], 0
            except queue.Full:
                self._patience()

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
            if self._broken is None and self._parts:
                self._batches.put(_Batch(self._parts, is_urgent=True), timeout=_LAST_WORDS_S)
            self._parts = []
            self._batches.put(None, timeout=max(0.0, until - time.monotonic()))
            self._writer.join(max(0.0, until - time.monotonic()))

    def _write(self) -> None:
        batch: _Batch | None = _Batch([], is_urgent=False)
        try:
            self._write_out(GREETING)
            compressor = zstd.ZstdCompressor(options=_COMPRESSION)
            while (batch := self._batches.get()) is not None:
                for piece in _joined(batch.parts):
                    self._write_out(compressor.compress(piece))
                if batch.is_urgent:
                    self._write_out(compressor.flush(compressor.FLUSH_BLOCK))
            self._write_out(compressor.flush())
        except BaseException as error:  # noqa: BLE001 -- raised in the thread that sends
            self._broken = error
            # Whoever still puts something in must not wait for us.
            while batch is not None:
                batch = self._batches.get()

    def _write_out(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            count = os.write(self._fd, view)
            self.sent_bytes += count
            view = view[count:]


class _Batch(NamedTuple):
    """Pieces of frames for the other thread."""

    parts: list[Content]
    #: Whether they are to leave now, and not only when a block of the compressor is full.
    is_urgent: bool


def _joined(parts: list[Content]) -> Iterator[Content]:
    """The same bytes in fewer pieces, large ones uncopied."""
    small: list[Content] = []
    for part in parts:
        if len(part) < _LARGE_BYTES:
            small.append(part)
            continue
        if small:
            yield b"".join(small)
            small = []
        yield part
    if small:
        yield b"".join(small)


class Incoming:
    """Frames from the other side, in order."""

    def __init__(self, fd: Fd, patience: Callable[[], None]) -> None:
        """Read from ``fd``, which stays the caller's; ``patience`` may raise while we wait."""
        self._fd = fd.fileno()
        _widen(self._fd)
        self._patience = patience
        self._chunks: queue.Queue[bytes | BaseException] = queue.Queue(_BATCHES)
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

    def _next(self) -> bytes | BaseException:
        while True:
            try:
                return self._chunks.get(timeout=_PATIENCE_S)
            except queue.Empty:
                self._patience()

    def _read(self) -> None:
        try:
            rest = self._greeted()
            self._decompress(rest)
        except BaseException as error:  # noqa: BLE001 -- raised in the thread that receives
            self._put(error)

    def _greeted(self) -> bytes:
        """What came after the greeting, which must be ours."""
        seen = b""
        while len(seen) < len(GREETING):
            if not (data := self._some()):
                raise EOFError("the connection ended")
            seen += data
            if not GREETING.startswith(seen[: len(GREETING)]):
                raise StreamError(
                    f"The other machine said {seen[:40]!r}, expected {GREETING!r}: either a program"
                    " at login prints something, or its homemgr is of another version."
                )
        return seen[len(GREETING) :]

    def _decompress(self, data: bytes) -> None:
        options = {int(zstd.DecompressionParameter.window_log_max): _WINDOW_LOG}
        decompressor = zstd.ZstdDecompressor(options=options)
        unpacked: list[bytes] = []
        size = 0
        try:
            while not decompressor.eof:
                piece = decompressor.decompress(data, _BATCH_BYTES)
                unpacked.append(piece)
                size += len(piece)
                # Little comes at a time: more is waited for only while it is there already.
                if size >= _CHUNK_BYTES or (decompressor.needs_input and not self._is_readable()):
                    self._put(b"".join(unpacked))
                    unpacked, size = [], 0
                data = b""
                if decompressor.needs_input and not (data := self._some()):
                    break
        except zstd.ZstdError as error:
            raise StreamError(f"The stream from the other machine is damaged: {error}") from error
        self._put(b"".join(unpacked))
        raise EOFError("the connection ended")

    def _is_readable(self) -> bool:
        """Whether something has come already, or will come no more."""
        return bool(select.select([self._fd], [], [], 0)[0])

    def _some(self) -> bytes:
        return os.read(self._fd, _READ_BYTES)

    def _put(self, chunk: bytes | BaseException) -> None:
        if not self._is_given_up:
            self._chunks.put(chunk)
