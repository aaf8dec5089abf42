"""Members of org.freedesktop.home1.Manager about signing keys.

Names, arguments and polkit action as systemd-homed 262 (org.freedesktop.home1(5)).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.wire.dispatch import Call, Method

if TYPE_CHECKING:
    from homemgr.bus.faces import Faces

_ACTION = "manage-signing-keys"
_NAME = (("name", "s"),)
_FLAGS = (("flags", "t"),)


def _list(faces: Faces, _call: Call) -> object:
    public = faces.manager.services.keyring.public
    return ([(name, public[name].pem, 0) for name in sorted(public)],)


def _get(faces: Faces, _call: Call, name: str) -> object:
    return faces.manager.services.keys.pem(name), 0


async def _add(faces: Faces, call: Call, name: str, pem: str, flags: int) -> None:
    _require_none(flags)
    await faces.authority.require(call, _ACTION)
    await faces.manager.services.keys.add(name, pem)


async def _remove(faces: Faces, call: Call, name: str, flags: int) -> None:
    _require_none(flags)
    await faces.authority.require(call, _ACTION)
    await faces.manager.services.keys.remove(name)


def _require_none(flags: int) -> None:
    if flags:
        raise errors.InvalidArgs(f"flags: {flags:#x} has unknown bits, expected 0.")


METHODS = (
    Method("ListSigningKeys", (), (("keys", "a(sst)"),), _list),
    # The misnomer is systemd-homed's: what comes is PEM.
    Method("GetSigningKey", _NAME, (("der", "s"), *_FLAGS), _get),
    Method("AddSigningKey", (*_NAME, ("pem", "s"), *_FLAGS), (), _add),
    Method("RemoveSigningKey", (*_NAME, *_FLAGS), (), _remove),
)
