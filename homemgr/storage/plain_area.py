"""A home in a plain image that is open, and the record beside its file system."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from homemgr.errors import HomeError
from homemgr.record.model import UserRecord
from homemgr.storage import embedded, image_resize
from homemgr.storage.kind import Area

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import ExitStack

    from homemgr.record.jsontext import JsonObject
    from homemgr.record.sizing import Standing
    from homemgr.storage.kind import Image
    from homemgr.storage.plain_record import RecordArea
    from homemgr.storage.top import Top


class PlainArea(Area):
    """An open home."""

    def __init__(self, top: Top, record: RecordArea | None, held: ExitStack) -> None:
        """``held`` is let go of in any case, whether or not the home stays in use."""
        super().__init__(top)
        self.held = held
        #: Of its binding.
        self.found: JsonObject = {}
        #: What a resize has to know; set by who opened it.
        self.resizing: image_resize.Opened | None = None
        self._record = record

    def undo(self, closing: Callable[[Image], bool], image: Image) -> None:
        """Call this when the home is closed without having come into use."""
        self._closing.callback(closing, image)

    def settle(self) -> None:
        """Finish what a kill between the two copies of the record left half-done."""
        if self._record is None:
            return
        # One that is missing or no record was not left so by us: its reader decides about it.
        with suppress(HomeError):
            inside, beside = embedded.read_identity(self.top), self._record.read()
            if inside and beside and _stamp(beside) > _stamp(inside):
                embedded.write_identity(self.top, beside)

    def write_record(self, identity: bytes) -> None:
        """Write the copy beside the file system first: by that one passwords are judged."""
        before = None if self._record is None else self._record.read()
        if self._record is not None:
            self._record.write(identity)
        try:
            embedded.write_identity(self.top, identity)
        # A newer one beside would be taken for what a kill left, and be written inside next time.
        except BaseException:
            if self._record is not None and before is not None:
                self._record.write(before)
            raise

    def resize(self, wanted: int) -> int | None:
        """Resize image and file system, under whoever uses them."""
        assert self.resizing is not None
        return image_resize.resize(self.resizing, wanted)

    def standing(self) -> Standing:
        """How image and file system stand now."""
        assert self.resizing is not None
        return image_resize.standing(self.resizing)

    def binding(self) -> JsonObject:
        """What the table says of the partition, and the file system of itself."""
        return self.found

    def close(self) -> None:
        """Let go of all of it."""
        self.top.close()
        self.held.close()
        super().close()


def _stamp(text: bytes) -> int:
    """When the record was changed last. Raises InvalidRecord if it is none."""
    return UserRecord.parse(text).last_change_usec or 0
