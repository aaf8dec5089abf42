"""Asking polkit whether a caller may do something.

Knows polkit's CheckAuthorization and what its answers mean; which action guards what
is decided elsewhere, as is who need not be asked at all. See the D-Bus API reference
of polkit, interface org.freedesktop.PolicyKit1.Authority.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from contextlib import contextmanager
from typing import TYPE_CHECKING

from homemgr.errors import AccessDenied, InteractiveAuthorizationRequired, TooManyOperations
from homemgr.wire.codec import Variant
from homemgr.wire.messages import BusError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from homemgr.wire.connection import Connection
    from homemgr.wire.dispatch import Call

log = logging.getLogger(__name__)

_NAME = "org.freedesktop.PolicyKit1"
_PATH = "/org/freedesktop/PolicyKit1/Authority"
_INTERFACE = "org.freedesktop.PolicyKit1.Authority"
_MAY_ASK_THE_USER = 1
#: A question without a person behind it is answered within milliseconds.
_TIMEOUT_S = 25.0
#: Questions one user may have open: each may wait for minutes, and all share the
#: connection's allowance of calls without an answer.
MAX_QUESTIONS_PER_UID = 16
MAX_QUESTIONS = 64


class Polkit:
    """The questions asked over one connection."""

    def __init__(self, connection: Connection) -> None:
        """Ask through ``connection``, which has to be the system bus polkit is on."""
        self._connection = connection
        self._questions = 0
        self._open: Counter[int] = Counter()

    async def check(self, call: Call, action: str, details: Mapping[str, str]) -> None:
        """Return if the caller of ``call`` may do ``action``; otherwise raise.

        AccessDenied is final; InteractiveAuthorizationRequired means that the caller
        may ask again with interaction allowed. Asks the user for a password if the call
        allows that, for as long as it takes or until the caller leaves the bus.
        """
        peer = await call.caller()
        try:
            with self._counted(peer.uid):
                is_authorized, may_retry = await self._ask(call, action, details)
        except BusError as wrong:
            if peer.uid == 0:
                # Without polkit root remains in charge, and nobody else does.
                return
            log.warning("polkit did not answer about %s: %s.", action, wrong)
            raise AccessDenied(
                f"{call.member} needs the authorization {action}, and polkit is not available."
            ) from wrong
        if is_authorized:
            return
        if may_retry and not call.interactive:
            raise InteractiveAuthorizationRequired(
                f"{call.member} needs the authorization {action}, given interactively."
            )
        raise AccessDenied(f"{call.member} needs the authorization {action}; polkit refused it.")

    @contextmanager
    def _counted(self, uid: int) -> Iterator[None]:
        if self._open[uid] >= MAX_QUESTIONS_PER_UID or self._open.total() >= MAX_QUESTIONS:
            raise TooManyOperations("Too many authorizations are waiting for an answer.")
        self._open[uid] += 1
        try:
            yield
        finally:
            self._open[uid] -= 1
            if not self._open[uid]:
                del self._open[uid]

    async def _ask(self, call: Call, action: str, details: Mapping[str, str]) -> tuple[bool, bool]:
        """Whether it is authorized, and whether a person could make it so."""
        self._questions += 1
        cancellation = f"{self._connection.unique_name}-{self._questions}"
        asking = asyncio.ensure_future(
            self._connection.call(
                _NAME,
                _PATH,
                _INTERFACE,
                "CheckAuthorization",
                "(sa{sv})sa{ss}us",
                (
                    ("system-bus-name", {"name": Variant("s", call.sender)}),
                    action,
                    dict(details),
                    _MAY_ASK_THE_USER if call.interactive else 0,
                    cancellation,
                ),
                timeout_s=None if call.interactive else _TIMEOUT_S,
            )
        )
        stop_watching = self._connection.watch(call.sender, asking.cancel)
        try:
            return _verdict(await asking)
        except asyncio.CancelledError:
            # Either the caller has left or this handler is being cancelled,
            # and the dialog goes off the screen; nothing depends on whether it does.
            target = (_NAME, _PATH, _INTERFACE, "CancelCheckAuthorization")
            self._connection.tell(target, "s", (cancellation,))
            if asking.cancelled() and not _is_cancelling():
                raise AccessDenied("The caller left the bus before it was authorized.") from None
            raise
        finally:
            stop_watching()


def _is_cancelling() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _verdict(reply: list[object]) -> tuple[bool, bool]:
    match reply:
        case [(bool() as is_authorized, bool() as is_challenge, dict())]:
            return is_authorized, is_challenge
    raise BusError("org.freedesktop.DBus.Error.InvalidSignature", "polkit's answer is malformed")
