"""Homes that become known or unknown while their files stay: register, unregister, adopt.

Semantics of systemd-homed 262, except where a home turns up in another place: then the
binding follows the data, so that a moved home needs no second identity. Reads nothing
inside a home; whether its own record is accepted is seen when it is used first.
"""

from __future__ import annotations

import asyncio
import logging
import os
import stat
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.daemon import changes, discovery
from homemgr.daemon.home import Home, image_is_there
from homemgr.daemon.states import Operation
from homemgr.record import names, storages
from homemgr.record.model import UserRecord
from homemgr.record.validate import Purpose, validate

if TYPE_CHECKING:
    from homemgr.daemon.discovery import Image
    from homemgr.daemon.manager import Manager
    from homemgr.record.jsontext import Json, JsonObject

log = logging.getLogger(__name__)

#: Members of a binding that describe the image, and are wrong of another one.
OF_THE_IMAGE = (
    "partitionUuid",
    "luksUuid",
    "fileSystemUuid",
    "luksCipher",
    "luksCipherMode",
    "luksVolumeKeySize",
    "fileSystemType",
)


async def register(manager: Manager, text: str) -> None:
    """Know the user of a record from now on, whether or not his files are here.

    Binding and status of another machine are left out; an unsigned record is signed.
    Raises InvalidRecord, BadSignature, NoPrivateKey, UserNameExists, UIDInUse.
    """
    services = manager.services
    record = validate(UserRecord.parse(text), Purpose.REGISTER, services.machine)
    record = changes.accepted_or_signed(services, record)
    home = await manager.admit(record)
    # Who sees the home in the list already waits until it is known for good, or not at all.
    async with home.undisturbed():
        try:
            await _store_new(manager, home, record)
        except errors.HomeError:
            home.forget()
            raise
        await asyncio.to_thread(services.store.make_blob_directory, home.name)
        home.is_present = await asyncio.to_thread(image_is_there, home.image_path)
        home.observe()
        services.changed(home)
    log.info("User %s is registered.", home.name)


async def _store_new(manager: Manager, home: Home, record: UserRecord) -> None:
    """Have the record on disk, bound to the files if they lie in one of the usual places."""
    binding: dict[str, Json] = {}
    image = await asyncio.to_thread(_image_of, manager, record)
    if image is not None and not home.image_path:
        binding = _binding_to(image)
    await home.store_record(home.record.with_binding(home.services.machine.id, binding))


def _image_of(manager: Manager, record: UserRecord) -> Image | None:
    """The image of this user in one of the usual places; blocks."""
    config = manager.services.config
    for storage in (None, *names.FILE_SUFFIXES):
        name = names.image_file_name(record.name, record.realm, storage)
        for directory in (config.base_directory, config.home_root):
            image = discovery.assess(directory, name)
            if image is not None:
                return image
    return None


async def unregister(manager: Manager, home: Home) -> None:
    """Forget the user and keep his files: found where homes are looked for, they show unfixated."""
    async with home.exclusively(Operation.UNREGISTER):
        await home.drop_record()
    log.info("User %s is unregistered; the files stay.", home.name)
    await manager.discover()


async def adopt(manager: Manager, path: str) -> None:
    """Know the home area that lies at ``path``, or that a known one lies there.

    Its own record is accepted at its first use. Raises FileNotFound,
    UnrecognizedHomeFormat, UserNameExists; HomeExists if the known one has files elsewhere,
    TransferBusy if it is another machine's as long as that has not let go of it.
    """
    image = await asyncio.to_thread(_found_at, manager, path)
    if manager.transfers.register.hides(image.path):
        raise errors.TransferBusy(
            f"{path} arrives from another machine, or was given back to it; run that transfer to"
            " its end, or forget it here with `homemgr transfers forget`."
        )
    home = manager.registry.by_name(image.user)
    if home is None or home.name != image.user:
        await manager.admit_image(image)
        return
    async with home.exclusively(Operation.ADOPT):
        if home.record.realm != image.realm:
            raise errors.UserNameExists(
                f"{path} is named after {names.with_realm(image.user, image.realm)}, "
                f"but {home.record.user_and_realm} is known here."
            )
        await _rebind(home, image)


async def _rebind(home: Home, image: Image) -> None:
    """Have the home's binding say where its files are."""
    known = home.image_path
    if known != image.path and known and await asyncio.to_thread(image_is_there, known):
        raise errors.HomeExists(
            f"Home area {home.name} has its files at {known}; {image.path} is another copy. "
            "Remove or rename one of them."
        )
    machine_id = home.services.machine.id
    record = home.record.with_binding(machine_id, _binding_to(image))
    if home.is_fixated:
        await home.store_record(record)
    else:
        home.replace_record(record)
    home.is_present = True
    home.services.changed(home)
    log.info("Home area %s has its files at %s.", home.name, image.path)


def _binding_to(image: Image) -> JsonObject:
    """What a binding says of an image; None takes away what was true of another."""
    of_image = dict.fromkeys(OF_THE_IMAGE)
    return {**storages.bound_to(image.storage, image.path), **of_image}


def _found_at(manager: Manager, path: str) -> Image:
    """What lies there, judged by name and type as when homes are looked for; blocks."""
    if not os.path.isabs(path) or os.path.normpath(path) != path:
        raise errors.InvalidArgs(f"image_path: {path!r} is no plain absolute path.")
    try:
        status = os.lstat(path)
    except OSError as error:
        raise errors.FileNotFound(f"There is no {path}.") from error
    if names.is_device(path):
        return _found_on(manager, path)
    image = discovery.assess(*os.path.split(path))
    if image is None:
        kind = "a directory" if stat.S_ISDIR(status.st_mode) else "no directory"
        raise errors.UnrecognizedHomeFormat(
            f"{path} is {kind}, but no home area this version can use: "
            "expected a directory named USER.homedir, or a file named USER.home or USER.homeimage."
        )
    return image


def _found_on(manager: Manager, path: str) -> Image:
    image = manager.offers.image_at(path)
    if image is None:
        raise errors.UnrecognizedHomeFormat(
            f"{path} is no partition with a home, as far as udev tells: expected one of the type"
            " for homes (GPT, user-home) that is called after its user and holds a LUKS volume."
        )
    return image
