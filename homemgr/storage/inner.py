"""The file system on the device of an image, and the directory in it that is the home."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

from homemgr.errors import UnrecognizedHomeFormat, from_os_error
from homemgr.files import DIRECTORY_FLAGS, Fd
from homemgr.kernel.openat2 import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, openat2
from homemgr.record.names import with_realm
from homemgr.storage import directory, hidden, subvolume
from homemgr.storage.top import Top
from homemgr.volume import file_system

if TYPE_CHECKING:
    from contextlib import ExitStack

    from homemgr.record.volume_settings import VolumeSettings
    from homemgr.storage.kind import Content, Image

_WITHIN: Final = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV


def label_of(image: Image) -> str:
    """What partition, volume, file system and the directory in it are called."""
    return with_realm(image.effective.name, image.effective.realm)


def name_of(image: Image) -> str:
    """What a device of the home is called where such have names, by systemd-homed too."""
    return image.device or f"home-{image.effective.name}"


def path_of(device: Fd) -> str:
    """The node of an open device."""
    return os.readlink(f"/proc/self/fd/{device.fileno()}")


def kind_on(device: Fd, path: str) -> str:
    """Which file system is on the device of ``path``. Raises UnrecognizedHomeFormat."""
    kind = file_system.identify(device.fileno())
    if kind is None:
        raise UnrecognizedHomeFormat(
            f"{path} holds none of the file systems {', '.join(file_system.KINDS)}."
        )
    return kind


def check(device: Fd, image: Image, settings: VolumeSettings) -> str:
    """Have the file system on a device mended, if it is that of the home; gives its UUID.

    Raises UnrecognizedHomeFormat for another one, and DamagedFileSystem.
    """
    kind = kind_on(device, image.path)
    found = file_system.uuid_of(kind, device.fileno())
    if settings.file_system_uuid not in (None, found):
        raise UnrecognizedHomeFormat(
            f"The file system of {image.path} is not the one its user had here: its UUID is"
            f" {found}, expected {settings.file_system_uuid}. If that was changed on purpose,"
            f" `homemgr adopt {image.path}` takes it as it is now."
        )
    file_system.check(kind, path_of(device), image.path)
    return found


def open_top(device: Fd, image: Image, settings: VolumeSettings, held: ExitStack) -> Top:
    """The directory in the file system that is the home; ``held`` lets go of the rest."""
    mount, name = _mounted(device, image, settings, held), name_of(image)
    # Before it is put there, so that no failure leaves it.
    held.callback(hidden.take_away, name)
    hidden.make_cloneable(mount, name)
    return _top_in(mount, image)


def look_in(device: Fd, image: Image, settings: VolumeSettings, held: ExitStack) -> Top:
    """The same to be read only, beside others who open it: nothing is put where they do."""
    return _top_in(_mounted(device, image, settings, held), image)


def _mounted(device: Fd, image: Image, settings: VolumeSettings, held: ExitStack) -> Fd:
    kind, path = kind_on(device, image.path), path_of(device)
    # Said in any case: btrfs does it by itself where the device can.
    discard = "discard" if settings.discard else "nodiscard"
    try:
        mount = file_system.mount(kind, path, (discard, *settings.mount_options))
    except OSError as error:
        raise from_os_error(error, f"Mounting the file system of {image.path}") from error
    return held.enter_context(mount)


def _top_in(mount: Fd, image: Image) -> Top:
    label = label_of(image)
    try:
        fd = openat2(mount.fileno(), label, DIRECTORY_FLAGS, _WITHIN)
    except OSError as error:
        raise UnrecognizedHomeFormat(
            f"The file system of {image.path} holds no directory {label}."
        ) from error
    return Top(fd, image.path)


def fill(device: Fd, label: str, uuid: str, kind: str, content: Content) -> list[str]:
    """Make a file system with a new home in it; what of the skeleton could not be copied.

    Raises BadHomeSize if it has no room for as many files as are to come.
    """
    path = path_of(device)
    file_system.make(kind, path, label, uuid, content.entries)
    make_top = subvolume.make_subvolume if kind == "btrfs" else directory.make_directory
    with (
        file_system.mount(kind, path) as mount,
        Fd.open(".", DIRECTORY_FLAGS, dir_fd=mount.fileno()) as root,
    ):
        return directory.create(root, label, **content.first, make_top=make_top)
