"""Which homes lie on partitions that are plugged in, by what udev says of them.

Names, paths and the order of precedence are those of systemd-homed 262: a partition offers a home
of the user it is called after, and who has the name already keeps it. Pure: knows no other home.
"""

from __future__ import annotations

import logging
import uuid
from typing import TYPE_CHECKING, Final

from homemgr import errors
from homemgr.daemon.discovery import Image
from homemgr.record import names

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

log = logging.getLogger(__name__)

#: Where udev links every file system by its UUID: a name that stays through pulling and plugging.
BY_UUID: Final = "/dev/disk/by-uuid"

#: Storage by what udev calls the content of a partition. A plain image is told by its name, which
#: a partition has not.
_STORAGES: Final = {"crypto_LUKS": "luks"}

#: More homes than this are not offered: one disk can have thousands of partitions.
MOST: Final = 64


class Sticks:
    """The partitions for homes of this moment, in the order in which they came."""

    def __init__(self) -> None:
        """Know of none."""
        self._images: dict[str, Image] = {}
        #: What was said of a partition already, so that it is said once.
        self._said: dict[str, str] = {}
        #: Paths whose partition went away since they were last asked for.
        self._pulled: set[str] = set()
        #: Paths whose partition is away. What programs still have open of it may have the same
        #: UUID, and with that the path.
        self._away: set[str] = set()
        #: Those for which there is no room, by their places.
        self._refused: dict[str, Image] = {}

    def __iter__(self) -> Iterator[Image]:
        """One image for each path."""
        return iter({image.path: image for image in self._images.values()}.values())

    def note(self, place: str, properties: Mapping[str, str] | None) -> bool:
        """What is now at a ``place`` in /sys; True if that is news about a home."""
        if properties is None:
            self._said.pop(place, None)
        self._refused.pop(place, None)
        image = None if properties is None else self._assess(place, properties)
        former = self._images.get(place)
        if image == former:
            return False
        if former is not None:
            del self._images[place]
            self._pulled.add(former.path)
            self._away.add(former.path)
        if image is None:
            self._let_in()
            return former is not None
        # Offered or not, it is there: its user may have had it before.
        was_away = image.path in self._away
        self._away.discard(image.path)
        if len(self._images) >= MOST:
            self._refused[place] = image
            self.say(place, f"{MOST} homes on partitions are offered already")
            return was_away
        self._images[place] = image
        return True

    def replace(self, found: Mapping[str, Mapping[str, str]]) -> None:
        """Take ``found`` for all that there is, after events were lost.

        Every partition that was known may have been away meanwhile.
        """
        self._pulled.update(image.path for image in self._images.values())
        for place in [*self._images, *self._said]:
            if place not in found:
                self.note(place, None)
        for place, properties in found.items():
            self.note(place, properties)

    def _let_in(self) -> None:
        """Offer who was refused, if there is room now."""
        while self._refused and len(self._images) < MOST:
            place = next(iter(self._refused))
            self._images[place] = self._refused.pop(place)
            self._away.discard(self._images[place].path)
            self._said.pop(place, None)

    def forget_but(self, known: Collection[str]) -> None:
        """Remember of the paths that went away only those that somebody will ask for."""
        self._away.intersection_update(known)

    def is_away(self, path: str) -> bool:
        """Whether this was the path of a partition that is not there any more."""
        return path in self._away and all(image.path != path for image in self._images.values())

    def take_pulled(self) -> set[str]:
        """Paths whose partition went away since this was asked last, though it may be back."""
        pulled, self._pulled = self._pulled, set()
        return pulled

    def _assess(self, place: str, properties: Mapping[str, str]) -> Image | None:
        try:
            return image_of(properties)
        except errors.HomeError as error:
            self.say(place, error.message)
            return None

    def ignore(self, image: Image, why: str) -> None:
        """Say, once, why the home in ``image`` is not offered."""
        for place, known in self._images.items():
            if known == image:
                self.say(place, why)

    def say(self, place: str, why: str) -> None:
        """Log why a partition is ignored, unless that is what was logged of it last."""
        if self._said.get(place) != why:
            self._said[place] = why
            log.warning("Ignoring the partition for homes at %s: %s", place, why)


def image_of(properties: Mapping[str, str]) -> Image:
    """The home in a partition for homes, by the properties that udev gives it.

    Raises InvalidArgs, UnrecognizedHomeFormat.
    """
    label = properties.get("ID_PART_ENTRY_NAME", "")
    user, realm = names.split_realm(label)
    # As strict as for a user who is made here: a stick may be called anything.
    names.check_new_name(user)
    if realm is not None and not names.is_realm(realm):
        raise errors.InvalidArgs(f"{realm[:64]!r} is no realm.")
    content = properties.get("ID_FS_TYPE", "")
    storage = _STORAGES.get(content)
    if storage is None:
        raise errors.UnrecognizedHomeFormat(
            f"The partition of {label} holds {content or 'nothing that udev knows'}; expected one"
            f" of {', '.join(_STORAGES)}."
        )
    return Image(_path_of(properties.get("ID_FS_UUID", "")), user, realm, None, storage)


def _path_of(text: str) -> str:
    try:
        is_plain = str(uuid.UUID(text)) == text
    except ValueError:
        is_plain = False
    if not is_plain:
        raise errors.UnrecognizedHomeFormat(f"{text[:64]!r} is no UUID in its usual form.")
    return f"{BY_UUID}/{text}"
