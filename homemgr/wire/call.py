"""One incoming method call: what its handler may ask, and its one answer.

Knows who called and how to reply; not which method is meant. Whatever happens to
the handler, the caller gets exactly one reply, and no text of ours that it should
not see: tracebacks and arguments (they may be secrets) stay here.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from homemgr.errors import AccessDenied, HomeError, bus_name_of
from homemgr.files import Fd
from homemgr.wire import messages
from homemgr.wire.codec import Encoded, Variant, encode
from homemgr.wire.messages import BusError
from homemgr.wire.outline import outline
from homemgr.wire.signature import CodecError, TooLarge

if TYPE_CHECKING:
    from types import TracebackType

    from homemgr.wire.connection import Connection
    from homemgr.wire.messages import Message
    from homemgr.wire.peer import Peer

log = logging.getLogger(__name__)

_CANCELLED = "System.Error.ECANCELED"
_BUG = "System.Error.EIO"


class Refusal(BusError):
    """The call cannot be dispatched; raised by this room only, unlike a peer's `BusError`."""


class Call:
    """A method call as its handler sees it.

    ``fds`` came with it, and stand in the arguments wherever the signature says ``h``;
    they are closed when the handler has finished, unless taken (`Fd.take`).
    """

    __slots__ = (
        "_connection",
        "_is_answered",
        "_message",
        "fds",
        "interactive",
        "interface",
        "member",
        "out_signature",
        "path",
        "sender",
    )

    def __init__(self, connection: Connection, message: Message) -> None:
        """A call in need of an answer; owns the descriptors of ``message`` from now on."""
        self._connection = connection
        self._message = message
        # Who wants no reply is treated like somebody who has it already.
        self._is_answered = not message.expects_reply
        self.sender = message.sender
        self.path = message.path
        self.interface = message.interface
        self.member = message.member
        self.interactive = bool(message.flags & messages.INTERACTIVE)
        self.fds: list[Fd] = message.fds
        #: What the answer has to look like; set once the method is found.
        self.out_signature = ""

    async def caller(self) -> Peer:
        """Who calls, by the bus's word."""
        try:
            return await self._connection.credentials(self.sender)
        except BusError as gone:
            raise AccessDenied("The caller left the bus before it could be identified.") from gone

    # --- answering: used by the dispatcher only -----------------------------------

    def finish(self, result: object) -> None:
        """Let go of everything, and answer with what the handler returned."""
        # In this order: who has the answer may count on its descriptors being closed.
        self._release()
        try:
            self._give(result)
        except CodecError as wrong:
            _close_fds_in(result)
            self.fail(wrong)

    def _give(self, result: object) -> None:
        if isinstance(result, Encoded):
            if result.signature != self.out_signature:
                raise CodecError(f"a kept answer has signature {result.signature!r}")
            if not self._is_answered:
                self._connection.reply(self._message, self.out_signature, result.data)
        else:
            if not isinstance(result, (tuple, list)):
                # A bare value is a bug, and a string would pass as a list of letters.
                if result is not None:
                    raise CodecError(f"the handler returned a {type(result).__name__}")
                result = ()
            # Encoded even when nobody wants it: descriptors in it have to be closed.
            body = encode(self.out_signature, result)
            if self._is_answered:
                body.close_fds()
            else:
                self._connection.reply(self._message, self.out_signature, body)
        self._is_answered = True

    def fail(self, error: BaseException) -> None:
        """Let go of everything, and answer with ``error`` in words meant for the caller."""
        self._release()
        name, text = self._words(error)
        # A failure while answering comes here with the answer still to be given.
        if not self._is_answered:
            self._is_answered = True
            self._connection.reply_error(self._message, name, text)

    def _words(self, error: BaseException) -> tuple[str, str]:
        if isinstance(error, HomeError):
            return bus_name_of(error), error.message
        # Only our own: a peer's error is no business of the caller and would mislead it.
        if isinstance(error, Refusal):
            return error.name, error.message
        if isinstance(error, asyncio.CancelledError):
            return _CANCELLED, f"{self.member} was cancelled."
        if isinstance(error, TooLarge):
            return messages.LIMITS_EXCEEDED, f"The answer to {self.member} is too large."
        # Only types and places: the text of an unexpected error may quote an argument.
        log.error("%s.%s failed: %s", self.interface, self.member, outline(error))
        return _BUG, f"{self.member} failed inside the service; its log says where."

    def _release(self) -> None:
        for fd in self.fds:
            fd.close()

    def __enter__(self) -> Call:
        """Until the end of the block any exception becomes the answer."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> bool:
        """Answer for what was raised; only the end of the process itself passes through."""
        if error is None:
            return False
        self.fail(error)
        return isinstance(error, Exception)


def _close_fds_in(value: object) -> None:
    """Close the descriptors of an answer that could not be sent."""
    if isinstance(value, Fd):
        value.close()
    elif isinstance(value, Variant):
        _close_fds_in(value.value)
    elif isinstance(value, (tuple, list)):
        for item in value:
            _close_fds_in(item)
    elif isinstance(value, dict):
        _close_fds_in(list(value.values()))
