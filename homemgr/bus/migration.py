"""Members of org.homemgr1.Manager about homes on their way between machines.

Options are JSON objects in strings (``daemon.transfer_options``). Work that takes long is
a job: its path is answered as soon as it began.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from homemgr.daemon import transfer_options
from homemgr.wire.dispatch import Call, Method

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homemgr.bus.homemgr1 import ExtensionFace
    from homemgr.daemon.activity import Activity
    from homemgr.daemon.transfers import Transfers
    from homemgr.files import Fd

_USER = (("user_name", "s"),)
_OPTIONS = (("options", "s"),)
_IN = (("in", "h"),)
_OUT = (("out", "h"),)
_JOB = (("job", "o"),)
_JSON = (("json", "s"),)
_FINGERPRINT = (("fingerprint", "s"),)


def _transfers(face: ExtensionFace) -> Transfers:
    return face.faces.manager.transfers


async def _send(
    face: ExtensionFace, call: Call, user_name: str, options: str, read: Fd, write: Fd
) -> object:
    asked = transfer_options.to_send(options)
    home = await face.find(call, user_name, "send-home")

    async def work(activity: Activity, fds: Sequence[int]) -> dict[str, object]:
        return await _transfers(face).send(activity, home, asked, fds)

    return (await face.faces.jobs.begin(call, "send", home.name, (read, write), work),)


async def _export(
    face: ExtensionFace, call: Call, user_name: str, options: str, write: Fd
) -> object:
    asked = transfer_options.to_send(options)
    home = await face.find(call, user_name, "export-home")

    async def work(activity: Activity, fds: Sequence[int]) -> dict[str, object]:
        return await _transfers(face).export(activity, home, asked, fds)

    return (await face.faces.jobs.begin(call, "export", home.name, (write,), work),)


async def _receive(face: ExtensionFace, call: Call, options: str, read: Fd, write: Fd) -> object:
    await face.faces.authority.require_for_machine(call, "receive-home")
    return await _take_in(face, call, "receive", options, (read, write))


async def _import(face: ExtensionFace, call: Call, options: str, read: Fd) -> object:
    await face.faces.authority.require(call, "create-home")
    return await _take_in(face, call, "import", options, (read,))


async def _take_in(
    face: ExtensionFace, call: Call, verb: str, options: str, given: tuple[Fd, ...]
) -> object:
    asked = transfer_options.to_receive(options)
    by_uid = (await call.caller()).uid

    async def work(activity: Activity, fds: Sequence[int]) -> dict[str, object]:
        return await _transfers(face).receive(verb, activity, asked, fds, by_uid=by_uid)

    return (await face.faces.jobs.begin(call, verb, asked.name or "", given, work),)


async def _list(face: ExtensionFace, call: Call) -> object:
    """All transfers for root, others see their own."""
    uid = (await call.caller()).uid
    rows = _transfers(face).register.listed()
    if uid != 0:
        own = face.faces.manager.registry.by_uid(uid)
        rows = [row for row in rows if own is not None and row["user"] == own.name]
    return (json.dumps(rows),)


async def _forget(face: ExtensionFace, call: Call, user_name: str, options: str) -> None:
    asked = transfer_options.to_forget(options)
    action = "receive-home"
    if _transfers(face).register.direction_of(user_name) == "out":
        action = "send-home"
    await face.faces.authority.require_for_machine(call, action)
    await _transfers(face).places.forget(user_name, asked)


def _list_origins(face: ExtensionFace, _call: Call) -> object:
    return (json.dumps(_transfers(face).origins.listed()),)


async def _trust(face: ExtensionFace, call: Call, fingerprint: str, options: str) -> None:
    host = transfer_options.host_of(options)
    await face.faces.authority.require(call, "manage-signing-keys")
    by_uid = (await call.caller()).uid
    await _transfers(face).trust_by_fingerprint(fingerprint, host, by_uid=by_uid)


async def _forget_origin(face: ExtensionFace, call: Call, fingerprint: str) -> None:
    await face.faces.authority.require(call, "manage-signing-keys")
    await _transfers(face).origins.forget(fingerprint)


METHODS = (
    Method("SendHome", (*_USER, *_OPTIONS, *_IN, *_OUT), _JOB, _send),
    Method("ReceiveHome", (*_OPTIONS, *_IN, *_OUT), _JOB, _receive),
    Method("ExportHome", (*_USER, *_OPTIONS, *_OUT), _JOB, _export),
    Method("ImportHome", (*_OPTIONS, *_IN), _JOB, _import),
    Method("ListTransfers", (), _JSON, _list),
    Method("ForgetTransfer", (*_USER, *_OPTIONS), (), _forget),
    Method("ListOrigins", (), _JSON, _list_origins),
    Method("TrustOrigin", (*_FINGERPRINT, *_OPTIONS), (), _trust),
    Method("ForgetOrigin", _FINGERPRINT, (), _forget_origin),
)
