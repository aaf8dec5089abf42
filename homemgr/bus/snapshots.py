"""Members of org.homemgr1.Manager about snapshots of homes.

Options are JSON objects in strings (``daemon.snapshot_options``). A path in one may have any
bytes: those that are no UTF-8 are lone surrogates, written as escapes. A user may do with the
snapshots of his home what gives him nothing he has not; the rest is an administrator's.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from homemgr.daemon import snapshot_options, snapshots
from homemgr.wire.dispatch import Call, Method

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homemgr.bus.homemgr1 import ExtensionFace
    from homemgr.daemon.activity import Activity

_USER = (("user_name", "s"),)
_NAME = (*_USER, ("name", "s"))
_OPTIONS = (("options", "s"),)
_JOB = (("job", "o"),)
_JSON = (("json", "s"),)

_MANAGE = "manage-snapshots"


async def _list(face: ExtensionFace, call: Call, user_name: str) -> object:
    home = await face.find(call, user_name)
    return (json.dumps(await snapshots.listed(home)),)


async def _create(face: ExtensionFace, call: Call, user_name: str, options: str) -> object:
    asked = snapshot_options.to_create(options)
    home = await face.find(call, user_name, _MANAGE)
    by_uid = (await call.caller()).uid

    async def work(activity: Activity, _fds: Sequence[int]) -> dict[str, object]:
        return await snapshots.create(home, activity, asked, by_uid=by_uid)

    return (await face.faces.jobs.begin(call, "snapshot", home.name, (), work),)


async def _compare(
    face: ExtensionFace, call: Call, user_name: str, name: str, other: str
) -> object:
    home = await face.find(call, user_name)

    async def work(activity: Activity, _fds: Sequence[int]) -> dict[str, object]:
        return await snapshots.compare(home, activity, name, other)

    return (await face.faces.jobs.begin(call, "snapshot-diff", home.name, (), work),)


async def _restore(
    face: ExtensionFace, call: Call, user_name: str, name: str, options: str
) -> object:
    asked = snapshot_options.to_restore(name, options)
    home = await face.find(call, user_name, _MANAGE if asked.paths else "restore-home")
    by_uid = (await call.caller()).uid

    async def work(activity: Activity, _fds: Sequence[int]) -> dict[str, object]:
        if asked.paths:
            return await snapshots.restore_files(home, activity, asked)
        return await snapshots.restore(home, activity, asked.name, by_uid=by_uid)

    return (await face.faces.jobs.begin(call, "restore", home.name, (), work),)


async def _remove(face: ExtensionFace, call: Call, user_name: str, name: str) -> None:
    home = await face.find(call, user_name, _MANAGE)
    uid = (await call.caller()).uid
    # What was taken before something went wrong is not for who finds a session open.
    await snapshots.remove(home, name, only_by=uid if uid == home.uid else None)


async def _mount(face: ExtensionFace, call: Call, user_name: str, name: str, options: str) -> None:
    asked = snapshot_options.to_mount(options)
    await face.faces.authority.require_root(call)
    await snapshots.mount(await face.faces.find(call, user_name), name, asked)


async def _unmount(face: ExtensionFace, call: Call, path: str) -> None:
    await face.faces.authority.require_root(call)
    await snapshots.unmount(face.faces.manager.services, path)


METHODS = (
    Method("ListSnapshots", _USER, _JSON, _list),
    Method("CreateSnapshot", (*_USER, *_OPTIONS), _JOB, _create),
    Method("CompareSnapshot", (*_NAME, ("other", "s")), _JOB, _compare),
    Method("RestoreSnapshot", (*_NAME, *_OPTIONS), _JOB, _restore),
    Method("RemoveSnapshot", _NAME, (), _remove),
    Method("MountSnapshot", (*_NAME, *_OPTIONS), (), _mount),
    Method("UnmountSnapshot", (("path", "s"),), (), _unmount),
)
