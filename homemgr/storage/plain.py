"""Storage `image`: a file system inside a plain image file, which anybody can read who has it.

Laid out as encrypted images are, and before the partition for the home one with the signed record:
without it nothing of the file system is looked at, let alone mounted. The loop device goes with
its last user: when the home is unmounted, or a worker is killed, nothing of it stays.
"""

from __future__ import annotations

import os
import time
import uuid
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Final

from homemgr.errors import (
    HomeAbsent,
    HomeInUse,
    HomeNotActive,
    HostileHome,
    UnrecognizedHomeFormat,
)
from homemgr.kernel import loop
from homemgr.record.volume_settings import volume_settings
from homemgr.storage import (
    hidden,
    image_file,
    image_layout,
    image_parts,
    image_resize,
    image_shrink,
    inner,
    plain_record,
)
from homemgr.storage.image_file import FileStorage
from homemgr.storage.plain_area import PlainArea
from homemgr.volume import file_system

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homemgr.files import Fd
    from homemgr.record.jsontext import JsonObject
    from homemgr.record.volume_settings import VolumeSettings
    from homemgr.storage.image_parts import Part
    from homemgr.storage.kind import Area, Content, Image, Words
    from homemgr.storage.plain_record import RecordArea

#: How long a device whose home was unmounted may take to go, and how often it is looked for (s).
_GOING_S: Final = 5.0
_LOOK_S: Final = 0.005


class Plain(FileStorage):
    """An image file that is not encrypted."""

    def open(self, image: Image, words: Words, *, is_active: bool) -> Area:
        """Open it, which needs no word; `Image.judge` decides about one that is not in use."""
        with ExitStack() as on_failure:
            fd = on_failure.enter_context(image_file.open_image(image.path))
            settings = volume_settings(image.effective)
            if not is_active:
                hidden.take_away(inner.name_of(image))
                image_file.lock(fd, image.path)
            image_layout.settle(fd)
            part, record = _parts(fd, image, settings)
            device = _device_of(fd, part) if is_active else None
            if device is not None:
                with device:
                    area = _area(device, image, settings, record)
            else:
                area = _open_closed(fd, image, settings, part, record)
            area.held.callback(fd.close)
            area.resizing = image_resize.Opened(
                image,
                area.top,
                device is None,
                lambda file: _parts(file, image, settings)[0],
                lambda: _require_device(image, settings),
            )
            area.found = _binding(fd, part)
            on_failure.pop_all()
        return area

    def open_used(self, image: Image) -> Area:
        """Mount the file system on its device once more."""
        settings = volume_settings(image.effective)
        with image_file.open_image(image.path) as fd:
            device = _device_of(fd, _parts(fd, image, settings)[0])
        if device is None:
            raise HomeNotActive(f"{image.path} is not open.")
        with device, ExitStack() as on_failure:
            held = on_failure.enter_context(ExitStack())
            top = inner.look_in(device, image, settings, held)
            on_failure.pop_all()
        return PlainArea(top, None, held)

    def create(
        self, image: Image, parent: Fd, file_name: str, content: Content, words: Words
    ) -> list[str]:
        """Make it as large as the record says."""
        settings = volume_settings(image.effective)
        with ExitStack() as undo:
            name, fd, size = image_file.make(parent, file_name, settings, undo)
            first = plain_record.new_partition()
            label = inner.label_of(image)
            part = image_parts.divide(fd, size, settings, label, (first,))
            plain_record.RecordArea(fd, first.start, first.size).write(content.identity)
            with image_parts.attach(fd, part).device as device:
                uid = settings.file_system_uuid or str(uuid.uuid4())
                skipped = inner.fill(device, label, uid, settings.file_system, content)
            # On disk before it has the name of a home: that is there complete or not at all.
            os.fsync(fd.fileno())
            image_file.publish(parent, name, file_name)
            undo.pop_all()
            fd.close()
        return skipped

    def resize_closed(self, image: Image, words: Words, wanted: int) -> int:
        """Shrink an ext4, which cannot be done while it is mounted."""
        settings = volume_settings(image.effective)
        way = image_shrink.Way(lambda file: _parts(file, image, settings)[0], _open_copy)
        return image_shrink.shrink(image, wanted, way)

    def peek(self, image: Image) -> bytes | None:
        """The record beside the file system, which is not looked at."""
        with image_file.open_image(image.path) as fd:
            _, record = _parts(fd, image, volume_settings(image.effective))
            return None if record is None else record.read()

    def binding(self, image: Image) -> JsonObject:
        """What the table says of the partition, and the file system of itself."""
        with image_file.open_image(image.path) as fd:
            part, _ = _parts(fd, image, volume_settings(image.effective))
            return _binding(fd, part)

    def close(self, image: Image) -> bool:
        """See to it that the device goes, and say that the image is in order."""
        hidden.take_away(inner.name_of(image))
        with (
            suppress(HomeAbsent, HostileHome, UnrecognizedHomeFormat),
            image_file.open_image(image.path) as fd,
        ):
            part, _ = _parts(fd, image, volume_settings(image.effective))
            if not _wait_for_end(fd, part):
                return False
            image_file.set_dirty(fd, is_dirty=False)
        return True

    def sweep(self, parent: Fd) -> Sequence[str]:
        """Nothing that `Luks` does not see to."""
        return ()


def _parts(fd: Fd, image: Image, settings: VolumeSettings) -> tuple[Part, RecordArea | None]:
    every = image_parts.partitions(fd, image.path)
    part = image_parts.home_part(every, image.path, settings, inner.label_of(image))
    return part, plain_record.find(fd, every)


def _binding(fd: Fd, part: Part) -> JsonObject:
    """What tells partition and file system from those of all other images."""
    found: JsonObject = {} if part.guid is None else {"partitionUuid": part.guid}
    kind = file_system.identify(fd.fileno(), part.offset)
    if kind is not None:
        found["fileSystemUuid"] = file_system.uuid_of(kind, fd.fileno(), part.offset)
    return found


def _open_closed(
    fd: Fd, image: Image, settings: VolumeSettings, part: Part, record: RecordArea | None
) -> PlainArea:
    if not _wait_for_end(fd, part):
        raise HomeInUse(f"Files of {image.path} are open somewhere.")
    # Kept by the device, which has the same open file.
    image_file.lock(fd, image.path)
    image.judge(None if record is None else record.read())
    with ExitStack() as on_failure:
        image_file.set_dirty(fd, is_dirty=True)
        on_failure.callback(image_file.set_dirty, fd, is_dirty=False)
        with image_parts.attach(fd, part).device as device:
            inner.check(device, image, settings)
            area = _area(device, image, settings, record)
        on_failure.pop_all()
    area.undo(Plain().close, image)
    with ExitStack() as on_failure:
        on_failure.callback(area.close)
        area.settle()
        on_failure.pop_all()
    return area


def _area(
    device: Fd, image: Image, settings: VolumeSettings, record: RecordArea | None
) -> PlainArea:
    with ExitStack() as on_failure:
        held = on_failure.enter_context(ExitStack())
        top = inner.open_top(device, image, settings, held)
        on_failure.pop_all()
    return PlainArea(top, record, held)


def _device_of(fd: Fd, part: Part) -> Fd | None:
    """The device that the home is in use by."""
    # Whatever its end: a resize may have been killed before it told the device.
    found = loop.find(fd.fileno(), offset=part.offset, size_limit=None)
    return None if found is None else found.device


def _require_device(image: Image, settings: VolumeSettings) -> Fd:
    """The device of a home that is open. Raises HomeAbsent."""
    with image_file.open_image(image.path) as fd:
        device = _device_of(fd, _parts(fd, image, settings)[0])
    if device is None:
        raise HomeAbsent(f"The device of {image.path} has just gone.")
    return device


def _open_copy(file: Fd, part: Part, closing: ExitStack) -> tuple[str, int]:
    """The device of a copy of the image; the file system begins where that does."""
    device = closing.enter_context(image_parts.attach(file, part).device)
    return inner.path_of(device), 0


def _wait_for_end(fd: Fd, part: Part) -> bool:
    """Whether the device of the home goes away."""
    deadline = time.monotonic() + _GOING_S
    while (found := _device_of(fd, part)) is not None:
        found.close()
        if time.monotonic() > deadline:
            return False
        time.sleep(_LOOK_S)
    return True
