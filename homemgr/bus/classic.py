"""Members of org.homemgr1.Manager about classic accounts that become home areas, and back."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.wire.dispatch import Call, Method

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homemgr.bus.homemgr1 import ExtensionFace
    from homemgr.daemon.activity import Activity

_ACTION = "convert-account"
#: Bit 0 of ConvertAccount: only say what would become of it.
_DRY_RUN = 1


async def _convert(face: ExtensionFace, call: Call, user_name: str, flags: int) -> object:
    if flags & ~_DRY_RUN:
        raise errors.InvalidArgs(f"flags: {flags:#x} has unknown bits, expected {_DRY_RUN:#x}.")
    await face.faces.authority.require_for_machine(call, _ACTION)

    async def work(activity: Activity, _: Sequence[int]) -> dict[str, object]:
        classic = face.faces.manager.classic
        return await classic.convert(activity, user_name, is_dry_run=bool(flags))

    return (await face.faces.jobs.begin(call, "convert", user_name, (), work),)


async def _undo(face: ExtensionFace, call: Call, user_name: str) -> object:
    await face.faces.authority.require_for_machine(call, _ACTION)

    async def work(activity: Activity, _: Sequence[int]) -> dict[str, object]:
        return await face.faces.manager.classic.undo(activity, user_name)

    return (await face.faces.jobs.begin(call, "convert", user_name, (), work),)


async def _confirm(face: ExtensionFace, call: Call, user_name: str) -> None:
    await face.faces.authority.require_for_machine(call, _ACTION)
    await face.faces.manager.classic.confirm(user_name)


async def _list(face: ExtensionFace, call: Call) -> object:
    await face.faces.authority.require_root(call)
    return (json.dumps(await face.faces.manager.classic.listed()),)


_USER = (("user_name", "s"),)
_JOB = (("job", "o"),)

METHODS = (
    Method("ConvertAccount", (*_USER, ("flags", "t")), _JOB, _convert),
    Method("UndoAccountConversion", _USER, _JOB, _undo),
    Method("ConfirmAccountConversion", _USER, (), _confirm),
    Method("ListAccountConversions", (), (("json", "s"),), _list),
)
