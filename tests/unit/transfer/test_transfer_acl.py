"""Access control lists: attribute and text are the same list, and malformed ones are none."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transfer_samples import ids

from homemgr.errors import StreamError
from homemgr.transfer.acl import (
    GROUP,
    GROUP_OBJ,
    MASK,
    NO_ID,
    OTHER,
    USER,
    USER_OBJ,
    AclEntry,
    build,
    from_text,
    is_minimal,
    parse,
    to_text,
)

BASE = [AclEntry(USER_OBJ, NO_ID, 7), AclEntry(GROUP_OBJ, NO_ID, 5), AclEntry(OTHER, NO_ID, 0)]
MASKED = sorted([*BASE, AclEntry(USER, 7, 6), AclEntry(GROUP, 9, 4), AclEntry(MASK, NO_ID, 6)])

permissions = st.integers(0, 7)


@st.composite
def lists(draw: st.DrawFn) -> list[AclEntry]:
    entries = [AclEntry(tag, NO_ID, draw(permissions)) for tag in (USER_OBJ, GROUP_OBJ, OTHER)]
    for tag in (USER, GROUP):
        for number in draw(st.sets(ids, max_size=3)):
            entries.append(AclEntry(tag, number, draw(permissions)))
    if len(entries) > 3 or draw(st.booleans()):
        entries.append(AclEntry(MASK, NO_ID, draw(permissions)))
    return sorted(entries)


def test_attribute_is_that_of_the_kernel() -> None:
    assert build(MASKED) == struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", *line)
        for line in [
            (0x01, 7, NO_ID),
            (0x02, 6, 7),
            (0x04, 5, NO_ID),
            (0x08, 4, 9),
            (0x10, 6, NO_ID),
            (0x20, 0, NO_ID),
        ]
    )


def test_text_is_that_of_the_tools() -> None:
    text = "user::rwx\nuser:7:rw-\ngroup::r-x\ngroup:9:r--\nmask::rw-\nother::---\n"
    assert to_text(MASKED) == text
    assert from_text(text) == MASKED


@given(lists(), st.randoms())
def test_list_is_read_as_written_and_in_order(entries: list[AclEntry], chance: object) -> None:
    shuffled = entries.copy()
    chance.shuffle(shuffled)  # type: ignore[attr-defined]
    assert parse(build(shuffled)) == entries
    assert from_text(to_text(shuffled)) == entries
    assert is_minimal(entries) == (entries[1].tag == GROUP_OBJ and entries[2].tag == OTHER)


def test_lines_of_other_archivers_are_read() -> None:
    text = "user::rwx,user:alice:rw-:7,group::r-x,group:staff:r--:9,mask::rw-,other::---"
    assert from_text(text) == MASKED


WRONG = [
    [],
    BASE[1:],
    BASE[:2],
    [*BASE, BASE[0]],
    [*BASE, AclEntry(USER, 7, 6)],
    [*MASKED, AclEntry(USER, 7, 0)],
    [*MASKED, AclEntry(MASK, NO_ID, 6)],
    [*MASKED, AclEntry(USER, NO_ID, 6)],
    [*BASE[1:], AclEntry(USER_OBJ, 7, 7)],
]


@pytest.mark.parametrize("entries", WRONG)
def test_what_is_no_list_is_refused(entries: list[AclEntry]) -> None:
    with pytest.raises(StreamError):
        parse(build(entries))
    with pytest.raises(StreamError):
        from_text(to_text(entries))


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"\2\0\0\0",
        build(BASE)[:-1],
        build(BASE) + b"\0",
        b"\1" + build(BASE)[1:],
        build([*BASE, AclEntry(0x40, NO_ID, 0)]),
        build([*BASE[1:], AclEntry(USER_OBJ, NO_ID, 8)]),
    ],
)
def test_malformed_attribute_is_refused(value: bytes) -> None:
    with pytest.raises(StreamError):
        parse(value)


@given(st.binary(max_size=60).map(lambda tail: b"\2\0\0\0" + tail))
def test_noise_is_refused_or_a_list(value: bytes) -> None:
    try:
        entries = parse(value)
    except StreamError:
        return
    assert sorted(build(entries)) == sorted(value)


@pytest.mark.parametrize(
    "line",
    [
        *("user:alice:rw-", "user:7:rwx:x", "user:-1:rw-", "user:4294967295:rw-", "mask:7:rw-"),
        *(
            "other:7:rw-",
            "user:7:wr-",
            "user:7:rw",
            "user",
            "user:9999999999:rw-",
            "user:\u0667:rw-",
        ),
    ],
)
def test_malformed_text_is_refused(line: str) -> None:
    with pytest.raises(StreamError):
        from_text(to_text(MASKED) + line)
