"""Members of org.homemgr1.Manager that check homes and repair them; answers are JSON lists."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from homemgr.wire.dispatch import Call, Method

if TYPE_CHECKING:
    from homemgr.bus.homemgr1 import ExtensionFace

_USER = (("user_name", "s"),)
_JSON = (("json", "s"),)


async def _check(face: ExtensionFace, call: Call, user_name: str) -> object:
    """Of one home; of an empty name: of the machine and all its homes."""
    return await _inspect(face, call, user_name, mends=False)


async def _repair(face: ExtensionFace, call: Call, user_name: str) -> object:
    return await _inspect(face, call, user_name, mends=True)


async def _inspect(face: ExtensionFace, call: Call, user_name: str, *, mends: bool) -> object:
    # Not the owner's: what is found tells of the machine, and what is mended is root's.
    await face.faces.authority.require_for_machine(call, "repair-home")
    return (json.dumps(await face.faces.manager.inspection.check(user_name, mends=mends)),)


METHODS = (
    Method("CheckHomes", _USER, _JSON, _check),
    Method("RepairHomes", _USER, _JSON, _repair),
)
