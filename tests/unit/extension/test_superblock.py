"""File systems are told by their magic numbers, and by nothing else."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from homemgr.extension.superblock import Superblock, identify
from tests.disk_images import GENERIC, Part, gpt_image


def of(image: bytes) -> Superblock:
    return identify(lambda offset, length: image[offset : offset + length])


def put(*pieces: tuple[int, bytes], size: int = 16384) -> bytes:
    image = bytearray(size)
    for offset, content in pieces:
        image[offset : offset + len(content)] = content
    return bytes(image)


EROFS = (1024, struct.pack("<I", 0xE0F5E1E2)), (1036, b"\x0c"), (1060, struct.pack("<I", 3))
SQUASHFS = (0, b"hsqs"), (40, struct.pack("<Q", 4711))
EXT4 = (1080, struct.pack("<H", 0xEF53)), (1028, struct.pack("<I", 16)), (1048, b"\2\0\0\0")


@pytest.mark.parametrize(
    ("image", "found"),
    [
        (put(*EROFS), Superblock("erofs", 3 * 4096)),
        (put(*SQUASHFS), Superblock("squashfs", 4711)),
        (put(*EXT4), Superblock("ext4", 16 * 4096)),
        (gpt_image([Part(GENERIC, b"")]), Superblock("gpt", 0)),
        (gpt_image([Part(GENERIC, b"")], 4096), Superblock("gpt", 0)),
        # Two bytes of a compressed file may be the magic of ext4 by chance.
        (put(*SQUASHFS, EXT4[0]), Superblock("squashfs", 4711)),
        # Cut off right behind what is needed.
        (put(*EROFS, size=1100), Superblock("erofs", 3 * 4096)),
    ],
)
def test_known_file_systems(image: bytes, found: Superblock) -> None:
    assert of(image) == found


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (b"", "none of erofs, squashfs, ext4 and a GPT"),
        (b"text\n", "none of"),
        (put((0, b"XFSB")), "it is xfs"),
        (put((0x10040, b"_BHRfS_M"), size=0x11000), "it is btrfs"),
        (put((0, b"LUKS\xba\xbe")), "it is LUKS"),
        (put(*EROFS, *SQUASHFS), "can be read as erofs and as squashfs"),
    ],
)
def test_anything_else_is_named(image: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        of(image)


@given(st.sampled_from([EROFS, SQUASHFS, EXT4, ()]), st.integers(0, 2000), st.binary())
def test_garbage_is_refused_or_named(
    pieces: tuple[tuple[int, bytes], ...], offset: int, garbage: bytes
) -> None:
    try:
        found = of(put(*pieces, (offset, garbage)))
    except ValueError:
        return
    assert found.kind in ("erofs", "squashfs", "ext4", "gpt")
    assert found.bytes_claimed >= 0
