"""Stands in for polkitd: grants whatever is asked, or one action alone, once it is told to."""

from __future__ import annotations

import asyncio
from threading import Event

from homemgr.wire.dispatch import Call, Interface, Method
from tests.service.stand_in import StandIn

_NAME, _PATH = "org.freedesktop.PolicyKit1", "/org/freedesktop/PolicyKit1/Authority"
_QUESTION = (
    ("subject", "(sa{sv})"),
    ("action_id", "s"),
    ("details", "a{ss}"),
    ("flags", "u"),
    ("cancellation_id", "s"),
)


class Authority(StandIn):
    """Grants actions as soon as ``granting`` is set; ``asked`` once there was a question."""

    def __init__(self, only: str = "") -> None:
        """Grant nothing yet, and never anything else than ``only``, if that is given."""
        super().__init__(_NAME, _PATH, _INTERFACE)
        self._only = only
        self.asked = Event()
        self.granting = Event()
        #: The actions asked about, without their common prefix.
        self.actions: list[str] = []

    async def check(self, action: str) -> tuple[object]:
        """Yes, some time; or no."""
        name = action.removeprefix("org.freedesktop.home1.")
        self.actions.append(name)
        self.asked.set()
        while not self.granting.is_set():
            await asyncio.sleep(0.01)
        return ((self._only in ("", name), False, {}),)


async def _check(
    target: Authority, _call: Call, _subject: object, action: str, *_more: object
) -> tuple[object]:
    return await target.check(action)


_INTERFACE = Interface(
    "org.freedesktop.PolicyKit1.Authority",
    (Method("CheckAuthorization", _QUESTION, (("result", "(bba{ss})"),), _check),),
)
