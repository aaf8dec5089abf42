"""The member of org.homemgr1.Manager that tells what a home takes of its disk."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.daemon.usage import usage
from homemgr.wire.dispatch import Call, Method

if TYPE_CHECKING:
    from homemgr.bus.homemgr1 import ExtensionFace

#: Look at every file, also where quota knows what is allocated.
_FILES = 1


async def _usage(face: ExtensionFace, call: Call, user_name: str, flags: int) -> object:
    if flags & ~_FILES:
        raise errors.InvalidArgs(f"flags: {flags:#x} has unknown bits, expected only {_FILES:#x}.")
    home = await face.find(call, user_name)
    return (json.dumps(await usage(home, counts_files=bool(flags & _FILES))),)


METHODS = (Method("GetHomeUsage", (("user_name", "s"), ("flags", "t")), (("json", "s"),), _usage),)
