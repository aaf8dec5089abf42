"""The storages there are. A new one is a class, a line here and one in ``record.storages``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from homemgr.errors import NotSupported
from homemgr.storage import directory, limits, subvolume
from homemgr.storage.cifs import Cifs
from homemgr.storage.fscrypt import Fscrypt
from homemgr.storage.kind import Area, Storage
from homemgr.storage.luks import Luks
from homemgr.storage.plain import Plain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from homemgr.files import Fd
    from homemgr.storage.kind import Content, Image, Words


class Directory(Storage):
    """A plain directory tree; also what all storages share whose image is a directory."""

    def open(self, image: Image, words: Words, *, is_active: bool) -> Area:
        """Open it; there is nothing to unlock."""
        return Area(directory.open_home(image.path))

    def create(
        self, image: Image, parent: Fd, file_name: str, content: Content, words: Words
    ) -> list[str]:
        """Make it; the record alone decides who may use it."""
        prepare = limits.preparing(image.effective, parent)
        return directory.create(parent, file_name, **content.first, prepare_top=prepare)

    def set_aside(self, parent: Fd, file_name: str) -> None:
        """Rename it."""
        directory.set_aside(parent, file_name)

    def delete_aside(self, parent: Fd, file_name: str) -> None:
        """Delete the tree, and snapshots that were kept of it."""
        directory.delete_aside(parent, file_name)

    def sweep(self, parent: Fd) -> Sequence[str]:
        """Delete trees that are not yet, or no longer, a home, whatever it is stored as."""
        return directory.sweep(parent).gone


class Subvolume(Directory):
    """A subvolume of btrfs. What was made as one may also be a directory, as homed has it."""

    def create(
        self, image: Image, parent: Fd, file_name: str, content: Content, words: Words
    ) -> list[str]:
        """Make it; NotSupported where there are no subvolumes."""
        prepare = limits.preparing(image.effective, parent)
        make_top = subvolume.make_subvolume
        return directory.create(
            parent, file_name, **content.first, make_top=make_top, prepare_top=prepare
        )

    def sweep(self, parent: Fd) -> Sequence[str]:
        """Nothing that `Directory` does not see to."""
        return ()


#: By the name that user records use (field ``storage``).
#: Keys are taken away before the trees are deleted that tell which they are.
STORAGES: dict[str, Storage] = {
    "fscrypt": Fscrypt(),
    "directory": Directory(),
    "subvolume": Subvolume(),
    "luks": Luks(),
    "image": Plain(),
    "cifs": Cifs(),
}


def storage_named(name: str) -> Storage:
    """The storage called ``name``; `NotSupported` if it is not built (yet)."""
    if name not in STORAGES:
        known = ", ".join(sorted(STORAGES))
        raise NotSupported(f"Storage {name!r} is not supported; this version knows: {known}.")
    return STORAGES[name]
