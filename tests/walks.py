"""Which ways homes are proven to go from one storage to another, and which no home can go.

A test of conversions walks along each of these, with a login and a look at all of the home at each
stop. tests/unit/daemon/test_conversion_pairs.py sees to it that no way is forgotten, neither
between storages that there are nor between those that there will be.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

#: As a storage of its own in here: luks that is not in a file.
DEVICE = "device"


class Stop(NamedTuple):
    """What a home becomes, and the file system in it if that is in an image."""

    kind: str
    file_system: str = ""

    @property
    def storage(self) -> str:
        """As the product calls it."""
        return "luks" if self.kind == DEVICE else self.kind


#: What one disk can have, each with each; by its file system (tests/world/test_convert.py).
ON_ONE_DISK = {
    "ext4": ("directory", "fscrypt", "image", "directory", "image", "fscrypt", "directory"),
    "btrfs": ("directory", "subvolume", "image", "directory", "image", "subvolume", "directory"),
}

#: From one disk to another (tests/service/test_convert.py): what no disk can have together, and
#: what remains what it is.
BETWEEN_DISKS = (
    "directory",
    "directory",
    "fscrypt",
    "fscrypt",
    "subvolume",
    "subvolume",
    "fscrypt",
    "image",
    "image",
)

#: All ways from and to encrypted images and devices, with each file system inside of each
#: (tests/service/luks/test_convert_crypt.py).
ENCRYPTED = (
    Stop("directory"),
    Stop("luks", "ext4"),
    Stop("device", "xfs"),
    Stop("device", "btrfs"),
    Stop("directory"),
    Stop("device", "ext4"),
    Stop("subvolume"),
    Stop("device", "btrfs"),
    Stop("image", "xfs"),
    Stop("device", "ext4"),
    Stop("luks", "xfs"),
    Stop("image", "btrfs"),
    Stop("luks", "btrfs"),
    Stop("subvolume"),
    Stop("luks", "xfs"),
    Stop("directory"),
)

#: No kernel of a guest is quick and encrypts directories too: on the slow one it is as little as
#: what no other can.
SLOW = (
    Stop("luks", "ext4"),
    Stop("fscrypt"),
    Stop("device", "ext4"),
    Stop("fscrypt"),
    Stop("luks", "ext4"),
)

#: What a home on a file server becomes, to which it goes back in between
#: (tests/service/cifs/test_convert_server.py), and what it becomes on the slow kernel.
FROM_A_SERVER = ("directory", "image", "subvolume", "luks", DEVICE)
SLOW_FROM_A_SERVER = ("fscrypt",)

#: To another disk, both open at once (tests/service/luks/test_convert_crypt.py).
ELSEWHERE = (("luks", "luks"),)


def pairs() -> set[tuple[str, str]]:
    """All ways that are gone."""
    plain = (*ON_ONE_DISK.values(), BETWEEN_DISKS)
    walks = [*plain, *([stop.kind for stop in walk] for walk in (ENCRYPTED, SLOW))]
    gone = {pair for walk in walks for pair in pairwise(walk)}
    return gone | {("cifs", kind) for kind in (*FROM_A_SERVER, *SLOW_FROM_A_SERVER)} | {*ELSEWHERE}
