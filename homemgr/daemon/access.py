"""Who may do what: root always, owners where the interface says so, polkit for the rest.

The action ids are systemd-homed's, so that existing polkit rules keep their
meaning. Without polkit only root passes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.daemon.callers import origin
from homemgr.record import selfservice

if TYPE_CHECKING:
    from homemgr.daemon.home import Home
    from homemgr.record.model import UserRecord
    from homemgr.wire.dispatch import Call
    from homemgr.wire.peer import Peer
    from homemgr.wire.polkit import Polkit

PREFIX = "org.freedesktop.home1."
HOMEMGR_PREFIX = "org.homemgr1."


class Authority:
    """Answers for one bus connection."""

    def __init__(self, polkit: Polkit) -> None:
        """Ask ``polkit`` where neither root nor owner settles it."""
        self._polkit = polkit

    async def note(self, call: Call) -> None:
        """Let anybody; what he tries from now on in this task counts as his, see `attempts`."""
        await _caller(call)

    async def require_root(self, call: Call) -> None:
        """Raise AccessDenied unless root calls."""
        peer = await _caller(call)
        if peer.uid != 0:
            raise errors.AccessDenied(f"{call.member} is for root; the caller has uid {peer.uid}.")

    async def require(
        self, call: Call, action: str, home: Home | None = None, *, owner_may: bool = False
    ) -> None:
        """Raise AccessDenied or InteractiveAuthorizationRequired unless the caller may do this."""
        peer = await _caller(call)
        if peer.uid == 0 or (owner_may and home is not None and peer.uid == home.uid):
            return
        details = {"uid": str(home.uid), "username": home.name} if home else {}
        await self._polkit.check(call, PREFIX + action, details)

    async def require_update(
        self, call: Call, home: Home, new: UserRecord, *, offline: bool
    ) -> bool:
        """As ``require`` for an update: owners have an action of their own for what is theirs.

        True if it was that one: time has passed, so it is to be seen again what is theirs.
        """
        peer = await _caller(call)
        is_own = peer.uid == home.uid and selfservice.may_update(
            home.record, new, home.services.machine, is_proven=not offline
        )
        await self.require(call, "update-home-by-owner" if is_own else "update-home", home)
        return is_own

    async def require_owner(self, call: Call, home: Home) -> None:
        """Raise AccessDenied unless root or the home's own user calls."""
        peer = await _caller(call)
        if peer.uid not in (0, home.uid):
            raise errors.AccessDenied(
                f"{call.member} is for {home.name} and root; the caller has uid {peer.uid}."
            )

    async def require_homemgr(self, call: Call, action: str, home: Home) -> None:
        """As ``require``, for an action of our own; the owner's has a name of its own."""
        peer = await _caller(call)
        if peer.uid == 0:
            return
        suffix = "-own" if peer.uid == home.uid else ""
        details = {"uid": str(home.uid), "username": home.name}
        await self._polkit.check(call, f"{HOMEMGR_PREFIX}{action}{suffix}", details)

    async def require_for_machine(self, call: Call, action: str) -> None:
        """As ``require``, for an action of our own that is about no home that is here."""
        if (await _caller(call)).uid != 0:
            await self._polkit.check(call, HOMEMGR_PREFIX + action, {})

    async def sees_privileged(self, call: Call, home: Home) -> bool:
        """True for root and the owner: they get the privileged section of the record."""
        return (await call.caller()).uid in (0, home.uid)


async def _caller(call: Call) -> Peer:
    """Who calls; what he tries from now on in this task counts as his."""
    peer = await call.caller()
    origin.set(peer.uid)
    return peer
