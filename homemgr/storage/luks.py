"""Storage `luks`: a file system inside an encrypted volume inside an image file.

The device of a home is told to go with its last user before anything uses it, and so is what is
below it: when the home is unmounted, or a worker is killed, nothing of it stays. Formats and
names are those of systemd-homed 262, whose homes are used as they are.
"""

from __future__ import annotations

import logging
import os
import time
import uuid
from contextlib import ExitStack, contextmanager, suppress
from functools import cached_property
from typing import TYPE_CHECKING, Final

from homemgr.errors import (
    BadPassword,
    HomeAbsent,
    HomeInUse,
    HostileHome,
    NotSupported,
    UnrecognizedHomeFormat,
    from_os_error,
)
from homemgr.files import DIRECTORY_FLAGS, Fd
from homemgr.kernel import device_mapper
from homemgr.kernel.openat2 import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, openat2
from homemgr.record.names import with_realm
from homemgr.record.volume_settings import VolumeSettings, volume_settings
from homemgr.storage import directory, hidden, luks_image, luks_record, luks_slots, subvolume
from homemgr.storage.directory import GONE_PREFIX, NEW_PREFIX
from homemgr.storage.kind import Area, Storage
from homemgr.storage.top import Top
from homemgr.storage.wipe import wipe
from homemgr.volume import file_system
from homemgr.volume.luks import Layout, Pbkdf, Volume

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from homemgr.record.jsontext import JsonObject
    from homemgr.storage.kind import Content, Image, Words

log = logging.getLogger(__name__)

#: Of the header, as systemd-homed has it.
_SUBSYSTEM: Final = "systemd-home"
#: Devices of homes that are being made; no user's is called so.
_NEW_DEVICE: Final = "homenew-"

#: There if the kernel has device-mapper already, without being asked to load it.
_LOADED: Final = "/sys/class/misc/device-mapper"

#: How long a device that was told to go may take, and how often it is looked for (s).
_GOING_S: Final = 5.0
_LOOK_S: Final = 0.005

_WITHIN: Final = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV


class LuksArea(Area):
    """An open home, and the volume it lies in."""

    def __init__(
        self, top: Top, device: str, image: Image, words: Words, key: bytearray | None
    ) -> None:
        """``key`` is None if the device had it already; then ``words`` give it."""
        super().__init__(top)
        #: What is let go of in any case, whether or not the home stays in use.
        self.held = ExitStack()
        #: Of its binding.
        self.found: JsonObject = {}
        self._device = device
        self._image = image
        self._words = words
        self._key = key

    def undo(self, *undoing: object) -> None:
        """Call this when the home is closed without having come into use."""
        self._closing.callback(*undoing)  # type: ignore[arg-type]

    @contextmanager
    def rekeying(
        self, words: Words, identity: bytes | None, dropped: Words | None = None
    ) -> Iterator[None]:
        """Add slots, and remove the old ones, or those ``dropped``, when ``identity`` is there."""
        key = self._volume_key()
        opened = None if dropped is None else _opened_by(self._volume, dropped)

        def add() -> None:
            _add_slots(self._volume, key, words, volume_settings(self._image.effective))

        with luks_slots.replacing(self._volume, self.top, add, identity, opened):
            yield

    def binding(self) -> JsonObject:
        """What the header says of the volume, as far as it was read."""
        return self.found

    def note_record(self, identity: bytes) -> None:
        """Write it into the header too, if the key is known."""
        try:
            luks_record.write(self._volume, self._volume_key(), identity)
        except BadPassword:
            # In use, and nobody gave a word: the next login finds the header older.
            log.info("The header of %s keeps its older record.", self._image.path)

    @cached_property
    def _volume(self) -> Volume:
        """Its header; opened once, as two would not know of each other's changes."""
        return self.held.enter_context(Volume.of_active(self._device))

    def _volume_key(self) -> bytearray:
        if self._key is None:
            self._key = _unlocked(self._volume, self._words, self._image.path)
        return self._key

    def close(self) -> None:
        """Let go of all of it, and forget the key."""
        self.top.close()
        self.held.close()
        if self._key is not None:
            wipe(self._key)
        super().close()


class Luks(Storage):
    """An encrypted image file."""

    image_is_file = True
    goes_with_mount = True

    def open(self, image: Image, words: Words, *, is_active: bool) -> Area:
        """Open it, with a word unless it is in use and not locked."""
        if is_active and _status(image) is not None:
            return _open_active(image, words)
        return _open_closed(image, words)

    def create(
        self, image: Image, parent: Fd, file_name: str, content: Content, words: Words
    ) -> list[str]:
        """Make it as large as the record says; NotSupported without device-mapper."""
        _control().close()
        settings = volume_settings(image.effective)
        with ExitStack() as undo:
            name, new = luks_image.make(parent, file_name, settings, _label(image), undo)
            skipped = _fill(image, new, settings, content, words)
            os.fsync(new.fd.fileno())
            luks_image.publish(parent, name, file_name)
            undo.pop_all()
            new.fd.close()
        return skipped

    def binding(self, image: Image) -> JsonObject:
        """What the image says of itself to everybody."""
        settings = volume_settings(image.effective)
        with ExitStack() as held:
            fd = held.enter_context(luks_image.open_image(image.path))
            part = luks_image.find_part(fd, image.path, settings, _label(image))
            loop = held.enter_context(luks_image.attach(fd, part).device)
            return _binding(held.enter_context(_loaded(_path_of(loop), image, settings)), part)

    def close(self, image: Image) -> bool:
        """See to it that the device goes, and say that the image is in order."""
        hidden.take_away(_device_name(image))
        if _status(image) is not None:
            with suppress(OSError), Volume.of_active(_device_name(image)) as volume:
                volume.deactivate(_device_name(image), once_unused=True)
        if not _is_gone(image):
            return False
        with suppress(HomeAbsent, HostileHome), luks_image.open_image(image.path) as fd:
            luks_image.set_dirty(fd, is_dirty=False)
        return True

    def lock(self, image: Image) -> None:
        """Take the key out of the device; who uses the home waits."""
        with _volume_of(image) as volume:
            volume.suspend(_device_name(image))

    def is_locked(self, image: Image) -> bool:
        """Whether the device waits for its key."""
        found = _status(image)
        return found is not None and found.is_suspended

    def set_aside(self, parent: Fd, file_name: str) -> None:
        """Rename the image."""
        directory.set_aside(parent, file_name)

    def delete_aside(self, parent: Fd, file_name: str) -> None:
        """Delete the image."""
        for entry in os.listdir(parent.fileno()):
            if entry.startswith(GONE_PREFIX) and (
                directory.original_name(entry, GONE_PREFIX) == file_name
            ):
                os.unlink(entry, dir_fd=parent.fileno())

    def sweep(self, parent: Fd) -> Sequence[str]:
        """Delete images that are not yet, or no longer, a home."""
        _sweep_devices()
        found = luks_image.sweep(parent, (NEW_PREFIX, GONE_PREFIX))
        return [
            directory.original_name(entry, GONE_PREFIX)
            for entry in found
            if entry.startswith(GONE_PREFIX)
        ]


# --- opening ------------------------------------------------------------------------------


def _open_closed(image: Image, words: Words) -> LuksArea:
    name = _device_name(image)
    _control().close()
    if not _is_gone(image):
        raise HomeInUse(f"Device {name} is still there: files of {image.path} are open somewhere.")
    settings = volume_settings(image.effective)
    with ExitStack() as on_failure:
        held = on_failure.enter_context(ExitStack())
        fd = held.enter_context(luks_image.open_image(image.path))
        luks_image.lock(fd, image.path)
        part = luks_image.find_part(fd, image.path, settings, _label(image))
        loop = held.enter_context(luks_image.attach(fd, part).device)
        volume = held.enter_context(_loaded(_path_of(loop), image, settings))
        key = _unlocked(volume, words, image.path)
        on_failure.callback(wipe, key)
        image.judge(luks_record.read(volume, key))
        luks_image.set_dirty(fd, is_dirty=True)
        on_failure.callback(luks_image.set_dirty, fd, is_dirty=False)
        device = held.enter_context(_activated(volume, name, key, discards=settings.discard))
        file_system.check(_kind_on(device, image.path), _path_of(device))
        top = _top_in(device, image, settings, held)
        luks_slots.settle(volume, top)
        found = _binding(volume, part)
        on_failure.pop_all()
    area = LuksArea(top, name, image, words, key)
    area.held, area.found = held, found
    area.undo(Luks().close, image)
    return area


def _open_active(image: Image, words: Words) -> LuksArea:
    """Open a home whose device is there: its file system once more, with the ids on disk."""
    name = _device_name(image)
    key = None
    with ExitStack() as on_failure:
        held = on_failure.enter_context(ExitStack())
        if Luks().is_locked(image):
            with _volume_of(image) as volume:
                key = _unlocked(volume, words, image.path)
                volume.resume(name, key)
            on_failure.callback(Luks().lock, image)
        device = held.enter_context(_open_device(name))
        top = _top_in(device, image, volume_settings(image.effective), held)
        undo = on_failure.pop_all()
    area = LuksArea(top, name, image, words, key)
    area.held = held
    if key is not None:
        area.undo(undo.close)
    return area


def _top_in(device: Fd, image: Image, settings: VolumeSettings, held: ExitStack) -> Top:
    """The directory in the file system that is the home; ``held`` lets go of the rest."""
    kind = _kind_on(device, image.path)
    options = ("discard",) if settings.discard else ()
    try:
        mount = file_system.mount(kind, _path_of(device), (*options, *settings.mount_options))
    except OSError as error:
        raise from_os_error(error, f"Mounting the file system of {image.path}") from error
    held.enter_context(mount)
    held.callback(hidden.take_away, _device_name(image))
    hidden.make_cloneable(mount, _device_name(image))
    try:
        fd = openat2(mount.fileno(), _label(image), DIRECTORY_FLAGS, _WITHIN)
    except OSError as error:
        raise UnrecognizedHomeFormat(
            f"The file system of {image.path} holds no directory {_label(image)}."
        ) from error
    return Top(fd, image.path)


def _loaded(device: str, image: Image, settings: VolumeSettings) -> Volume:
    try:
        volume = Volume.load(device)
    except OSError as error:
        raise UnrecognizedHomeFormat(f"{image.path} holds no LUKS2 volume: {error}.") from error
    if settings.luks_uuid not in (None, volume.uuid):
        volume.close()
        raise UnrecognizedHomeFormat(
            f"The volume of {image.path} is not the one its user had here: its UUID is"
            f" {volume.uuid}, expected {settings.luks_uuid}."
        )
    return volume


def _binding(volume: Volume, part: luks_image.Part) -> JsonObject:
    cipher, mode = volume.cipher
    found: JsonObject = {
        "luksUuid": volume.uuid,
        "luksCipher": cipher,
        "luksCipherMode": mode,
        "luksVolumeKeySize": volume.key_size,
    }
    return found if part.guid is None else {**found, "partitionUuid": part.guid}


def _unlocked(volume: Volume, words: Words, path: str) -> bytearray:
    """The key of the volume; BadPassword if no word gives it."""
    for word in words.words:
        with words.working():
            key = volume.key_behind(word)
        if key is not None:
            return key
    raise BadPassword(f"None of the passwords unlocks the volume of {path}.")


def _activated(volume: Volume, name: str, key: bytearray, *, discards: bool) -> Fd:
    """The device of the volume, which goes with its last user."""
    with _control() as control, device_mapper.alone(control.fileno()), ExitStack() as on_failure:
        volume.activate(name, key, discards=discards)
        on_failure.callback(volume.deactivate, name, once_unused=True)
        device = _open_device(name)
        volume.deactivate(name, once_unused=True)
        on_failure.pop_all()
        return device


def _control() -> Fd:
    try:
        return device_mapper.open_control()
    except OSError as error:
        raise NotSupported(
            f"This kernel makes no encrypted devices: {error.strerror}. It needs device-mapper"
            " and dm-crypt."
        ) from error


def _kind_on(device: Fd, path: str) -> str:
    kind = file_system.identify(device.fileno())
    if kind is None:
        raise UnrecognizedHomeFormat(
            f"{path} holds none of the file systems {', '.join(file_system.KINDS)}."
        )
    return kind


# --- making ---------------------------------------------------------------------------------


def _fill(
    image: Image,
    new: luks_image.NewImage,
    settings: VolumeSettings,
    content: Content,
    words: Words,
) -> list[str]:
    """Put volume, file system and home into the new image."""
    label = _label(image)
    layout = Layout(
        settings.luks_uuid or str(uuid.uuid4()),
        label,
        _SUBSYSTEM,
        settings.cipher,
        settings.cipher_mode,
        new.sector,
    )
    name = f"{_NEW_DEVICE}{os.urandom(8).hex()}"
    with ExitStack() as closing:
        key = bytearray(os.urandom(settings.key_size))
        closing.callback(wipe, key)
        closing.callback(_wait_for_end, name)
        loop = closing.enter_context(luks_image.attach(new.fd, new.part).device)
        volume = closing.enter_context(Volume.format_device(_path_of(loop), key, layout))
        _add_slots(volume, key, words, settings)
        luks_record.write(volume, key, content.identity)
        device = closing.enter_context(_activated(volume, name, key, discards=settings.discard))
        uid = settings.file_system_uuid or str(uuid.uuid4())
        file_system.make(settings.file_system, _path_of(device), label, uid)
        mount = closing.enter_context(file_system.mount(settings.file_system, _path_of(device)))
        is_btrfs = settings.file_system == "btrfs"
        make_top = subvolume.make_subvolume if is_btrfs else directory.make_directory
        with Fd.open(".", DIRECTORY_FLAGS, dir_fd=mount.fileno()) as root:
            return directory.create(root, label, **content._asdict(), make_top=make_top)


def _opened_by(volume: Volume, words: Words) -> list[int]:
    """The numbers of the slots that one of ``words`` opens."""
    found = []
    for word in words.words:
        with words.working():
            number = volume.slot_behind(word)
        if number is not None:
            found.append(number)
    return found


def _add_slots(volume: Volume, key: bytearray, words: Words, settings: VolumeSettings) -> None:
    volume.stretch(
        Pbkdf(
            settings.pbkdf,
            settings.pbkdf_hash,
            max(1, settings.pbkdf_time_usec // 1000),
            max(32, settings.pbkdf_memory // 1024),
            settings.pbkdf_threads,
            settings.pbkdf_iterations,
        )
    )
    for word in words.words:
        with words.working():
            volume.add_slot(key, word)


# --- devices --------------------------------------------------------------------------------


def _label(image: Image) -> str:
    return with_realm(image.effective.name, image.effective.realm)


def _device_name(image: Image) -> str:
    return f"home-{image.effective.name}"


def _path_of(device: Fd) -> str:
    """The node of an open device."""
    return os.readlink(f"/proc/self/fd/{device.fileno()}")


def _volume_of(image: Image) -> Volume:
    try:
        return Volume.of_active(_device_name(image))
    except OSError as error:
        raise HomeAbsent(f"The volume of {image.path} is not open.") from error


def _open_device(name: str) -> Fd:
    with device_mapper.open_control() as control:
        found = device_mapper.status(control.fileno(), name)
    if found is None:
        raise HomeAbsent(f"Device {name} has just gone.")
    return Fd.open(found.path, os.O_RDWR | os.O_CLOEXEC)


def _sweep_devices() -> None:
    """Have devices go whose makers were killed."""
    if not os.path.exists(_LOADED):
        return
    with suppress(OSError), device_mapper.open_control() as opened:
        control = opened.fileno()
        with device_mapper.alone(control):
            for name in device_mapper.names(control):
                found = device_mapper.status(control, name)
                if name.startswith(_NEW_DEVICE) and found is not None and not found.is_going:
                    device_mapper.remove(control, name)


def _status(image: Image) -> device_mapper.Device | None:
    return _status_of(_device_name(image))


def _status_of(name: str) -> device_mapper.Device | None:
    if not os.path.exists(_LOADED):
        return None
    with device_mapper.open_control() as control:
        return device_mapper.status(control.fileno(), name)


def _is_gone(image: Image) -> bool:
    return _wait_for_end(_device_name(image))


def _wait_for_end(name: str) -> bool:
    """Whether the device goes away, if it was told to and nobody uses it."""
    deadline = time.monotonic() + _GOING_S
    while (found := _status_of(name)) is not None:
        if not found.is_going or time.monotonic() > deadline:
            return False
        time.sleep(_LOOK_S)
    return True
