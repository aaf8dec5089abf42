"""A `luks` home that is open, and the header of its volume, which goes with its record."""

from __future__ import annotations

import logging
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

from homemgr.errors import BadPassword, NotSupported
from homemgr.record.volume_settings import volume_settings
from homemgr.storage import (
    image_resize,
    image_space,
    inner,
    luks_devices,
    luks_image,
    luks_keys,
    luks_record,
    luks_slots,
    luks_volume,
)
from homemgr.storage.kind import Area
from homemgr.storage.wipe import wipe
from homemgr.volume.luks import Volume

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from homemgr.record.jsontext import JsonObject
    from homemgr.record.sizing import Standing
    from homemgr.storage.kind import Image, Words
    from homemgr.storage.top import Top

log = logging.getLogger(__name__)


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
        #: Whether it was opened for this alone, and nobody else uses it.
        self.is_ours = False
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
        opened = None
        if dropped is not None:
            opened = luks_volume.opened_by(self._volume, dropped, self._image)

        def add() -> None:
            luks_volume.add_slots(self._volume, key, words, volume_settings(self._image.effective))

        with luks_slots.replacing(self._volume, self.top, add, identity, opened):
            yield

    def resize(self, wanted: int) -> int | None:
        """Resize image, volume and file system, under whoever uses them.

        Without any word, with the key that is kept; NotSupported if that is none.
        """
        if self._key is None and not self._words.words:
            if not luks_keys.is_kept(self._device):
                raise NotSupported(
                    f"The key of {self._device} is not kept, and nobody gave a word."
                )
            return image_resize.resize(self._opened(self._resize_unasked), wanted)
        self._volume_key()
        return image_resize.resize(self._opened(self._resize_device), wanted)

    def standing(self) -> Standing:
        """How image and file system stand now."""
        found = image_resize.standing(self._opened(self._resize_unasked))
        return found._replace(shrinks=found.shrinks and luks_keys.is_kept(self._device))

    def _resize_unasked(self, size: int) -> None:
        luks_keys.resize(self._device, size)

    def _resize_device(self, size: int) -> None:
        self._volume.resize(self._device, self._volume_key(), size)

    def _opened(self, resize_device: Callable[[int], None]) -> image_resize.Opened:
        settings = volume_settings(self._image.effective)
        return image_resize.Opened(
            self._image,
            self.top,
            self.is_ours,
            lambda file: luks_image.find_part(
                file, self._image.path, settings, inner.label_of(self._image)
            ),
            lambda: luks_devices.open_below(self._device),
            self._volume.data_offset,
            resize_device,
        )

    def keep(self) -> None:
        """The home is in use from now on; its key is kept for what gives it another size."""
        super().keep()
        if self._key is not None:
            luks_keys.keep(self._device, self._key)

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

    def tidy(self) -> None:
        """Give back what is deleted in it, unless its user wants to keep the room."""
        if volume_settings(self._image.effective).offline_discard:
            image_space.give_back(self.top.fd, self._image.path)

    @cached_property
    def _volume(self) -> Volume:
        """Its header; opened once, as two would not know of each other's changes."""
        return self.held.enter_context(Volume.of_active(self._device))

    def _volume_key(self) -> bytearray:
        if self._key is None:
            self._key = luks_volume.unlock(self._volume, self._words, self._image)
        return self._key

    def close(self) -> None:
        """Let go of all of it, and forget the key."""
        # The file system first: as long as its top is open it has the device in use.
        self.top.close()
        self.held.close()
        if self._key is not None:
            wipe(self._key)
        super().close()
