"""Members of org.homemgr1.Manager that make a home one of another storage, or in another place.

Options are JSON objects in strings (``daemon.conversion_options``). ConvertHome answers the path
of a job as soon as that began.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from homemgr.daemon import conversion_options
from homemgr.record.secret import Secret
from homemgr.wire.dispatch import Call, Method

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homemgr.bus.homemgr1 import ExtensionFace
    from homemgr.daemon.activity import Activity
    from homemgr.daemon.conversions import Conversions

_USER = (("user_name", "s"),)
_OPTIONS = (("options", "s"),)
_SECRET = (("secret", "s"),)


def _conversions(face: ExtensionFace) -> Conversions:
    return face.faces.manager.conversions


async def _convert(
    face: ExtensionFace, call: Call, user_name: str, options: str, secret: str
) -> object:
    asked = conversion_options.to_convert(options)
    given = Secret.parse(secret)
    home = await face.faces.find(call, user_name)
    await face.faces.authority.require_for_machine(call, "convert-home")

    async def work(activity: Activity, _fds: Sequence[int]) -> dict[str, object]:
        return await _conversions(face).convert(activity, home, asked, given)

    return (await face.faces.jobs.begin(call, "convert", home.name, (), work),)


async def _undo(face: ExtensionFace, call: Call, user_name: str, options: str) -> None:
    force = conversion_options.to_undo(options)
    home = await face.faces.find(call, user_name)
    await face.faces.authority.require_for_machine(call, "convert-home")
    await _conversions(face).undo(home, force=force)


async def _confirm(face: ExtensionFace, call: Call, user_name: str) -> None:
    await face.faces.authority.require_for_machine(call, "convert-home")
    await _conversions(face).confirm(user_name)


async def _list(face: ExtensionFace, call: Call) -> object:
    """All for root, others see their own."""
    uid = (await call.caller()).uid
    rows = _conversions(face).listed()
    if uid != 0:
        own = face.faces.manager.registry.by_uid(uid)
        rows = [row for row in rows if own is not None and row["user"] == own.name]
    return (json.dumps(rows),)


METHODS = (
    Method("ConvertHome", (*_USER, *_OPTIONS, *_SECRET), (("job", "o"),), _convert),
    Method("UndoConversion", (*_USER, *_OPTIONS), (), _undo),
    Method("ConfirmConversion", _USER, (), _confirm),
    Method("ListConversions", (), (("json", "s"),), _list),
)
