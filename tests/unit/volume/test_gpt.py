"""The partition table: read what is right, refuse everything else with a reason."""

from __future__ import annotations

import json
import struct
import subprocess
import uuid
import zlib
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from homemgr.extension import partition_types
from homemgr.volume import gpt
from tests.disk_images import (
    GENERIC,
    ROOT_ARM64,
    ROOT_SIGNATURE_X86_64,
    ROOT_X86_64,
    USR_X86_64,
    Part,
    gpt_image,
)

if TYPE_CHECKING:
    from pathlib import Path

ONE = gpt_image([Part(ROOT_X86_64, b"content", "root")])


def parse(image: bytes) -> list[gpt.Partition]:
    return gpt.partitions(lambda offset, length: image[offset : offset + length], len(image))


def changed(image: bytes, offset: int, content: bytes) -> bytes:
    return image[:offset] + content + image[offset + len(content) :]


@pytest.mark.parametrize("sector", [512, 4096])
def test_partitions_are_found_where_they_are(sector: int) -> None:
    image = gpt_image([Part(ROOT_X86_64, b"one", "root"), Part(GENERIC, b"two", "Ω")], sector)
    first, second = parse(image)
    assert (first.type_guid, first.name, first.size) == (ROOT_X86_64, "root", sector)
    assert (second.type_guid, second.name) == (GENERIC, "Ω")
    for partition, content in ((first, b"one"), (second, b"two")):
        assert image[partition.start :].startswith(content)


def test_a_table_made_by_others_is_read(tmp_path: Path) -> None:
    image = tmp_path / "disk"
    image.write_bytes(bytes(4 << 20))
    script = (
        "label: gpt\nunit: sectors\n"
        f"start=2048, size=2048, type={ROOT_X86_64}\nstart=4096, size=2048, type={GENERIC}\n"
    )
    argv = ["sfdisk", "--quiet", str(image)]
    subprocess.run(argv, input=script.encode(), check=True, capture_output=True)
    found = parse(image.read_bytes())
    assert [(p.type_guid, p.start, p.size) for p in found] == [
        (ROOT_X86_64, 1 << 20, 1 << 20),
        (GENERIC, 2 << 20, 1 << 20),
    ]


def test_a_table_without_partitions_is_one() -> None:
    assert parse(gpt_image([])) == []


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (b"", "no partition table"),
        (bytes(8192), "no partition table"),
        (ONE[:-1], "backup copy of its partition table is missing"),
        (ONE[: len(ONE) // 2], "backup copy of its partition table is missing"),
        (changed(ONE, 512 + 24, b"\7"), "first copy of its partition table is damaged"),
        (changed(ONE, len(ONE) - 512 + 24, b"\7"), "backup copy .* is damaged"),
        (changed(ONE, 1024, b"\7"), "entries in the first copy .* are damaged"),
        (changed(ONE, len(ONE) - 512 - 128 * 128, b"\7"), "entries in the backup copy"),
        (changed(ONE, 512 + 8, struct.pack("<I", 7)), "unknown kind"),
        (changed(ONE, 512 + 12, struct.pack("<I", 513)), "unknown kind"),
    ],
)
def test_damage_is_named(image: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse(image)


def with_entries(entries: bytes, first: int = 34, last: int = 99) -> bytes:
    """A disk whose two copies agree on these entries, whatever they say."""
    entries = entries.ljust(128 * 128, b"\0")
    crc = zlib.crc32(entries)

    def header(lba: int, other: int, table: int) -> bytes:
        values = (0, lba, other, first, last, bytes(16), table, 128, 128, crc)
        raw = struct.pack("<8sIIIIQQQQ16sQIII", b"EFI PART", 0x10000, 92, 0, *values)
        return (raw[:16] + struct.pack("<I", zlib.crc32(raw)) + raw[20:]).ljust(512, b"\0")

    body = bytes(66 * 512)
    return bytes(512) + header(1, 132, 2) + entries + body + entries + header(132, 1, 100)


def entry(first: int, last: int) -> bytes:
    return struct.pack("<16s16sQQQ72s", b"t" * 16, b"g" * 16, first, last, 0, b"")


@pytest.mark.parametrize(
    ("entries", "reason"),
    [
        (entry(33, 50), "outside the space"),
        (entry(50, 49), "outside the space"),
        (entry(50, 2**64 - 1), "outside the space"),
        (entry(34, 50) + entry(50, 60), "overlaps"),
        (entry(34, 99) + entry(40, 41), "overlaps"),
    ],
)
def test_impossible_places_are_refused(entries: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse(with_entries(entries))


def test_a_partition_beyond_the_image_is_refused() -> None:
    with pytest.raises(ValueError, match="after the end of the image"):
        parse(with_entries(entry(34, 2**40), last=2**41))


@settings(max_examples=200)
@given(st.binary(max_size=2000))
def test_anything_at_all_is_refused_or_read(image: bytes) -> None:
    with pytest.raises(ValueError):
        parse(image)


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(0, len(ONE) - 1), st.binary(min_size=1, max_size=9))))
def test_a_changed_disk_is_never_read_differently(changes: list[tuple[int, bytes]]) -> None:
    image = ONE
    for offset, content in changes:
        image = changed(image, offset, content)[: len(ONE)]
    try:
        found = parse(image)
    except ValueError:
        return
    # Only what is in no table may have changed.
    assert found == parse(ONE)


@settings(max_examples=200)
@given(st.binary(max_size=512), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_hostile_entries_with_right_sums_stay_inside(raw: bytes, first: int, last: int) -> None:
    image = with_entries(raw, first, last)
    try:
        found = parse(image)
    except ValueError:
        return
    assert all(0 <= p.start < p.start + p.size <= len(image) for p in found)


def of(*types: str) -> list[gpt.Partition]:
    return [gpt.Partition(t, "", n * 512, 512, "") for n, t in enumerate(types)]


def test_the_partition_for_this_architecture_is_taken() -> None:
    both = of(GENERIC, ROOT_ARM64, USR_X86_64, ROOT_X86_64)
    assert partition_types.choose(both, "x86-64").type_guid == ROOT_X86_64
    assert partition_types.choose(both, "arm64").type_guid == ROOT_ARM64
    assert partition_types.choose(both[:3], "x86-64").type_guid == USR_X86_64


def test_a_generic_partition_counts_only_alone() -> None:
    assert partition_types.choose(of(GENERIC, ROOT_ARM64), "x86-64").type_guid == GENERIC
    with pytest.raises(ValueError, match="2 Linux partitions"):
        partition_types.choose(of(GENERIC, GENERIC), "x86-64")
    with pytest.raises(ValueError, match="no partition for x86-64"):
        partition_types.choose(of(ROOT_ARM64), "x86-64")
    with pytest.raises(ValueError, match="no partition for pdp11"):
        partition_types.choose([], "pdp11")


def test_a_signature_is_seen() -> None:
    assert partition_types.is_signed(of(ROOT_X86_64, ROOT_SIGNATURE_X86_64))
    assert not partition_types.is_signed(of(ROOT_X86_64))


NAMES = ("root", "/usr", "root verity", "/usr verity", "root verity sign.", "/usr verity sign.")


def test_types_are_those_that_sfdisk_knows() -> None:
    argv = ["sfdisk", "--label", "gpt", "--list-types"]
    text = subprocess.run(argv, capture_output=True, check=True).stdout.decode().lower()
    words = {"x86-64": "x86-64", "arm64": "arm-64", "riscv64": "risc-v-64", "s390x": "s390x"}
    for ours, theirs in words.items():
        found = partition_types.BY_ARCHITECTURE[ours]
        for guid, name in zip(found, NAMES, strict=True):
            assert f"{guid}  linux {name} ({theirs})" in text


@given(
    st.integers(4 << 20, 1 << 40).map(lambda size: size // 512 * 512),
    st.uuids(),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=36),
)
def test_a_table_that_is_written_is_read_back(size: int, guid: uuid.UUID, name: str) -> None:
    start, length = gpt.last_partition(size)
    # Cut off where a partition has no room for more.
    short = name.encode("utf-16-le")[:72].decode("utf-16-le", "replace")
    partition = gpt.Partition(GENERIC, str(guid), start, length, short)
    written = gpt.table(size, str(uuid.UUID(int=7)), [partition])

    def read(offset: int, wanted: int) -> bytes:
        for at, data in written.items():
            if at <= offset < at + len(data):
                return data[offset - at :][:wanted]
        return bytes(wanted)

    assert gpt.partitions(read, size) == [partition]
    assert start + length <= size - (33 << 9)


def test_others_read_a_table_that_is_written(tmp_path: Path) -> None:
    image, size = tmp_path / "disk", 8 << 20
    start, length = gpt.last_partition(size)
    partition = gpt.Partition(GENERIC, str(uuid.UUID(int=9)), start, length, "alice@example.com")
    with image.open("wb") as file:
        file.truncate(size)
        for offset, data in gpt.table(size, str(uuid.UUID(int=7)), [partition]).items():
            file.seek(offset)
            file.write(data)
    done = subprocess.run(
        ["sfdisk", "--json", str(image)], check=True, capture_output=True, text=True
    )
    found = json.loads(done.stdout)["partitiontable"]
    assert found["label"] == "gpt"
    assert [p["name"] for p in found["partitions"]] == ["alice@example.com"]
    assert found["partitions"][0]["start"] * 512 == start
    subprocess.run(["sfdisk", "--verify", str(image)], check=True, capture_output=True)


def test_a_disk_without_room_gets_no_table() -> None:
    with pytest.raises(ValueError, match="no room"):
        gpt.last_partition(2 << 20)


@pytest.mark.parametrize(
    ("lines", "is_ours"),
    [
        (["start=2048, size=2048, name=one", "start=6144, size=2048, name=two"], True),
        (["start=2048, size=2048", 'start=6144, size=2048, attrs="RequiredPartition"'], False),
        (["1: start=2048, size=2048", "3: start=6144, size=2048"], False),
        (["start=6144, size=2048", "start=2048, size=2048"], False),
        (["table-length: 64", "start=2048, size=2048"], False),
    ],
)
def test_what_a_table_of_ours_would_lose_is_noticed(
    tmp_path: Path, lines: list[str], *, is_ours: bool
) -> None:
    image = tmp_path / "disk"
    image.write_bytes(bytes(8 << 20))
    script = "\n".join(["label: gpt", *sorted(lines, key=lambda line: "table" not in line)])
    subprocess.run(
        ["sfdisk", "--quiet", str(image)], input=script.encode(), check=True, capture_output=True
    )
    raw = image.read_bytes()
    assert parse(raw)
    assert gpt.is_reproducible(lambda at, length: raw[at : at + length], len(raw)) == is_ours
