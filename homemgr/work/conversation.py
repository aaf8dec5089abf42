"""What two workers say to each other besides the content of files: JSON messages in the stream.

A failure of one side is told to the other before the stream ends, so that both users read
the same reason and not just that the connection broke.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from homemgr import errors, job
from homemgr.errors import StreamError, TransferInterrupted
from homemgr.kernel.memory import keep_freed
from homemgr.transfer.frames import Control
from homemgr.work.stream import Incoming, Outgoing

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from homemgr.files import Fd
    from homemgr.transfer.frames import Frame

_FAILED = "failed"

#: Freed memory that is kept for what comes next: batches and frames come and go all the time.
_KEPT_BYTES = 16 << 20


class Conversation:
    """Both directions of one stream. Ends with its block; tells the other side why, if it broke."""

    def __init__(self, incoming: Fd, outgoing: Fd, patience: Callable[[], None]) -> None:
        """Talk over two descriptors, which stay the caller's; ``patience`` may raise meanwhile."""
        keep_freed(_KEPT_BYTES)
        self.outgoing = Outgoing(outgoing, patience)
        self.incoming = Incoming(incoming, patience)
        #: True once the other side told of a failure of its own: it need not be told.
        self._other_failed = False

    def send(self, frame: Frame) -> None:
        """Send one frame, some time before the next message."""
        try:
            self.outgoing.send(frame)
        except TransferInterrupted:
            self._explain()
            raise

    def tell(self, **message: object) -> None:
        """Send a message, and all frames before it."""
        self.send(Control(message))
        self.flush()

    def flush(self) -> None:
        """Let everything leave that was sent."""
        try:
            self.outgoing.flush()
        except TransferInterrupted:
            self._explain()
            raise

    def receive(self) -> Frame:
        """The next frame; raises the failure the other side told, if it did."""
        frame = self.incoming.receive()
        if isinstance(frame, Control) and _FAILED in frame.message:
            self._other_failed = True
            raise _told(frame.message[_FAILED])
        return frame

    def hear_message(self, expected: str, *or_else: str) -> dict[str, object]:
        """The next thing that comes, which must be a message with ``expected`` in it.

        One with any of ``or_else`` is as good.
        """
        frame = self.receive()
        if not isinstance(frame, Control) or not {expected, *or_else}.intersection(frame.message):
            raise StreamError(f"The other machine sent something else than {expected!r}.")
        return frame.message

    def hear(self, expected: str) -> object:
        """The value of the message ``expected``, which must be the next thing that comes."""
        return self.hear_message(expected)[expected]

    def hear_object(self, expected: str) -> dict[str, object]:
        """Like `hear`, for a JSON object."""
        value = self.hear(expected)
        if not isinstance(value, dict):
            raise StreamError(f"The other machine's {expected!r} is no JSON object.")
        return value

    def _explain(self) -> None:
        """Raise what the other side said before the connection broke, if it said anything."""
        with suppress(TransferInterrupted, StreamError):
            while True:
                self.receive()

    def __enter__(self) -> Conversation:
        """Talk until the end of the block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Tell the other side of a failure, and let everything leave."""
        is_ours = not (self._other_failed or isinstance(error, TransferInterrupted))
        failure = Control({_FAILED: _telling(error)}) if error is not None and is_ours else None
        self.incoming.give_up()
        self.outgoing.end(failure)


def _telling(error: BaseException) -> object:
    if isinstance(error, errors.HomeError):
        return job.failure(error)["error"]
    if isinstance(error, ConnectionError | EOFError):
        # Only the daemon's is not a TransferInterrupted by now.
        gone = TransferInterrupted("The service ended in the middle of it.")
        return job.failure(gone)["error"]
    if isinstance(error, OSError):
        return job.failure(errors.from_os_error(error, "The transfer failed"))["error"]
    # The text of unexpected errors may quote anything; the log of that machine has more.
    return job.failure(errors.HomeError("Internal error on the other machine."))["error"]


def _told(told: object) -> errors.HomeError:
    """The failure of the other side as one of the same kind here."""
    failure = job.revive(told)
    failure.args = (f"On the other machine: {failure.message}",)
    return failure
