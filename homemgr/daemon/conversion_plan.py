"""What a conversion is to make of a home, and where: decided before anything is written.

Refused here is what needs no look at the disk.
"""

from __future__ import annotations

import os
import secrets
import uuid
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.daemon.conversion_states import MAKING, Conversion, Side
from homemgr.daemon.registration import OF_THE_IMAGE
from homemgr.record import names, storages
from homemgr.record.password import digest_of_hashes
from homemgr.record.storages import ABILITIES

if TYPE_CHECKING:
    from homemgr.daemon.conversion_options import ConvertOptions
    from homemgr.daemon.home import Home

ROOM_PREFIX = ".#homemgr-room-"

#: Bytes of a file name, see NAME_MAX in limits.h.
_LONGEST = 255


def planned(home: Home, options: ConvertOptions) -> Conversion:
    """What is to be made of what; raises InvalidArgs and NotSupported."""
    old_storage = home.effective.storage or "directory"
    storage = options.storage or old_storage
    _require_convertible(home, storage)
    path = options.to or _usual_path(home, old_storage, storage)
    _require_place(home, storage, path)
    if (storage, path) == (old_storage, home.image_path):
        raise errors.InvalidArgs(
            f"Home area {home.name} has storage {storage} and lies in {path} already."
        )
    binding = home.record.binding(home.services.machine.id)
    kept = {key: binding[key] for key in OF_THE_IMAGE if key in binding}
    return Conversion(
        home.name,
        MAKING,
        Side(old_storage, home.image_path, _room_for(home.image_path), binding=kept),
        # A device has no room: what is made there is told by what it is called before it is made.
        Side(storage, path, _room_for(path), str(uuid.uuid4()) if names.is_device(path) else ""),
        hashes=passwords_of(home),
    )


def passwords_of(home: Home) -> str:
    """What tells whether the passwords of a home have changed since."""
    return digest_of_hashes(home.effective)


def _require_convertible(home: Home, storage: str) -> None:
    if storage not in ABILITIES:
        known = ", ".join(sorted(ABILITIES))
        raise errors.InvalidArgs(f"storage: {storage!r} is none of {known}.")
    if not ABILITIES[storage].is_remote:
        return
    if home.abilities.is_remote:
        raise errors.NotSupported(
            f"Home area {home.name} lies on a file server already: copy it to another share there,"
            f" then say where it is with `homectl update {home.name} --cifs-service=`."
        )
    raise errors.NotSupported(
        f"Home area {home.name} would not be what it is: a file server keeps neither modes of files"
        " nor exact times, access control lists and pipes. Make a home area there for another user,"
        " with `homectl create --storage=cifs`, and copy what is to go there."
    )


def _require_place(home: Home, storage: str, path: str) -> None:
    """Raise InvalidArgs if a home cannot lie at ``path``, or would be taken for somebody else's."""
    if os.path.normpath(path) != path or names.is_remote(path):
        raise errors.InvalidArgs(
            f"to: {path!r} is no plain absolute path, without '.', '..' or double slashes."
        )
    storages.check_path(storage, path)
    room = os.path.basename(_room_for(path))
    if len(os.fsencode(room)) > _LONGEST:
        most = _LONGEST - len(room) + len(os.path.basename(path))
        raise errors.InvalidArgs(f"to: the name in {path!r} has more than {most} bytes.")
    named = names.parse_image_file_name(os.path.basename(path))
    if named is not None and named != (home.name, home.record.realm):
        raise errors.InvalidArgs(
            f"to: {path!r} is what a home area of {names.with_realm(*named)} is called, and"
            f" would be taken for that; one of {home.name} can be called"
            f" {names.image_file_name(home.name, home.record.realm, storage)}."
        )


def _usual_path(home: Home, old_storage: str, storage: str) -> str:
    """Where the new home lies unless somebody says: beside the old one, if that is a good place."""
    if storage == old_storage:
        # One that was given its own name keeps it.
        return home.image_path
    directory = os.path.dirname(home.image_path)
    name = names.image_file_name(home.name, home.record.realm, storage)
    if directory == home.services.config.home_root or names.stays(home.image_path):
        # Where systemd-homed has homes others may enter; new ones are kept from them.
        directory = home.services.config.base_directory
    return os.path.join(directory, name)


def _room_for(path: str) -> str:
    if names.stays(path):
        return ""
    directory, name = os.path.split(path)
    return os.path.join(directory, f"{ROOM_PREFIX}{name}.{secrets.token_hex(4)}")
