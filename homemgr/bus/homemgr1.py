"""The interface org.homemgr1.Manager: what systemd-homed has no words for.

Stands on the same connection under its own name. Answers that grow with the
product are JSON objects in a string, as user records are.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.bus import (
    classic,
    converting,
    inspecting,
    measuring,
    migration,
    registering,
    slots,
    snapshots,
)
from homemgr.bus.faces import answered_in_time
from homemgr.daemon import login
from homemgr.record.fields import HOME_MODES
from homemgr.record.secret import Secret
from homemgr.wire.dispatch import Interface, Method, Node, Signal

if TYPE_CHECKING:
    from homemgr.bus.faces import Faces
    from homemgr.daemon.home import Home
    from homemgr.daemon.merging import Extensions, Progress
    from homemgr.wire.connection import Connection
    from homemgr.wire.dispatch import Call

NAME = "org.homemgr1"
PATH = "/org/homemgr1"
MANAGER = "org.homemgr1.Manager"

_USER = (("user_name", "s"),)
_JSON = (("json", "s"),)
#: The step that begins (open, merge), on which extension or directory, and the how manyth of all.
_PROGRESS = (*_USER, ("step", "s"), ("subject", "s"), ("done", "t"), ("total", "t"))
#: Bit 0 of RefreshExtensions and DiscardExtensionChanges: also what is held, what was changed.
_ALL = 1
#: How old a list of extensions may be for those who cannot change them: making it opens
#: every one of them, and everybody may ask.
_MAX_AGE_S = 2.0


class ExtensionFace:
    """What the members work on."""

    def __init__(self, faces: Faces, extensions: Extensions) -> None:
        """Answer about the homes of ``faces``."""
        self.faces = faces
        self.extensions = extensions

    async def find(self, call: Call, user_name: str, action: str | None = None) -> Home:
        """The home a caller means, if he may ask that about it."""
        home = await self.faces.find(call, user_name)
        if action is None:
            await self.faces.authority.require_owner(call, home)
        else:
            await self.faces.authority.require_homemgr(call, action, home)
        return home


def _text(answer: object) -> tuple[str]:
    # ASCII: names of files may have any bytes, which are lone surrogates here.
    return (json.dumps(answer),)


async def _list(face: ExtensionFace, call: Call) -> object:
    # Root has changed something and wants to see it.
    max_age_s = 0.0 if (await call.caller()).uid == 0 else _MAX_AGE_S
    return _text(await face.extensions.inventory(max_age_s=max_age_s))


async def _trust(face: ExtensionFace, call: Call, name: str) -> object:
    await face.faces.authority.require_root(call)
    return _text(await face.extensions.trust(name, is_trusted=True))


async def _distrust(face: ExtensionFace, call: Call, name: str) -> object:
    await face.faces.authority.require_root(call)
    return _text(await face.extensions.trust(name, is_trusted=False))


async def _status(face: ExtensionFace, call: Call, user_name: str) -> object:
    home = await face.find(call, user_name)
    return _text(face.extensions.status(home))


async def _enable(face: ExtensionFace, call: Call, user_name: str, name: str) -> None:
    home = await face.find(call, user_name, "choose-extension")
    await face.extensions.choose(home, name, is_chosen=True)


async def _disable(face: ExtensionFace, call: Call, user_name: str, name: str) -> None:
    home = await face.find(call, user_name, "choose-extension")
    await face.extensions.choose(home, name, is_chosen=False)


async def _refresh(face: ExtensionFace, call: Call, user_name: str, flags: int) -> object:
    home = await face.find(call, user_name, "refresh-extensions")
    return _text(await face.extensions.refresh(home, is_forced=_is_all(flags)))


async def _diff(face: ExtensionFace, call: Call, user_name: str) -> object:
    home = await face.find(call, user_name)
    return _text(await face.extensions.differences(home))


async def _discard(
    face: ExtensionFace, call: Call, user_name: str, paths: list[str], flags: int
) -> object:
    home = await face.find(call, user_name, "refresh-extensions")
    return _text(await face.extensions.discard(home, paths, has_changed=_is_all(flags)))


async def _activate(
    face: ExtensionFace, call: Call, user_name: str, secret: str, mode: str
) -> None:
    home = await face.faces.find(call, user_name)
    await face.faces.authority.require(call, "activate-home", home, owner_may=True)
    if mode not in HOME_MODES:
        raise errors.InvalidArgs(f"mode: {mode!r} is none of {', '.join(HOME_MODES)}.")
    by_root = (await call.caller()).uid == 0
    await answered_in_time(login.activate(home, Secret.parse(secret), mode, by_root=by_root))


def _is_all(flags: int) -> bool:
    if flags & ~_ALL:
        raise errors.InvalidArgs(f"flags: {flags:#x} has unknown bits, expected only {_ALL:#x}.")
    return bool(flags & _ALL)


INTERFACE = Interface(
    MANAGER,
    methods=(
        Method("ListExtensions", (), _JSON, _list),
        Method("TrustExtension", (("name", "s"),), _JSON, _trust),
        Method("DistrustExtension", (("name", "s"),), _JSON, _distrust),
        Method("GetExtensionStatus", _USER, _JSON, _status),
        Method("EnableExtension", (*_USER, ("name", "s")), (), _enable),
        Method("DisableExtension", (*_USER, ("name", "s")), (), _disable),
        Method("RefreshExtensions", (*_USER, ("flags", "t")), _JSON, _refresh),
        Method("GetExtensionDifferences", _USER, _JSON, _diff),
        Method(
            "DiscardExtensionChanges",
            (*_USER, ("paths", "as"), ("flags", "t")),
            _JSON,
            _discard,
        ),
        Method("ActivateHomeInMode", (*_USER, ("secret", "s"), ("mode", "s")), (), _activate),
        *migration.METHODS,
        *converting.METHODS,
        *inspecting.METHODS,
        *measuring.METHODS,
        *slots.METHODS,
        *snapshots.METHODS,
        *registering.OUR_METHODS,
        *classic.METHODS,
    ),
    signals=(Signal("ExtensionsChanged", _USER), Signal("ExtensionProgress", _PROGRESS)),
)


def node(face: ExtensionFace) -> Node:
    """The object at PATH."""
    return Node(face, (INTERFACE,))


def announce(connection: Connection, extensions: Extensions) -> None:
    """Emit ExtensionsChanged and ExtensionProgress from now on."""

    def changed(home: Home) -> None:
        connection.emit(PATH, MANAGER, "ExtensionsChanged", "s", (home.name,))

    def progressed(home: Home, progress: Progress) -> None:
        connection.emit(PATH, MANAGER, "ExtensionProgress", "ssstt", (home.name, *progress))

    extensions.changed.append(changed)
    extensions.progressed.append(progressed)
