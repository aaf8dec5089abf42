"""Which file system, or partition table, begins an image, and how long it claims to be.

Pure: reads through a function, at the few places where the formats keep their magic
numbers. See the kernel's Documentation/filesystems/{erofs,squashfs,ext4}.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable

#: How much at the beginning holds all that is looked at: GPT with sectors of 4096 bytes.
HEAD_BYTES = 8192

_EROFS_MAGIC = 0xE0F5E1E2
_EXT_MAGIC = 0xEF53
_GPT_SIGNATURE = b"EFI PART"
_SECTOR_SIZES = (512, 4096)

#: What else people put into such files: (offset, magic, name), for the message only.
_OTHERS = (
    (0, b"XFSB", "xfs"),
    (0x10040, b"_BHRfS_M", "btrfs"),
    (0, b"LUKS\xba\xbe", "LUKS"),
    (0, b"verity\0\0", "dm-verity"),
    (0, b"QFI\xfb", "qcow2"),
    (0, b"\x1f\x8b", "gzip"),
    (0, b"\xfd7zXZ\0", "xz"),
    (0, b"\x28\xb5\x2f\xfd", "zstd"),
)


class Superblock(NamedTuple):
    """What an image begins with; ``bytes_claimed`` is 0 where the format does not say."""

    kind: str
    bytes_claimed: int


def identify(read: Callable[[int, int], bytes]) -> Superblock:
    """What ``read(offset, length)`` begins with; ValueError says what is there instead.

    ``read`` gives less than ``length`` bytes at the end.
    """
    head = read(0, HEAD_BYTES).ljust(HEAD_BYTES, b"\0")
    found = [s for s in (_erofs(head), _squashfs(head), _gpt(head)) if s]
    if not found and (ext := _ext4(head)):
        # Its magic is two bytes only: others may have them there by chance.
        found = [ext]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError("it can be read as " + " and as ".join(s.kind for s in found))
    raise ValueError(_other(read))


def _other(read: Callable[[int, int], bytes]) -> str:
    for offset, magic, name in _OTHERS:
        if read(offset, len(magic)) == magic:
            return f"it is {name}"
    return "it is none of erofs, squashfs, ext4 and a GPT disk image"


def _erofs(head: bytes) -> Superblock | None:
    (magic,) = struct.unpack_from("<I", head, 1024)
    if magic != _EROFS_MAGIC:
        return None
    block_bits, blocks = head[1024 + 12], *struct.unpack_from("<I", head, 1024 + 36)
    # The kernel takes 512 bytes to 64 KiB; anything else it refuses itself.
    return Superblock("erofs", blocks << block_bits if 9 <= block_bits <= 16 else 0)


def _squashfs(head: bytes) -> Superblock | None:
    if head[:4] != b"hsqs":
        return None
    (used,) = struct.unpack_from("<Q", head, 40)
    return Superblock("squashfs", used)


def _ext4(head: bytes) -> Superblock | None:
    (magic,) = struct.unpack_from("<H", head, 1024 + 56)
    if magic != _EXT_MAGIC:
        return None
    (blocks,) = struct.unpack_from("<I", head, 1024 + 4)
    (log_block_size,) = struct.unpack_from("<I", head, 1024 + 24)
    return Superblock("ext4", blocks << (10 + log_block_size) if log_block_size <= 6 else 0)


def _gpt(head: bytes) -> Superblock | None:
    if any(head[size : size + 8] == _GPT_SIGNATURE for size in _SECTOR_SIZES):
        return Superblock("gpt", 0)
    return None
