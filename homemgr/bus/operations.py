"""The operations on one home area, as data: each row makes a Manager and a Home method.

Names, arguments, privileges and polkit actions are those of systemd-homed 262
(org.freedesktop.home1(5)).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from homemgr.daemon import changes, credentials, locking, login, session, sizing
from homemgr.record.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from homemgr.daemon.home import Home
    from homemgr.files import Fd

Arguments = tuple[tuple[str, str], ...]

Privileged = tuple[Literal["manager", "home"], ...]
BOTH: Privileged = ("manager", "home")
HOME_ONLY: Privileged = ("home",)

_SECRET: Arguments = (("secret", "s"),)
_SUSPEND: Arguments = (("please_suspend", "b"),)
_FD: Arguments = (("send_fd", "h"),)


@dataclass(frozen=True)
class HomeOperation:
    """One operation: ``run(home, *arguments)`` with arguments and result as on the wire."""

    #: Member of the Manager interface; takes the user name before the arguments.
    manager: str
    #: Member of the Home interface.
    home: str
    run: Callable[..., Awaitable[object]]
    takes: Arguments = ()
    gives: Arguments = ()
    #: polkit action without its prefix; None: nobody is asked.
    action: str | None = None
    #: The home's own user passes without a question.
    owner_may: bool = False
    #: PAM calls it again and again while the password is wrong; see `rounds`.
    is_repeated: bool = False
    #: On which of the two interfaces root alone may call it.
    privileged: Privileged = ()
    #: The same for root, if that makes a difference.
    run_by_root: Callable[..., Awaitable[object]] | None = None


async def _activate(home: Home, secret: str) -> None:
    await login.activate(home, Secret.parse(secret))


async def _activate_by_root(home: Home, secret: str) -> None:
    await login.activate(home, Secret.parse(secret), by_root=True)


async def _activate_if_referenced(home: Home, secret: str) -> None:
    await login.activate_if_referenced(home, Secret.parse(secret))


async def _authenticate(home: Home, secret: str) -> None:
    await login.authenticate(home, Secret.parse(secret))


async def _fixate(home: Home, secret: str) -> None:
    await login.fixate(home, Secret.parse(secret))


async def _realize(home: Home, secret: str) -> None:
    await changes.create(home, Secret.parse(secret), None, realize=True)


async def _change_password(home: Home, new_secret: str, old_secret: str) -> None:
    await credentials.change_password(home, Secret.parse(new_secret), Secret.parse(old_secret))


async def _resize(home: Home, size: int, secret: str) -> None:
    await sizing.resize(home, size, Secret.parse(secret))


async def _unlock(home: Home, secret: str) -> None:
    await login.unlock(home, Secret.parse(secret))


async def _acquire(home: Home, secret: str, please_suspend: bool) -> Fd:  # noqa: FBT001 -- wire order
    return await login.acquire(home, Secret.parse(secret), please_suspend=please_suspend)


async def _reference(home: Home, please_suspend: bool) -> Fd:  # noqa: FBT001 -- wire order
    return await session.reference(home, please_suspend=please_suspend)


async def _reference_unrestricted(home: Home, please_suspend: bool) -> Fd:  # noqa: FBT001 -- wire order
    return session.reference_unrestricted(home, please_suspend=please_suspend)


OPERATIONS = (
    HomeOperation(
        "ActivateHome",
        "Activate",
        _activate,
        _SECRET,
        action="activate-home",
        owner_may=True,
        run_by_root=_activate_by_root,
    ),
    HomeOperation(
        "ActivateHomeIfReferenced",
        "ActivateIfReferenced",
        _activate_if_referenced,
        _SECRET,
        action="activate-home",
        owner_may=True,
    ),
    HomeOperation(
        "DeactivateHome",
        "Deactivate",
        login.deactivate,
        privileged=BOTH,
    ),
    HomeOperation("RealizeHome", "Realize", _realize, _SECRET, action="create-home"),
    HomeOperation("RemoveHome", "Remove", changes.remove, action="remove-home"),
    HomeOperation(
        "FixateHome",
        "Fixate",
        _fixate,
        _SECRET,
        privileged=BOTH,
    ),
    HomeOperation(
        "AuthenticateHome",
        "Authenticate",
        _authenticate,
        _SECRET,
        action="authenticate-home",
        owner_may=True,
    ),
    HomeOperation(
        "ResizeHome",
        "Resize",
        _resize,
        (("size", "t"), *_SECRET),
        action="resize-home",
    ),
    HomeOperation(
        "ChangePasswordHome",
        "ChangePassword",
        _change_password,
        (("new_secret", "s"), ("old_secret", "s")),
        action="passwd-home",
        owner_may=True,
    ),
    HomeOperation("LockHome", "Lock", locking.lock, privileged=BOTH),
    HomeOperation("UnlockHome", "Unlock", _unlock, _SECRET, privileged=BOTH),
    HomeOperation(
        "AcquireHome",
        "Acquire",
        _acquire,
        _SECRET + _SUSPEND,
        _FD,
        is_repeated=True,
        privileged=HOME_ONLY,
    ),
    HomeOperation(
        "RefHome",
        "Ref",
        _reference,
        _SUSPEND,
        _FD,
        privileged=BOTH,
    ),
    HomeOperation(
        "RefHomeUnrestricted",
        "RefUnrestricted",
        _reference_unrestricted,
        _SUSPEND,
        _FD,
        privileged=BOTH,
    ),
    HomeOperation("ReleaseHome", "Release", login.release, privileged=BOTH),
)
