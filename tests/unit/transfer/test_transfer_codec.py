"""Entries as bytes: what is written is read, and nothing else is."""

from __future__ import annotations

import struct

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from transfer_samples import (
    ALL,
    DIRECTORY,
    FIFO,
    FILE,
    LINK,
    SYMLINK,
    TAGGED,
    attributes,
    digests,
    times,
    travelling,
)

from homemgr.errors import StreamError
from homemgr.transfer.codec import MAX_XATTRS, decode, encode, signature, xattr_bytes
from homemgr.transfer.entry import MAX_PATH, Entry, Kind

#: Offsets in the encoding.
MTIME_NS, ATIME_NS, TARGET_LENGTH, COUNT, END = 19, 31, 43, 47, 49


def test_layout_is_as_documented() -> None:
    assert encode(TAGGED) == (
        struct.pack(">BHII", 2, 0o644, 65534, 65534)
        + struct.pack(">qIqI", 1_700_000_000, 123_456_789, -1, 999_999_999)
        + struct.pack(">QIH", 5, 0, 2)
        + b"\6\0\0\0\0user.a"
        + b"\6\0\0\0\6user.b\0value"
    )


@given(travelling)
def test_entry_is_decoded_as_it_was(entry: Entry) -> None:
    again = decode(encode(entry))
    assert again == entry
    assert type(again.kind) is Kind


@given(st.binary(max_size=200))
@example(encode(TAGGED))
def test_what_can_be_decoded_is_canonical(data: bytes) -> None:
    try:
        entry = decode(data)
    except StreamError:
        return
    assert encode(entry) == data


@given(st.sampled_from(ALL), st.data())
def test_damaged_entry_is_refused_or_another_canonical_one(
    entry: Entry, data: st.DataObject
) -> None:
    raw = bytearray(encode(entry))
    for _ in range(data.draw(st.integers(1, 3))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        again = decode(bytes(raw))
    except StreamError:
        return
    assert encode(again) == raw


@pytest.mark.parametrize("entry", ALL, ids=lambda e: e.kind.name)
def test_every_cut_and_every_excess_is_refused(entry: Entry) -> None:
    raw = encode(entry)
    for length in range(len(raw)):
        with pytest.raises(StreamError):
            decode(raw[:length])
    with pytest.raises(StreamError):
        decode(raw + b"\0")


def many_attributes(total: int) -> tuple[tuple[bytes, bytes], ...]:
    """Attributes of ``total`` bytes."""
    found = []
    while total:
        name = b"user.%04d" % len(found)
        value = bytes(min(1 << 16, total - xattr_bytes(name, b"")))
        found.append((name, value))
        total -= xattr_bytes(name, value)
    return tuple(found)


@pytest.mark.parametrize(
    "entry",
    [
        FILE._replace(kind=Kind.SOCKET, size=0),
        FILE._replace(kind=Kind.CHARACTER, size=0, target=b"0:0"),
        FILE._replace(kind=Kind.BLOCK, size=0),
        FILE._replace(mode=0o10000),
        FILE._replace(mode=-1),
        FILE._replace(uid=0xFFFFFFFF),
        FILE._replace(gid=-1),
        FILE._replace(size=1 << 63),
        FILE._replace(size=-1),
        FILE._replace(mtime_ns=(1 << 63) * 10**9),
        FILE._replace(atime_ns=-(1 << 63) * 10**9 - 1),
        FILE._replace(target=b"x"),
        DIRECTORY._replace(size=1),
        DIRECTORY._replace(target=b"x"),
        FIFO._replace(size=1),
        SYMLINK._replace(size=1),
        SYMLINK._replace(target=b""),
        SYMLINK._replace(target=b"a\0b"),
        SYMLINK._replace(target=b"x" * 4096),
        LINK._replace(target=b""),
        LINK._replace(target=b"../a"),
        LINK._replace(target=b"a/" * (MAX_PATH // 2) + b"b"),
        LINK._replace(mode=0o644),
        LINK._replace(uid=1),
        LINK._replace(mtime_ns=1),
        LINK._replace(xattrs=((b"user.a", b""),)),
        FILE._replace(xattrs=((b"", b""),)),
        FILE._replace(xattrs=((b"a\0", b""),)),
        FILE._replace(xattrs=((b"x" * 256, b""),)),
        FILE._replace(xattrs=((b"b", b""), (b"a", b""))),
        FILE._replace(xattrs=((b"a", b""), (b"a", b"1"))),
        FILE._replace(xattrs=((b"a", bytes((1 << 16) + 1)),)),
        FILE._replace(xattrs=many_attributes(MAX_XATTRS + 1)),
    ],
)
def test_entry_that_no_file_has_is_not_encoded(entry: Entry) -> None:
    with pytest.raises(StreamError):
        encode(entry)


@pytest.mark.parametrize(
    "entry",
    [
        FILE._replace(mode=0o7777, uid=0xFFFFFFFE, gid=0, size=(1 << 63) - 1),
        SYMLINK._replace(target=b"x" * 4095),
        LINK._replace(target=(b"a/" * (MAX_PATH // 2))[:-1]),
        FILE._replace(xattrs=((b"x" * 255, bytes(1 << 16)),)),
        FILE._replace(xattrs=many_attributes(MAX_XATTRS)),
    ],
)
def test_entry_at_a_limit_travels(entry: Entry) -> None:
    assert decode(encode(entry)) == entry


@pytest.mark.parametrize(
    ("entry", "offset", "form", "value"),
    [
        (FILE, 0, ">B", 0),
        (FILE, 0, ">B", Kind.SOCKET),
        (FILE, 0, ">B", Kind.BLOCK),
        (FILE, 0, ">B", 255),
        (FILE, 0, ">B", Kind.DIRECTORY),
        (FILE, 1, ">H", 0o10000),
        (FILE, 3, ">I", 0xFFFFFFFF),
        (FILE, 7, ">I", 0xFFFFFFFF),
        (FILE, MTIME_NS, ">I", 10**9),
        (FILE, ATIME_NS, ">I", 10**9),
        (FILE, 35, ">Q", 1 << 63),
        (FILE, TARGET_LENGTH, ">I", 1),
        (SYMLINK, TARGET_LENGTH, ">I", 0xFFFFFFFF),
        (SYMLINK, END, ">B", 0),
        (LINK, 1, ">H", 0o644),
        (LINK, END, ">B", ord("/")),
        (TAGGED, COUNT, ">H", 1),
        (TAGGED, COUNT, ">H", 3),
        (TAGGED, COUNT, ">H", 65535),
        (TAGGED, END, ">B", 0),
        (TAGGED, END + 1, ">I", 0xFFFFFFFF),
        (TAGGED, END + 5 + 5, ">B", ord("b")),
        (TAGGED, END + 5 + 5, ">B", 0),
    ],
)
def test_encoding_of_no_entry_is_refused(entry: Entry, offset: int, form: str, value: int) -> None:
    raw = bytearray(encode(entry))
    struct.pack_into(form, raw, offset, value)
    with pytest.raises(StreamError):
        decode(bytes(raw))


@given(travelling, digests, times)
def test_signature_sees_all_but_the_access_time(entry: Entry, digest: bytes, time: int) -> None:
    mark = signature(entry, digest)
    assert len(mark) == 20
    assert signature(entry._replace(atime_ns=time), digest) == mark
    assert signature(entry, digest[:-1] + bytes([digest[-1] ^ 1])) != mark


@given(st.sampled_from(ALL), attributes, times)
def test_signature_changes_with_the_metadata(
    entry: Entry, xattrs: tuple[tuple[bytes, bytes], ...], time: int
) -> None:
    for other in (
        entry._replace(xattrs=xattrs),
        entry._replace(mtime_ns=time),
        entry._replace(mode=entry.mode ^ 1),
        entry._replace(uid=entry.uid ^ 1),
        entry._replace(target=entry.target + b"x"),
    ):
        assert (signature(other, b"") == signature(entry, b"")) == (other == entry)
