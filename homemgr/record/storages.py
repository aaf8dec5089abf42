"""What homes of each storage can do, whatever file system they lie on. A pure table.

The storages themselves are in ``storage.kinds``; faces and daemon decide by this.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Abilities(NamedTuple):
    """What homes of one storage can do."""

    #: Nothing can be read in it but with one of its passwords: the key is in memory while
    #: it is in use, and has to be taken out of it afterwards.
    has_key: bool = False
    #: That key can be taken out of memory while the home stays mounted.
    can_lock: bool = False


#: Of the storages that there are, by the name in user records.
ABILITIES: Final = {
    "directory": Abilities(),
    "subvolume": Abilities(),
    "fscrypt": Abilities(has_key=True, can_lock=True),
    "luks": Abilities(has_key=True, can_lock=True),
}


def abilities_of(storage: str | None) -> Abilities:
    """What homes of ``storage`` can do; of one that is not known here, nothing."""
    return ABILITIES.get(storage or "directory", Abilities())
