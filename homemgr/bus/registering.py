"""Members of org.freedesktop.home1.Manager that make homes known and unknown, files untouched.

Names, arguments and polkit actions as systemd-homed 262 (org.freedesktop.home1(5)).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.daemon import registration
from homemgr.wire.dispatch import Call, Method

if TYPE_CHECKING:
    from homemgr.bus.faces import Faces, HomeTarget
    from homemgr.bus.homemgr1 import ExtensionFace


async def _register(faces: Faces, call: Call, user_record: str) -> None:
    await faces.authority.require(call, "create-home")
    await registration.register(faces.manager, user_record)


async def _adopt(faces: Faces, call: Call, image_path: str, flags: int) -> None:
    if flags:
        raise errors.InvalidArgs(f"flags: {flags:#x} has unknown bits, expected 0.")
    await faces.authority.require(call, "create-home")
    await registration.adopt(faces.manager, image_path)


async def _unregister(faces: Faces, call: Call, user_name: str) -> None:
    home = await faces.find(call, user_name)
    await faces.authority.require(call, "remove-home", home)
    await registration.unregister(faces.manager, home)


async def _unregister_home(target: HomeTarget, call: Call) -> None:
    await target.faces.authority.require(call, "remove-home", target.home)
    await registration.unregister(target.faces.manager, target.home)


async def _create_of_hash(face: ExtensionFace, call: Call, user_record: str) -> None:
    await face.faces.authority.require_root(call)
    await face.faces.manager.create(user_record, by_hash=True)


#: Of org.homemgr1.Manager: CreateHome for who has hashes of passwords, and answers for them.
OUR_METHODS = (Method("CreateHomeOfHash", (("user_record", "s"),), (), _create_of_hash),)

METHODS = (
    Method("RegisterHome", (("user_record", "s"),), (), _register),
    Method("AdoptHome", (("image_path", "s"), ("flags", "t")), (), _adopt),
    Method("UnregisterHome", (("user_name", "s"),), (), _unregister),
)

HOME_METHODS = (Method("Unregister", (), (), _unregister_home),)
