"""One wrong password ends one question of PAM: it is not asked again and again.

pam_systemd_home.so asks for another password up to four times within one pam_authenticate(3),
and says meanwhile that the first was wrong. Whoever tries names over ssh sees from that, from
four delays, and from sshd giving up methods after PAM_MAXTRIES, that the user exists. So the
second refusal on one connection is one that the module does not ask on for: PAM answers then
as pam_unix does for an unknown user, and the program that logs in asks again if it wants.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.daemon.attempts import CREDENTIAL_FAILURES

if TYPE_CHECKING:
    from collections.abc import Awaitable

#: Connections that are remembered. Of one that is forgotten too early, one more is asked.
MAX_REMEMBERED = 1024


class Rounds:
    """Who was told on which connection that the password of which home is wrong."""

    def __init__(self) -> None:
        """Nobody yet."""
        self._told: OrderedDict[tuple[str, str], None] = OrderedDict()

    async def judged(self, sender: str, user: str, running: Awaitable[object]) -> object:
        """The result; AuthenticationFailed in the place of a second credential failure.

        That a credential is needed, in answer to none at all, is the first.
        """
        round_of = (sender, user)
        try:
            result = await running
        except CREDENTIAL_FAILURES as failure:
            is_over = round_of in self._told and failure.answer_at > 0
            self._told.pop(round_of, None)
            if is_over:
                raise _final(failure) from failure
            self._told[round_of] = None
            if len(self._told) > MAX_REMEMBERED:
                self._told.popitem(last=False)
            raise
        self._told.pop(round_of, None)
        return result


def _final(failure: errors.HomeError) -> errors.HomeError:
    final = errors.AuthenticationFailed(failure.message)
    final.answer_at = failure.answer_at
    return final
