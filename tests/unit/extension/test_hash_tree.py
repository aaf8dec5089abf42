"""Trees of digests: parameters for the kernel, and nothing that could mislead it."""

from __future__ import annotations

import json
import struct
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from homemgr.extension import hash_tree, partition_types
from homemgr.volume.gpt import Partition
from tests.disk_images import (
    GENERIC,
    ROOT_SIGNATURE_X86_64,
    ROOT_VERITY_X86_64,
    ROOT_X86_64,
    USR_SIGNATURE_X86_64,
    USR_VERITY_X86_64,
    USR_X86_64,
)
from tests.signed_images import BLOCK, Maker, signature_part
from tests.signed_images import hash_tree as tree_of

MAKER = Maker.new("maker")
DATA = bytes(range(256)) * 16 * 300
TREE = tree_of(DATA)


def parsed(content: bytes = TREE.content, root_hash: bytes = TREE.root_hash) -> hash_tree.Tree:
    return hash_tree.parse(content, root_hash, len(DATA), len(TREE.content))


def test_the_kernel_is_told_what_the_superblock_says() -> None:
    found = parsed()
    assert found.data_size == len(DATA)
    salt, root_hash = "17" * 32, TREE.root_hash.hex()
    assert found.parameters("7:1", "7:2", TREE.root_hash) == (
        f"1 7:1 7:2 4096 4096 300 1 sha256 {root_hash} {salt}"
    )
    unsalted = tree_of(DATA, salt=b"")
    line = parsed(unsalted.content, unsalted.root_hash).parameters("7:1", "7:2", b"\xab" * 32)
    assert line.endswith(f" sha256 {'ab' * 32} -")


@pytest.mark.parametrize("blocks", [1, 2, 127, 128, 129, 16385])
@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_its_size_is_that_of_its_levels(blocks: int, algorithm: str) -> None:
    data = bytes(blocks * 512)
    tree = tree_of(data, algorithm, block=512)
    found = hash_tree.parse(tree.content, tree.root_hash, len(data), len(tree.content))
    # One block of data has its own digest for root; the one written for it is not needed.
    assert found.size == (512 if blocks == 1 else len(tree.content))


def test_a_cut_off_image_is_noticed() -> None:
    with pytest.raises(ValueError, match=r"its partition is cut off: of 1228800 bytes 1228799"):
        hash_tree.parse(TREE.content, TREE.root_hash, len(DATA) - 1, len(TREE.content))
    with pytest.raises(
        ValueError, match="its partition of hashes is cut off: of 20480 bytes 20479"
    ):
        hash_tree.parse(TREE.content, TREE.root_hash, len(DATA), len(TREE.content) - 1)
    with pytest.raises(ValueError, match="its partition of hashes is cut off"):
        hash_tree.parse(TREE.content[:511], TREE.root_hash, len(DATA), len(TREE.content))


@pytest.mark.parametrize(
    ("offset", "new", "reason"),
    [
        (0, b"verity\0\1", "does not begin"),
        (8, struct.pack("<I", 2), "does not begin"),
        (12, struct.pack("<I", 0), "does not begin"),
        (32, b"crc32c\0", "its hashes are 'crc32c'"),
        (32, b"md5\0", "its hashes are 'md5'"),
        (32, b"sha512\0", "its hashes are 'sha512'"),
        (32, b"\xff\xff", "its hashes are"),
        (64, struct.pack("<I", 0), "impossible sizes"),
        (64, struct.pack("<I", 8192), "impossible sizes"),
        (68, struct.pack("<I", 4095), "impossible sizes"),
        (72, struct.pack("<Q", 0), "impossible sizes"),
        (72, struct.pack("<Q", 2**64 - 1), "is cut off"),
        (80, struct.pack("<H", 257), "impossible sizes"),
    ],
)
def test_what_the_kernel_should_not_see_is_refused(offset: int, new: bytes, reason: str) -> None:
    changed = TREE.content[:offset] + new + TREE.content[offset + len(new) :]
    with pytest.raises(ValueError, match=reason):
        parsed(changed)


@settings(max_examples=300)
@given(st.binary(min_size=504, max_size=504))
def test_no_superblock_speaks_of_more_than_there_is(rest: bytes) -> None:
    try:
        found = hash_tree.parse(b"verity\0\0" + rest, bytes(32), len(DATA), len(TREE.content))
    except ValueError:
        return
    assert found.data_size <= len(DATA)
    assert found.size <= len(TREE.content)


def test_a_signature_partition_is_read() -> None:
    raw = signature_part(TREE.root_hash, MAKER)
    found = hash_tree.signed(raw)
    assert found.root_hash == TREE.root_hash
    assert found.content == TREE.root_hash.hex().encode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "[" * 100_000,
        "{}",
        '{"rootHash": 1, "signature": ""}',
        '{"rootHash": "zz", "signature": ""}',
        json.dumps({"rootHash": "00" * 32, "signature": None}),
        json.dumps({"rootHash": "00" * 32, "signature": "?"}),
    ],
)
def test_a_malformed_signature_partition_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="its signature partition is malformed"):
        hash_tree.signed(text.encode())


def test_a_short_root_hash_is_refused() -> None:
    # 16 bytes of it would be enough for the names of partitions, but not for safety.
    with pytest.raises(ValueError, match="16 bytes, expected 32 or 64"):
        hash_tree.signed(json.dumps({"rootHash": "00" * 16, "signature": ""}).encode())


# --- which partitions ---------------------------------------------------------------


def of(*types: str) -> list[Partition]:
    return [Partition(t, str(n), n * BLOCK, BLOCK, "") for n, t in enumerate(types)]


ROOT = of(ROOT_X86_64, ROOT_VERITY_X86_64, ROOT_SIGNATURE_X86_64)
USR = of(GENERIC, GENERIC, GENERIC, USR_X86_64, USR_VERITY_X86_64, USR_SIGNATURE_X86_64)[3:]


def test_root_counts_before_usr() -> None:
    where = partition_types.signature([*USR, *ROOT], "x86-64")
    assert where == ROOT[2]
    found = partition_types.sealed([*USR, *ROOT], where, "x86-64", TREE.root_hash)
    assert found == (ROOT[0], ROOT[1])
    where = partition_types.signature([*USR, *ROOT[:2]], "x86-64")
    found = partition_types.sealed([*USR, *ROOT[:2]], where, "x86-64", TREE.root_hash)
    assert found == (USR[0], USR[1])


def test_of_several_the_ones_named_by_the_root_hash_are_taken() -> None:
    named = [
        ROOT[0]._replace(guid=str(uuid.UUID(bytes=TREE.root_hash[:16])), start=90 * BLOCK),
        ROOT[1]._replace(guid=str(uuid.UUID(bytes=TREE.root_hash[-16:])), start=91 * BLOCK),
    ]
    found = partition_types.sealed([*ROOT, *named], ROOT[2], "x86-64", TREE.root_hash)
    assert list(found) == named


def test_what_is_missing_is_said() -> None:
    with pytest.raises(ValueError, match="no signature for arm64"):
        partition_types.signature(ROOT, "arm64")
    with pytest.raises(ValueError, match="not the hashes of it"):
        partition_types.sealed([ROOT[0], ROOT[2]], ROOT[2], "x86-64", TREE.root_hash)
    with pytest.raises(ValueError, match="not the data of it"):
        partition_types.sealed(ROOT[1:], ROOT[2], "x86-64", TREE.root_hash)
