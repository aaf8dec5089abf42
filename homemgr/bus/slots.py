"""Members of org.homemgr1.Manager about slots: what unlocks a home, one by one.

Who may change the password of a home may change its slots; see `daemon.credentials`.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from homemgr.bus.faces import answered_in_time
from homemgr.daemon import credentials
from homemgr.record.secret import Secret
from homemgr.wire.dispatch import Call, Method

if TYPE_CHECKING:
    from homemgr.bus.homemgr1 import ExtensionFace
    from homemgr.daemon.home import Home

_USER = (("user_name", "s"),)
_SLOT = (*_USER, ("slot", "s"))
_SECRET = (("secret", "s"),)
_NEW = (("new_secret", "s"), *_SECRET)


async def _find(face: ExtensionFace, call: Call, user_name: str, action: str) -> Home:
    home = await face.faces.find(call, user_name)
    await face.faces.authority.require(call, action, home, owner_may=True)
    return home


async def _list(face: ExtensionFace, call: Call, user_name: str) -> object:
    home = await face.find(call, user_name)
    return (json.dumps(credentials.list_slots(home)),)


async def _add(
    face: ExtensionFace, call: Call, user_name: str, slot: str, kind: str, new: str, secret: str
) -> None:
    home = await _find(face, call, user_name, "passwd-home")
    secrets = Secret.parse(new), Secret.parse(secret)
    await answered_in_time(credentials.add_slot(home, slot, kind, *secrets))


async def _replace(
    face: ExtensionFace, call: Call, user_name: str, slot: str, new: str, secret: str
) -> None:
    home = await _find(face, call, user_name, "passwd-home")
    secrets = Secret.parse(new), Secret.parse(secret)
    await answered_in_time(credentials.replace_slot(home, slot, *secrets))


async def _remove(face: ExtensionFace, call: Call, user_name: str, slot: str, secret: str) -> None:
    home = await _find(face, call, user_name, "passwd-home")
    await answered_in_time(credentials.remove_slot(home, slot, Secret.parse(secret)))


async def _test(face: ExtensionFace, call: Call, user_name: str, slot: str, secret: str) -> None:
    home = await _find(face, call, user_name, "authenticate-home")
    await answered_in_time(credentials.test_slot(home, slot, Secret.parse(secret)))


METHODS = (
    Method("ListSlots", _USER, (("json", "s"),), _list),
    Method("AddSlot", (*_SLOT, ("kind", "s"), *_NEW), (), _add),
    Method("ReplaceSlot", (*_SLOT, *_NEW), (), _replace),
    Method("RemoveSlot", (*_SLOT, *_SECRET), (), _remove),
    Method("TestSlot", (*_SLOT, *_SECRET), (), _test),
)
