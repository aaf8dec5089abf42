"""New `luks` homes: the image and all that lies in it, complete or not at all."""

from __future__ import annotations

import os
import uuid
from contextlib import ExitStack
from typing import TYPE_CHECKING

from homemgr.record.names import is_device
from homemgr.record.volume_settings import VolumeSettings, volume_settings
from homemgr.storage import (
    block_device,
    image_file,
    image_parts,
    inner,
    luks_devices,
    luks_image,
    luks_record,
    luks_volume,
)
from homemgr.storage.wipe import wipe
from homemgr.volume.luks import Layout, Volume
from homemgr.volume.probe import SUBSYSTEM

if TYPE_CHECKING:
    from homemgr.files import Fd
    from homemgr.storage.kind import Content, Image, Words


def create(image: Image, parent: Fd, file_name: str, content: Content, words: Words) -> list[str]:
    """Make it as large as the record says; NotSupported without device-mapper."""
    luks_devices.control().close()
    settings = volume_settings(image.effective)
    if is_device(image.path):
        return _create_on_device(image, settings, content, words)
    with ExitStack() as undo:
        name, new = luks_image.make(parent, file_name, settings, inner.label_of(image), undo)
        skipped = _fill(image, new, settings, content, words)
        # On disk before it has the name of a home: that is there complete or not at all.
        os.fsync(new.fd.fileno())
        image_file.publish(parent, name, file_name)
        undo.pop_all()
        new.fd.close()
    return skipped


def _create_on_device(
    image: Image, settings: VolumeSettings, content: Content, words: Words
) -> list[str]:
    with ExitStack() as undo:
        device = block_device.open_empty(image.path, undo)
        wanted = luks_image.check_device(device, image.path, settings)
        # A file gets its name last; a device has one, so what was written has to go again.
        undo.callback(block_device.wipe_ends, device)
        new = luks_image.make_on_device(device, wanted, settings, inner.label_of(image))
        skipped = _fill(image, new, settings, content, words)
        undo.pop_all()
        block_device.finish(device)
    return skipped


def _fill(
    image: Image,
    new: luks_image.NewImage,
    settings: VolumeSettings,
    content: Content,
    words: Words,
) -> list[str]:
    """Put volume, file system and home into the new image."""
    label = inner.label_of(image)
    layout = Layout(
        settings.luks_uuid or str(uuid.uuid4()),
        label,
        SUBSYSTEM,
        settings.cipher,
        settings.cipher_mode,
        new.sector,
    )
    name = f"{luks_devices.NEW_PREFIX}{os.urandom(8).hex()}"
    with ExitStack() as closing:
        key = bytearray(os.urandom(settings.key_size))
        closing.callback(wipe, key)
        # Runs when all that is opened below is closed: until the device has gone it has the file
        # open.
        closing.callback(luks_devices.wait_for_end, name)
        loop = closing.enter_context(image_parts.attach(new.fd, new.part).device)
        volume = closing.enter_context(Volume.format_device(inner.path_of(loop), key, layout))
        luks_volume.add_slots(volume, key, words, settings)
        luks_record.write(volume, key, content.identity)
        device = closing.enter_context(
            luks_devices.activate(volume, name, key, discards=luks_devices.discards(settings))
        )
        uid = settings.file_system_uuid or str(uuid.uuid4())
        return inner.fill(device, label, uid, settings.file_system, content)
