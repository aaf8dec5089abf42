"""The tree of digests beside a partition, as veritysetup(8) writes it, and who signed its root.

Pure. The tree begins with a superblock that says how it was made; nobody signed that, but
with anything else than the truth in it the kernel finds that no block fits the root hash.
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
from typing import NamedTuple

#: Of the superblock: signature, version, type, UUID, algorithm, sizes of data and hash
#: blocks, number of data blocks, size of the salt, the salt.
_SUPERBLOCK = "<8sII16s32sIIQH6x256s168x"
SUPERBLOCK_BYTES = struct.calcsize(_SUPERBLOCK)
_MAGIC = b"verity\0\0"
_VERSION = 1
#: With the salt before the data; the other one is of early Chromium OS.
_TYPE = 1

#: Digests that nobody can make to order, and their length. The superblock is not signed.
_ALGORITHMS = {"sha256": 32, "sha512": 64}

#: The kernel takes no larger blocks than its pages, the smallest of which have this size.
_BLOCKS = (512, 1024, 2048, 4096)
_SALT_LIMIT = 256

#: A signature partition is this long at most: the DDI specification speaks of 4 MiB.
SIGNATURE_LIMIT = 4 << 20


class Signed(NamedTuple):
    """A root hash, and the PKCS#7 signature of it."""

    root_hash: bytes
    signature: bytes

    @property
    def content(self) -> bytes:
        """What was signed: the root hash in hexadecimal."""
        return self.root_hash.hex().encode("ascii")


class Tree(NamedTuple):
    """How a tree of digests was made; sizes in bytes."""

    algorithm: str
    data_block: int
    hash_block: int
    data_blocks: int
    salt: bytes

    @property
    def data_size(self) -> int:
        """How much of the partition has digests."""
        return self.data_blocks * self.data_block

    @property
    def size(self) -> int:
        """The superblock's block and all levels of the tree."""
        per_block = self.hash_block // _power_of_two(_ALGORITHMS[self.algorithm])
        blocks, level = 1, self.data_blocks
        while level > 1:
            level = -(-level // per_block)
            blocks += level
        return blocks * self.hash_block

    def parameters(self, data: str, hashes: str, root_hash: bytes) -> str:
        """The table line of the kernel's target, for two devices "major:minor"."""
        salt = self.salt.hex() or "-"
        sizes = f"{self.data_block} {self.hash_block} {self.data_blocks}"
        # The first block of hashes comes after the one with the superblock.
        where = f"{_TYPE} {data} {hashes} {sizes} 1"
        return f"{where} {self.algorithm} {root_hash.hex()} {salt}"


def signed(raw: bytes) -> Signed:
    """What a signature partition holds; ValueError says what is wrong with it."""
    try:
        found = json.loads(raw.rstrip(b"\0"))
        root_hash = bytes.fromhex(found["rootHash"])
        signature = base64.b64decode(found["signature"], validate=True)
    except (ValueError, KeyError, TypeError, RecursionError, binascii.Error) as error:
        raise ValueError("its signature partition is malformed") from error
    if len(root_hash) not in _ALGORITHMS.values():
        raise ValueError(f"its root hash has {len(root_hash)} bytes, expected 32 or 64")
    return Signed(root_hash, signature)


def parse(raw: bytes, root_hash: bytes, data_size: int, hashes_size: int) -> Tree:
    """The tree that begins with ``raw``; ValueError if it cannot be that of such partitions."""
    if len(raw) < SUPERBLOCK_BYTES:
        raise ValueError("its partition of hashes is cut off")
    magic, version, kind, _, name, data_block, hash_block, blocks, salt_size, salt = struct.unpack(
        _SUPERBLOCK, raw[:SUPERBLOCK_BYTES]
    )
    algorithm = name.partition(b"\0")[0].decode("ascii", "replace")
    if (magic, version, kind) != (_MAGIC, _VERSION, _TYPE):
        raise ValueError("its partition of hashes does not begin as that of dm-verity")
    if _ALGORITHMS.get(algorithm) != len(root_hash):
        raise ValueError(
            f"its hashes are {algorithm!r}, expected {' or '.join(_ALGORITHMS)} as its root hash"
        )
    if not {data_block, hash_block} <= set(_BLOCKS) or salt_size > _SALT_LIMIT or not blocks:
        raise ValueError("its partition of hashes has impossible sizes")
    tree = Tree(algorithm, data_block, hash_block, blocks, salt[:salt_size])
    for what, is_there, claimed in (
        ("partition", data_size, tree.data_size),
        ("partition of hashes", hashes_size, tree.size),
    ):
        if claimed > is_there:
            raise ValueError(f"its {what} is cut off: of {claimed} bytes {is_there} are there")
    return tree


def _power_of_two(number: int) -> int:
    return 1 << (number - 1).bit_length()
