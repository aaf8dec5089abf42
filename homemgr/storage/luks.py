"""Storage `luks`: a file system inside an encrypted volume inside an image file.

The device of a home is told to go with its last user before anything uses it, and so is what is
below it: when the home is unmounted, or a worker is killed, nothing of it stays. Formats and
names are those of systemd-homed 262, whose homes are used as they are.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

from homemgr.errors import (
    HomeAbsent,
    HomeInUse,
    HomeNotActive,
    HostileHome,
)
from homemgr.record.names import is_device
from homemgr.record.volume_settings import volume_settings
from homemgr.storage import (
    block_device,
    hidden,
    image_file,
    image_layout,
    image_parts,
    image_shrink,
    image_space,
    inner,
    luks_create,
    luks_devices,
    luks_image,
    luks_keys,
    luks_record,
    luks_slots,
    luks_volume,
)
from homemgr.storage.image_file import FileStorage
from homemgr.storage.kind import Words
from homemgr.storage.luks_area import LuksArea
from homemgr.storage.wipe import wipe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homemgr.files import Fd
    from homemgr.record.jsontext import JsonObject
    from homemgr.storage.image_parts import Part
    from homemgr.storage.kind import Area, Content, Image


class Luks(FileStorage):
    """An encrypted image file."""

    def open(self, image: Image, words: Words, *, is_active: bool) -> Area:
        """Open it, with a word unless it is in use and not locked."""
        if is_active and luks_devices.status(inner.name_of(image)) is not None:
            return _open_active(image, words)
        return _open_closed(image, words)

    def open_used(self, image: Image) -> Area:
        """Mount the file system on its device once more."""
        name = inner.name_of(image)
        found = luks_devices.status(name)
        if found is None or found.is_suspended:
            raise HomeNotActive(f"Device {name} is not there, or locked.")
        with ExitStack() as on_failure:
            held = on_failure.enter_context(ExitStack())
            device = held.enter_context(luks_devices.open_device(name))
            top = inner.look_in(device, image, volume_settings(image.effective), held)
            on_failure.pop_all()
        area = LuksArea(top, name, image, Words(), None)
        area.held = held
        return area

    def create(
        self, image: Image, parent: Fd, file_name: str, content: Content, words: Words
    ) -> list[str]:
        """Make it as large as the record says; NotSupported without device-mapper."""
        return luks_create.create(image, parent, file_name, content, words)

    def binding(self, image: Image) -> JsonObject:
        """What the image says of itself to everybody."""
        settings = volume_settings(image.effective)
        with ExitStack() as held:
            fd = held.enter_context(image_file.open_image(image.path))
            part = luks_image.find_part(fd, image.path, settings, inner.label_of(image))
            loop = held.enter_context(image_parts.attach(fd, part).device)
            found = luks_volume.load(inner.path_of(loop), image, settings)
            told = luks_volume.binding(held.enter_context(found), part)
            luks_uuid = found.uuid
        if is_device(image.path):
            told["imagePath"] = block_device.lasting_path(image.path, luks_uuid)
        return told

    def close(self, image: Image) -> bool:
        """See to it that the device goes, and say that the image is in order."""
        name = inner.name_of(image)
        # The kept key goes with the use of the home, also if the device has to stay for a while.
        luks_keys.forget(name)
        hidden.take_away(name)
        luks_devices.have_go(name)
        if not luks_devices.wait_for_end(name):
            return False
        # Waits until the kernel has let go of the image too: another service may want it next.
        with suppress(HomeAbsent, HostileHome, HomeInUse), image_file.open_alone(image.path) as fd:
            image_file.set_dirty(fd, is_dirty=False)
            # As with systemd-homed: without offline discard a home at rest keeps all of its room.
            if not volume_settings(image.effective).offline_discard:
                image_space.reserve(fd, image.path)
        return True

    def resize_closed(self, image: Image, words: Words, wanted: int) -> int:
        """Shrink an ext4, which cannot be done while it is mounted."""
        settings = volume_settings(image.effective)
        luks_devices.wait_for_end(inner.name_of(image))
        way = image_shrink.Way(
            lambda file: luks_image.find_part(file, image.path, settings, inner.label_of(image)),
            lambda file, part, closing: _open_copy(image, words, file, part, closing),
        )
        return image_shrink.shrink(image, wanted, way)

    def lock(self, image: Image) -> None:
        """Take the key out of the device; who uses the home waits."""
        luks_keys.forget(inner.name_of(image))
        with luks_volume.of_active(image) as volume:
            volume.suspend(inner.name_of(image))

    def is_locked(self, image: Image) -> bool:
        """Whether the device waits for its key."""
        found = luks_devices.status(inner.name_of(image))
        return found is not None and found.is_suspended

    def sweep(self, parent: Fd) -> Sequence[str]:
        """Delete images that are not yet, or no longer, a home."""
        luks_devices.sweep()
        return super().sweep(parent)


# --- opening ------------------------------------------------------------------------------


def _open_closed(image: Image, words: Words) -> LuksArea:
    name = inner.name_of(image)
    # Before anything is touched: NotSupported where the kernel has no device-mapper.
    luks_devices.control().close()
    # What a killed worker has left there would keep the device and the image in use for ever.
    hidden.take_away(name)
    if not luks_devices.wait_for_end(name):
        raise HomeInUse(f"Device {name} is still there: files of {image.path} are open somewhere.")
    settings = volume_settings(image.effective)
    with ExitStack() as on_failure:
        held = on_failure.enter_context(ExitStack())
        fd = held.enter_context(image_file.open_alone(image.path))
        # A resize that was killed is finished, or taken back, before anybody reads the table.
        image_layout.settle(fd)
        part = luks_image.find_part(fd, image.path, settings, inner.label_of(image))
        loop = held.enter_context(image_parts.attach(fd, part).device)
        volume = held.enter_context(luks_volume.load(inner.path_of(loop), image, settings))
        key = luks_volume.unlock(volume, words, image)
        on_failure.callback(wipe, key)
        # Before the kernel looks at a file system that a stranger may have made.
        image.judge(luks_record.read(volume, key))
        image_file.set_dirty(fd, is_dirty=True)
        on_failure.callback(image_file.set_dirty, fd, is_dirty=False)
        if not settings.discard:
            image_space.reserve(fd, image.path)
        device = held.enter_context(
            luks_devices.activate(volume, name, key, discards=luks_devices.discards(settings))
        )
        uid = inner.check(device, image, settings)
        top = inner.open_top(device, image, settings, held)
        # A change of passwords that was killed has left slots: the record tells which have to go.
        luks_slots.settle(volume, top)
        found = {**luks_volume.binding(volume, part), "fileSystemUuid": uid}
        on_failure.pop_all()
    area = LuksArea(top, name, image, words, key)
    area.held, area.found, area.is_ours = held, found, True
    area.undo(Luks().close, image)
    return area


def _open_copy(
    image: Image, words: Words, file: Fd, part: Part, closing: ExitStack
) -> tuple[str, int]:
    """Unlock a copy of the image under a name that is swept: its device, where its data begin."""
    settings = volume_settings(image.effective)
    name = f"{luks_devices.NEW_PREFIX}{os.urandom(8).hex()}"
    # Runs when all that is opened below is closed: until the device has gone it has the file open.
    closing.callback(luks_devices.wait_for_end, name)
    loop = closing.enter_context(image_parts.attach(file, part).device)
    volume = closing.enter_context(luks_volume.load(inner.path_of(loop), image, settings))
    key = luks_volume.unlock(volume, words, image)
    closing.callback(wipe, key)
    # Before anything looks at a file system that a stranger may have made.
    image.judge(luks_record.read(volume, key))
    device = closing.enter_context(
        luks_devices.activate(volume, name, key, discards=settings.discard)
    )
    return inner.path_of(device), volume.data_offset


def _open_active(image: Image, words: Words) -> LuksArea:
    """Open a home whose device is there: its file system once more, with the ids on disk."""
    name = inner.name_of(image)
    key = None
    with ExitStack() as on_failure:
        held = on_failure.enter_context(ExitStack())
        if Luks().is_locked(image):
            with luks_volume.of_active(image) as volume:
                key = luks_volume.unlock(volume, words, image)
                volume.resume(name, key)
            on_failure.callback(Luks().lock, image)
        device = held.enter_context(luks_devices.open_device(name))
        top = inner.open_top(device, image, volume_settings(image.effective), held)
        undo = on_failure.pop_all()
    area = LuksArea(top, name, image, words, key)
    area.held = held
    if key is not None:
        area.undo(undo.close)
    return area
