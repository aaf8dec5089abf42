"""References for sessions whose user has proved who he is, if there was need to.

Only root asks for them: PAM's account and session stacks, after whatever let somebody in.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.daemon import login
from homemgr.daemon.states import Operation, Way

if TYPE_CHECKING:
    from homemgr.daemon.home import Home
    from homemgr.files import Fd

log = logging.getLogger(__name__)


async def reference(home: Home, *, please_suspend: bool) -> Fd:
    """A reference to an active home without asking for credentials.

    Waits for a running operation instead of failing as systemd-homed does: the
    session of a login whose authentication process just ended comes here.
    Never raises a credential failure, on which pam_systemd_home.so would abort.

    Activates a home that needs no secret. This is the place for it, and `login.acquire` is
    not: who authenticates somebody asks that first without a password, and lets in whoever it
    is if the answer is yes.
    """
    is_unasked = login.needs_no_secret(home)
    operation = Operation.REFERENCE_UNASKED if is_unasked else Operation.REFERENCE
    async with home.exclusively(operation, queued=True) as way:
        with ExitStack() as on_failure:
            if way is Way.ACTIVATE:
                await _activate_unasked(home)
                on_failure.callback(login.abandoned, home)
            home.keep()
            reference = home.references.add(please_suspend=please_suspend)
            on_failure.pop_all()
    return reference


def reference_unrestricted(home: Home, *, please_suspend: bool) -> Fd:
    """A reference in any state: for sessions that will ask for the password themselves."""
    return home.references.add(please_suspend=please_suspend)


async def _activate_unasked(home: Home) -> None:
    """Activate without a secret; raises HomeAbsent, and HomeNotActive if anything else fails."""
    try:
        if not login.needs_no_secret(home):
            raise errors.HomeNotActive(f"Home area {home.name} needs a secret by now.")
        await login.mount(home, None, for_acquire=True)
    except (errors.HomeAbsent, errors.HomeNotActive):
        raise
    except errors.HomeError as reason:
        log.warning("Home area %s is not activated without a secret: %s", home.name, reason)
        raise errors.HomeNotActive(
            f"Home area {home.name} could not be activated without a secret: {reason.message}"
        ) from reason
