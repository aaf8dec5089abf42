"""The storages there are, and what each has to offer. A new one is a module and a line here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from homemgr.errors import NotSupported
from homemgr.storage import directory, subvolume

if TYPE_CHECKING:
    from collections.abc import Mapping

    from homemgr.files import Fd
    from homemgr.storage.directory import Swept
    from homemgr.storage.top import Top


class Storage(Protocol):
    """One way for a home to lie on disk; a module with these functions is one."""

    def open_home(self, image_path: str) -> Top:
        """Open the home as it lies on disk."""

    def create(
        self,
        base: Fd,
        file_name: str,
        *,
        access_mode: int,
        skeleton: str | None,
        identity: bytes,
        blobs: Mapping[str, int],
    ) -> list[str]:
        """Make a new home in ``base``, complete or not at all."""

    def set_aside(self, parent: Fd, file_name: str) -> str:
        """Make the home no home any more, durably; returns its new name."""

    def delete_aside(self, parent: Fd, file_name: str) -> None:
        """Delete what was set aside under this name."""

    def sweep(self, parent: Fd) -> Swept:
        """Delete what killed operations left behind."""


#: By the name that user records use (field ``storage``).
STORAGES: dict[str, Storage] = {
    "directory": directory,
    "subvolume": subvolume,
}


def storage_named(name: str) -> Storage:
    """The storage called ``name``; `NotSupported` if it is not built (yet)."""
    if name not in STORAGES:
        known = ", ".join(sorted(STORAGES))
        raise NotSupported(f"Storage {name!r} is not supported; this version knows: {known}.")
    return STORAGES[name]
