"""What homes of each storage can do, whatever file system they lie on. A pure table.

The storages themselves are in ``storage.kinds``; faces and daemon decide by this.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from homemgr.errors import InvalidArgs
from homemgr.record.fields import OWN_STORAGE, OWN_STORAGES
from homemgr.record.names import FILE_SUFFIXES, is_device, is_remote

if TYPE_CHECKING:
    from collections.abc import Mapping

    from homemgr.record.jsontext import Json, JsonObject


class Abilities(NamedTuple):
    """What homes of one storage can do."""

    #: Nothing can be read in it but with one of its passwords: the key is in memory while
    #: it is in use, and has to be taken out of it afterwards.
    has_key: bool = False
    #: That key can be taken out of memory while the home stays mounted.
    can_lock: bool = False
    #: The files are on a server: they have no path here, and nobody can see whether they are there.
    is_remote: bool = False


#: Of the storages that there are, by the name in user records.
ABILITIES: Final = {
    "directory": Abilities(),
    "subvolume": Abilities(),
    "fscrypt": Abilities(has_key=True, can_lock=True),
    "luks": Abilities(has_key=True, can_lock=True),
    "image": Abilities(),
    # The key is the password itself, which the server wants.
    "cifs": Abilities(has_key=True, is_remote=True),
}

#: What clients of systemd-homed are told of a storage that they have no name for: it is not
#: encrypted. systemd-homed itself passes over names that it does not know, and would then use what
#: it guesses; this one has it say that the image is no directory.
_STAND_IN: Final = "directory"


#: Homes that are trees of their file system, nothing more: open as they lie there.
_TREES: Final = frozenset({"directory", "subvolume"})


#: What directories of ours begin with, beside homes: see ``storage.rooms``, ``snapshot_shelf``.
_OURS: Final = (".#homemgr-", ".homemgr-snapshots")


def is_tree(storage: str | None) -> bool:
    """Whether the files of a home can be reached without it being opened first."""
    return (storage or "directory") in _TREES


def abilities_of(storage: str | None) -> Abilities:
    """What homes of ``storage`` can do; of one that is not known here, nothing."""
    return ABILITIES.get(storage or "directory", Abilities())


def members(storage: str) -> JsonObject:
    """The members of a binding that say how a home is stored, beside its ``imagePath``.

    A field of ours would make clients of systemd-homed warn of it each time; the name of the
    image says the same.
    """
    return {"storage": _STAND_IN if storage in OWN_STORAGES else storage}


def bound_to(storage: str, image_path: str) -> JsonObject:
    """The members of a binding that say how and where a home is stored.

    A home on a file server has no path here.
    """
    return {"imagePath": None if is_remote(image_path) else image_path, **members(storage)}


def check_path(storage: str, image_path: str) -> None:
    """Raise InvalidArgs if no home with ``storage`` can be at ``image_path``.

    On a device only what is told from all else by what is on it can be. Elsewhere the path has to
    say what `members` leaves unsaid, and must not be where this program keeps what it deletes in
    time.
    """
    if is_device(image_path) and storage != "luks":
        raise InvalidArgs(
            f"imagePath: only a home with storage luks can lie on a device, found {image_path!r}"
            f" for one with storage {storage}."
        )
    said = next((own for own in OWN_STORAGES if image_path.endswith(FILE_SUFFIXES[own])), None)
    if storage in OWN_STORAGES and said != storage:
        raise InvalidArgs(
            f"imagePath: the name of a home with storage {storage} has to end in"
            f" {FILE_SUFFIXES[storage]}, found {image_path!r}."
        )
    if said not in (None, storage):
        raise InvalidArgs(
            f"imagePath: {image_path!r} ends in {FILE_SUFFIXES[said]} as homes with storage {said}"
            f" do, and this one is to have storage {storage}."
        )
    *above, name = image_path.split("/")
    if name.startswith(".") or any(one.startswith(_OURS) for one in above):
        raise InvalidArgs(
            f"imagePath: no home can be at {image_path!r}: expected a name that does not begin"
            " with a dot, outside of the directories that homemgr keeps for itself."
        )


def named_in(section: Mapping[str, Json]) -> Json:
    """The storage that one section of a record names, whether or not there is such a one."""
    if section.get(OWN_STORAGE) in OWN_STORAGES:
        return section[OWN_STORAGE]
    storage, path = section.get("storage"), section.get("imagePath")
    if storage == _STAND_IN and isinstance(path, str):
        return next((own for own in OWN_STORAGES if path.endswith(FILE_SUFFIXES[own])), storage)
    return storage
