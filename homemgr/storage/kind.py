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
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from homemgr.errors import NotSupported
from homemgr.storage import embedded, limits
from homemgr.storage import top as tops

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from homemgr.files import Fd
    from homemgr.record.effective import EffectiveRecord
    from homemgr.record.jsontext import JsonObject
    from homemgr.record.sizing import Standing
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
    judge: Callable[[bytes | None], object] = _take_any
    #: What its device is called where such have names, while it is none that anybody uses; else
    #: after its user.
    device: str = ""
    #: All of it is about to be read, and everything about each file has to be right from the first.
    is_copied: bool = False


class Working(Protocol):
    """Holds a processor while a key is made of a word.

    The process is killed if that takes more than ``seconds`` of its time, by default enough for
    one check of a password; it may take ``memory`` more bytes than usual meanwhile. With
    ``beside`` a thread may do what will be asked for next: the block lets others run, and locks
    no memory. It gets a function for other threads that tells, when that is done, whether a word
    may be right: False only if it is known to be wrong.
    """

    def __call__(
        self, seconds: float = ..., memory: int = ..., *, beside: bool = ...
    ) -> AbstractContextManager[Callable[[str], bool]]:
        """Hold it inside the block."""


def _at_leisure(
    seconds: float = 0, memory: int = 0, *, beside: bool = False
) -> AbstractContextManager[Callable[[str], bool]]:
    """Hold nothing, limit nothing, and know nothing."""
    return nullcontext(lambda _word: True)


class Words(NamedTuple):
    """What may unlock a home: the likeliest first. Never shown, never kept."""

    words: tuple[str, ...] = ()
    #: Held while a processor is kept busy with making a key of a word.
    working: Working = _at_leisure
    #: Those of them that were made of so much chance that nobody guesses them, stretched or not.
    random: frozenset[str] = frozenset()
    #: Whether a word is right by what is known of the home without opening it; None if nothing is.
    fits: Callable[[str], bool] | None = None

    def __repr__(self) -> str:
        """Stars, whatever it holds."""
        return "<Words ***>"


class Content(NamedTuple):
    """What a new home holds in the beginning."""

    access_mode: int
    skeleton: str | None
    identity: bytes
    blobs: Mapping[str, int]
    #: How many files and directories come after that, where it is known: there has to be room.
    entries: int = 0

    @property
    def first(self) -> dict[str, Any]:
        """What is put into the new directory, see `directory.populate`."""
        return {name: value for name, value in self._asdict().items() if name != "entries"}


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

    def resize(self, wanted: int) -> int | None:
        """Have the home take ``wanted`` bytes at most, or a word of `sizes`; gives how many.

        None if that can be done by `Storage.resize_closed` only. Killed anywhere it has one of
        both sizes, or the same call once more goes on. Raises NotSupported; BadHomeSize if it
        cannot be that large or small, NoDiskSpace.
        """
        return limits.resize(self.top, wanted)

    def standing(self) -> Standing:
        """How it stands on the disk below it, if it has a size of its own; else NotSupported."""
        raise NotSupported(f"{self.top.image_path} has no size of its own.")

    def binding(self) -> JsonObject:
        """What was found about the image that belongs into a record's binding."""
        return {}

    def write_record(self, identity: bytes) -> None:
        """Replace the record in the home, and then copies of it outside its files."""
        embedded.write_identity(self.top, identity)
        self.note_record(identity)

    def note_record(self, identity: bytes) -> None:
        """Have copies of the record outside the files of the home follow the one inside."""

    def tidy(self) -> None:
        """Its user has logged out: what may be done for the disk. Never fails, nor takes long."""

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

    def open_used(self, image: Image) -> Area:
        """Open a home in use to read it, whatever else is at work on it; nothing is changed.

        No word is needed. Raises HomeNotActive if it is not open, or locked.
        """
        return self.open(image, Words(), is_active=True)

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

        Of a home on a server ``parent`` is where it will be shown. Each of ``words`` unlocks it.
        Returns what of the skeleton could not be copied.
        """

    def peek(self, image: Image) -> bytes | None:
        """The record of a home that is not in use, if it can be read without a word."""
        with self.open(image, Words(), is_active=False) as area:
            return embedded.read_identity(area.top)

    def binding(self, image: Image) -> JsonObject:
        """What a record's binding says of an image of this kind; needs no word."""
        return {}

    def close(self, image: Image) -> bool:
        """After the home was unmounted: take its key out of memory, and what holds its image.

        May be repeated. False if somebody still has files of it open, who can read those on.
        """
        return True

    def resize_closed(self, image: Image, words: Words, wanted: int) -> int:
        """What `Area.resize` cannot do to a home that is open; gives the new size in bytes."""
        raise NotSupported(f"{image.path} has no size of its own.")

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
