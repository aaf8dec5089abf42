"""What look-ups are answered with: user and group records as JSON text, kept until they change.

Answers come from memory alone: a user database that waits delays every name
look-up on the machine.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from homemgr.record import jsontext, status
from homemgr.record.signature import Verdict

if TYPE_CHECKING:
    from homemgr.daemon.home import Home
    from homemgr.daemon.registry import Registry

#: Homes encoded in one turn while warming up, and the pause that leaves callers their turns.
_WARM_PER_TURN = 10
_WARM_PAUSE_S = 0.001

_HIDDEN = "privileged"


class Answers:
    """Encoded records of all homes of a registry."""

    def __init__(self, registry: Registry) -> None:
        """Forget what is kept about a home whenever the registry says it changed."""
        self._registry = registry
        self._users: dict[str, str] = {}
        self._groups: dict[str, str] = {}
        registry.changed.append(self.forget)
        registry.vanished.append(self.forget)

    async def warm(self) -> None:
        """Encode everything once, in small turns: so that no enumeration has to."""
        for count, home in enumerate(list(self._registry)):
            if home.is_known:
                self._user(home)
                self.group_record(home)
            if count % _WARM_PER_TURN == 0:
                await asyncio.sleep(_WARM_PAUSE_S)

    def user_record(self, home: Home, *, privileged: bool) -> tuple[str, bool]:
        """The user record as shown to a caller, and whether something was left out for him."""
        hidden = home.record.data.get(_HIDDEN)
        text = self._user(home)
        if hidden is None or not privileged:
            return text, hidden is not None
        # Added at the end: the order of members means nothing.
        return f'{text[:-1]},"{_HIDDEN}":{jsontext.compact(hidden)}}}', False

    def group_record(self, home: Home) -> str:
        """The record of the user's own group."""
        text = self._groups.get(home.name)
        if text is None:
            text = jsontext.compact(status.group_record(home.record, home.services.machine))
            self._groups[home.name] = text
        return text

    def forget(self, home: Home) -> None:
        """Encode a home anew when it is asked for next."""
        self._users.pop(home.name, None)
        self._groups.pop(home.name, None)

    def _user(self, home: Home) -> str:
        """The record as strangers see it."""
        text = self._users.get(home.name)
        if text is None:
            text = self._users[home.name] = _encode(home)
        return text


def _encode(home: Home) -> str:
    services = home.services
    members = status.synthesize(
        home.effective,
        state=home.state,
        is_active=home.is_active,
        # Nobody has seen yet who signed the record in a home that was only found.
        is_signed_locally=home.verdict is Verdict.EXCLUSIVE if home.is_fixated else None,
        fallback_shell=services.config.fallback_shell,
        figures=home.figures,
    )
    return home.record.public().with_status(services.machine.id, members).compact()
