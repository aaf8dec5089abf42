"""How the size of a home follows what there is: what its record says, how it stands. Pure.

Fields and defaults are those of systemd-homed 262, which has them for `luks` alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, cast

from homemgr.record.names import is_device

if TYPE_CHECKING:
    from homemgr.record.effective import EffectiveRecord

#: Homes that have a size of their own, which can follow something.
_IN_IMAGES: Final = ("luks", "image")
#: And of these the one that does so without being told to.
_FOLLOWING: Final = "luks"
_OFF, _BOTH = "off", "shrink-and-grow"


class Sizing(NamedTuple):
    """How large a home shall be, as nobody says it each time."""

    #: Bytes that it grows to after a login if it has less; None: it stays as it is.
    grows_to: int | None
    #: Its share where free space is shared out; 0: it takes no part.
    weight: int
    #: Whether it gets as small as it can be after a logout, and something has it grow again.
    shrinks: bool = False


class Standing(NamedTuple):
    """How a home stands on the disk below it; sizes in bytes. What a worker tells as JSON."""

    #: What its file system makes use of, with all around that; and what of it is not free.
    size: int
    used: int
    #: What its file system needs.
    least: int
    #: What it takes of the disk, which is less than its size if nothing was reserved for it.
    held: int
    #: What is free on the disk beside it, and which disk that is, as in stat(2).
    free: int
    disk: int
    #: Whether it gets smaller, too, while somebody uses it, and others have something of that.
    shrinks: bool


def sizing_of(effective: EffectiveRecord) -> Sizing:
    """What counts on this machine."""
    if effective.storage not in _IN_IMAGES:
        return Sizing(None, 0)
    mode = effective.get("autoResizeMode")
    if mode is None:
        mode = _BOTH if effective.storage == _FOLLOWING else _OFF
    weight = cast("int", effective.get("rebalanceWeight"))
    if not effective.is_set("rebalanceWeight") and has_chosen_size(effective):
        # Clients switch the one off where they set the other, as who names a size wants that one.
        weight = 0
    goal = None if mode == _OFF else effective.disk_size
    shrinks = mode == _BOTH and (goal is not None or weight > 0) and not _has_own_disk(effective)
    return Sizing(goal, weight, shrinks)


def _has_own_disk(effective: EffectiveRecord) -> bool:
    """Whether nobody else has something of the room; and who logged out may pull it out at once."""
    return is_device(effective.image_path or "")


def has_chosen_size(effective: EffectiveRecord) -> bool:
    """Whether somebody said how large the home may be."""
    return effective.is_set("diskSize") or effective.is_set("diskSizeRelative")
