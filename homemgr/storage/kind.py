"""What a storage is to those who use it: `Storage`, and `Area`, a home that is open.

A home is opened from its image with what unlocks it, gives its top directory, and is closed
again as it was found, unless `Area.keep` says that it is in use from now on. Then somebody
has to `Storage.close` it after it was unmounted, and whoever starts does so with what
others left open. Knows no verb and mounts nothing anywhere.
"""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import TYPE_CHECKING, NamedTuple

from homemgr.errors import NotSupported
from homemgr.storage import top as tops

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from homemgr.files import Fd
    from homemgr.record.effective import EffectiveRecord
    from homemgr.record.jsontext import JsonObject
    from homemgr.storage.idmapping import IdMapping
    from homemgr.storage.top import Top

log = logging.getLogger(__name__)


def _take_any(_identity: bytes | None) -> None:
    """Judge no record."""


class Image(NamedTuple):
    """Where a home lies on disk, and what the host copy of its record says about how."""

    path: str
    effective: EffectiveRecord
    #: Gets the record that can be read before anything is mounted, or None if it is not there;
    #: raises if what else is in the image is not to be touched.
    judge: Callable[[bytes | None], None] = _take_any


class Words(NamedTuple):
    """What may unlock a home: the likeliest first. Never shown, never kept."""

    words: tuple[str, ...] = ()
    #: Held while a processor is kept busy with making a key of a word.
    working: Callable[[], AbstractContextManager[None]] = nullcontext

    def __repr__(self) -> str:
        """Stars, whatever it holds."""
        return "<Words ***>"


class Content(NamedTuple):
    """What a new home holds in the beginning."""

    access_mode: int
    skeleton: str | None
    identity: bytes
    blobs: Mapping[str, int]


class Area:
    """A home that is open for one piece of work; owns all of that until `close`."""

    def __init__(self, top: Top) -> None:
        """Own ``top``; what is opened besides is closed after it, by ``_closing``."""
        self.top = top
        self._closing = ExitStack()

    def attach(self, mapping: IdMapping, *, nosuid: bool, nodev: bool, noexec: bool) -> Fd:
        """A detached mount of the home that shows its ids as ``mapping`` says."""
        return tops.attach(self.top, mapping, nosuid=nosuid, nodev=nodev, noexec=noexec)

    def keep(self) -> None:
        """The home is in use from now on: what was opened for it stays open."""
        self._closing = ExitStack()

    @contextmanager
    def rekeying(
        self, words: Words, identity: bytes | None, dropped: Words | None = None
    ) -> Iterator[None]:
        """Have exactly ``words`` unlock the home from when ``identity`` is its record.

        The block writes that; killed anywhere, the words of the record that is there then
        unlock it. Without ``identity`` the words are added. With ``dropped`` all that
        unlocked it before goes on to, but those. Here the record alone decides.
        """
        yield

    def binding(self) -> JsonObject:
        """What was found about the image that belongs into a record's binding."""
        return {}

    def note_record(self, identity: bytes) -> None:
        """Have copies of the record outside the files of the home follow the one inside."""

    def close(self) -> None:
        """Let go of the home and leave it as it was found, or in use; once is enough."""
        self.top.close()
        closing = self._closing.pop_all()
        closing.close()

    def __enter__(self) -> Area:
        """Own until the end of the block."""
        return self

    def __exit__(self, *_: object) -> None:
        """Let go, whatever happened."""
        self.close()


class Storage(ABC):
    """One way for a home to lie on disk. Keeps no state: the disk and the kernel do."""

    @abstractmethod
    def open(self, image: Image, words: Words, *, is_active: bool) -> Area:
        """Open the home as it lies on disk.

        Of one that ``is_active``, or was until now, no word is needed, unless it was locked.
        Raises HomeAbsent, HostileHome; BadPassword if no word unlocks it.
        """

    #: Whether the image is a file of root's, and no directory of nobody's.
    image_is_file = False
    #: Whether the way to the files goes when the home is unmounted: what is to be done in
    #: it after that needs it open from before.
    goes_with_mount = False

    @abstractmethod
    def create(
        self, image: Image, parent: Fd, file_name: str, content: Content, words: Words
    ) -> list[str]:
        """Make a new home in ``parent``, complete and durable or not at all, closed.

        Each of ``words`` unlocks it. Returns what of the skeleton could not be copied.
        """

    def binding(self, image: Image) -> JsonObject:
        """What a record's binding says of an image of this kind; needs no word."""
        return {}

    def close(self, image: Image) -> bool:
        """After the home was unmounted: take its key out of memory, and what holds its image.

        May be repeated. False if somebody still has files of it open, who can read those on.
        """
        return True

    def lock(self, image: Image) -> None:
        """Take the key of a mounted home out of memory; `open` with a word and `keep` unlock it.

        Nothing more can be opened in it then. Raises NotSupported.
        """
        raise NotSupported(f"{image.path} has no key that could be taken out of memory.")

    def is_locked(self, image: Image) -> bool:
        """Whether `lock` took the key of this mounted home out of memory."""
        return False

    @abstractmethod
    def set_aside(self, parent: Fd, file_name: str) -> None:
        """Make the home no home any more, durably; killed after it, `sweep` deletes it."""

    @abstractmethod
    def delete_aside(self, parent: Fd, file_name: str) -> None:
        """Delete what was set aside under this name."""

    def sweep(self, parent: Fd) -> Sequence[str]:
        """Delete what killed operations left of homes of this kind alone; names of removed ones."""
        return ()
