"""The stream: frames come out as they went in, and nothing malformed comes out at all."""

from __future__ import annotations

import random
import struct
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transfer_samples import (
    DIRECTORY,
    FIFO,
    FILE,
    LINK,
    SYMLINK,
    digests,
    entries,
    names,
    paths,
    signatures,
)

from homemgr.errors import StreamError
from homemgr.transfer.codec import encode
from homemgr.transfer.decoder import Decoder
from homemgr.transfer.entry import MAX_PATH, Entry, Kind
from homemgr.transfer.frames import (
    MAX_DATA,
    MAX_FRAME,
    MAX_PAIRS,
    SMALL,
    Control,
    Copy,
    Data,
    Delete,
    Enter,
    Eof,
    File,
    Frame,
    Hole,
    Leave,
    Node,
    Number,
    Pairs,
    Patch,
    Same,
    in_frames,
    pack,
    parts,
)

DIGEST = bytes(32)

#: One of each.
EXAMPLES: list[Frame] = [
    Enter(b"", DIRECTORY),
    Enter(b"d", None),
    Leave(),
    File(b"f", FILE, b"12345"),
    File(b"f", FILE, None),
    Patch(b"f", FILE),
    Same(b"f", FILE),
    Copy(b"f", FILE, DIGEST, b"a/b"),
    Node(b"l", LINK),
    Delete(b"f"),
    Data(5, b"data"),
    Hole(5, 7),
    Eof(DIGEST),
    Control({"hello": [1, None, "\udcff"]}),
    Pairs([(b"", bytes(20)), (b"a/b", bytes(20))]),
    Pairs([]),
]

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)
files = entries(Kind.FILE)


@st.composite
def whole_files(draw: st.DrawFn) -> File:
    data = draw(st.binary(max_size=200))
    return File(draw(names), draw(files)._replace(size=len(data)), data)


frames: st.SearchStrategy[Frame] = st.one_of(
    st.builds(Enter, st.just(b"") | names, st.none() | entries(Kind.DIRECTORY)),
    st.just(Leave()),
    whole_files(),
    st.builds(File, names, files, st.none()),
    st.builds(Patch, names, files),
    st.builds(Same, names, entries(Kind.FILE, Kind.SYMLINK, Kind.FIFO)),
    st.builds(Copy, names, files, digests, paths),
    st.builds(Node, names, entries(Kind.SYMLINK, Kind.FIFO, Kind.LINK)),
    st.builds(Delete, names),
    st.builds(Data, st.integers(0, 1 << 62), st.binary(min_size=1, max_size=200)),
    st.builds(Hole, st.integers(0, 1 << 62), st.integers(1, 1 << 62)),
    st.builds(Eof, digests),
    st.builds(Control, st.dictionaries(st.text(), json_values)),
    st.builds(Pairs, st.lists(st.tuples(st.just(b"") | paths, signatures), max_size=4)),
)


def decoded(data: bytes, size: int = 1 << 30) -> list[Frame]:
    """All frames of ``data``, given in pieces of ``size``."""
    decoder = Decoder()
    found = [
        frame for at in range(0, len(data), size) for frame in decoder.feed(data[at : at + size])
    ]
    decoder.finish()
    return found


def typed(some: list[Frame]) -> list[tuple[type, Frame]]:
    """Tuples of different types may be equal; these are not."""
    return [(type(frame), frame) for frame in some]


@given(st.lists(frames, max_size=6), st.integers(1, 700))
def test_frames_come_out_as_they_went_in(some: list[Frame], size: int) -> None:
    data = b"".join(pack(frame) for frame in some)
    assert typed(decoded(data, size)) == typed(some)


@pytest.mark.parametrize("frame", EXAMPLES, ids=lambda f: type(f).__name__)
def test_cut_frame_is_none(frame: Frame) -> None:
    raw = pack(frame)
    for length in range(1, len(raw)):
        decoder = Decoder()
        assert list(decoder.feed(raw[:length])) == []
        with pytest.raises(StreamError):
            decoder.finish()
        assert typed(list(decoder.feed(raw[length:]))) == [(type(frame), frame)]
        decoder.finish()


@pytest.mark.parametrize("frame", EXAMPLES, ids=lambda f: type(f).__name__)
def test_frame_of_another_length_is_refused(frame: Frame) -> None:
    raw = pack(frame)
    number, body = raw[0], raw[5:]
    shorter = [body[:length] for length in range(len(body))]
    for other in (*shorter, body + b"\0"):
        try:
            found = decoded(struct.pack(">BI", number, len(other)) + other)
        except StreamError:
            continue
        # Names, data and lists of pairs may have another length.
        assert typed(found) != typed([frame])
        assert b"".join(pack(f) for f in found)[5:] == other


@given(st.binary(max_size=300), st.integers(1, 20))
def test_noise_is_refused(noise: bytes, size: int) -> None:
    try:
        found = decoded(noise, size)
    except StreamError:
        return
    assert b"".join(pack(frame) for frame in found if not isinstance(frame, Control)) in noise


@given(st.lists(frames, min_size=1, max_size=4), st.data())
def test_damaged_stream_raises_nothing_but_stream_error(
    some: list[Frame], data: st.DataObject
) -> None:
    raw = bytearray(b"".join(pack(frame) for frame in some))
    for _ in range(data.draw(st.integers(1, 4))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = decoded(bytes(raw))
    except StreamError:
        return
    for frame in found:
        assert decoded(pack(frame)) == [frame]


@pytest.mark.parametrize("number", list(Number))
def test_every_type_with_any_body_is_a_frame_or_refused(number: Number) -> None:
    noise = random.Random(number)
    for _ in range(2000):
        body = noise.randbytes(noise.randrange(80))
        try:
            found = decoded(struct.pack(">BI", number, len(body)) + body)
        except StreamError:
            continue
        assert len(found) == 1


def raw_frame(number: int, body: bytes) -> bytes:
    return struct.pack(">BI", number, len(body)) + body


def named(name: bytes, entry: Entry, rest: bytes = b"") -> bytes:
    data = encode(entry)
    return bytes([len(name)]) + name + struct.pack(">I", len(data)) + data + rest


FIVE = FILE._replace(size=5)
LARGE = FILE._replace(size=SMALL + 1)


@pytest.mark.parametrize(
    ("number", "body"),
    [
        (Number.ENTER, named(b"..", DIRECTORY)),
        (Number.ENTER, named(b"a/b", DIRECTORY)),
        (Number.ENTER, named(b"f", FILE)),
        (Number.ENTER, named(b"d", DIRECTORY, b"x")),
        (Number.ENTER_UNCHANGED, b".."),
        (Number.ENTER_UNCHANGED, b"x" * 256),
        (Number.LEAVE, b"x"),
        (Number.FILE, named(b"f", FIVE, b"1234")),
        (Number.FILE, named(b"f", FIVE, b"123456")),
        (Number.FILE, named(b"f", LARGE, bytes(SMALL + 1))),
        (Number.FILE, named(b"", FIVE, b"12345")),
        (Number.FILE, named(b"a\0", FIVE, b"12345")),
        (Number.FILE, named(b"d", DIRECTORY)),
        (Number.FILE_FOLLOWS, named(b"f", FIVE, b"12345")),
        (Number.FILE_FOLLOWS, named(b"f", FIFO)),
        (Number.PATCH, named(b"f", SYMLINK)),
        (Number.PATCH, named(b".", FILE)),
        (Number.PATCH, named(b"f", FILE, b"x")),
        (Number.SAME, named(b"f", DIRECTORY)),
        (Number.SAME, named(b"f", LINK)),
        (Number.COPY, named(b"f", FILE, DIGEST)),
        (Number.COPY, named(b"f", FILE, DIGEST + b"/etc/shadow")),
        (Number.COPY, named(b"f", FILE, DIGEST + b"a/../b")),
        (Number.NODE, named(b"f", FILE)),
        (Number.NODE, named(b"f", DIRECTORY)),
        (Number.DELETE, b""),
        (Number.DELETE, b"a/b"),
        (Number.DATA, bytes(8)),
        (Number.DATA, bytes(7)),
        (Number.DATA, bytes(8 + MAX_DATA + 1)),
        (Number.DATA, struct.pack(">Q", (1 << 63) - 1) + b"x"),
        (Number.HOLE, bytes(16)),
        (Number.HOLE, struct.pack(">QQ", 1 << 62, 1 << 62)),
        (Number.HOLE, struct.pack(">QQ", (1 << 64) - 1, (1 << 64) - 1)),
        (Number.EOF, bytes(31)),
        (Number.CONTROL, b""),
        (Number.CONTROL, b"[]"),
        (Number.CONTROL, b'{"a":NaN}'),
        (Number.CONTROL, b'{"a":-Infinity}'),
        (Number.CONTROL, b'{"a":"\xc3\xa4"}'),
        (Number.CONTROL, b'{"a":' + b"9" * 5000 + b"}"),
        (Number.CONTROL, b'{"a":' + b"[" * (1 << 20)),
        (Number.PAIRS, struct.pack(">I", 3) + b"a/b" + bytes(19)),
        (Number.PAIRS, struct.pack(">I", 2) + b".." + bytes(20)),
        (Number.PAIRS, struct.pack(">I", 0xFFFFFFFF) + bytes(20)),
        (Number.PAIRS, (struct.pack(">I", 1) + b"a" + bytes(20)) * (MAX_PAIRS + 1)),
        (0, b""),
        (16, b""),
        (255, b""),
    ],
)
def test_malformed_frame_is_refused(number: int, body: bytes) -> None:
    with pytest.raises(StreamError):
        decoded(raw_frame(number, body))


def test_frame_that_would_be_too_long_is_refused_by_its_header() -> None:
    header = struct.pack(">BI", Number.DATA, MAX_FRAME + 1)
    for size in (1, 5):
        with pytest.raises(StreamError):
            decoded(header, size)


def test_frame_too_long_is_not_sent() -> None:
    with pytest.raises(StreamError):
        pack(Control({"a": "x" * MAX_FRAME}))


def test_longest_frames_pass() -> None:
    path = (b"a/" * (MAX_PATH // 2))[:-1]
    some: list[Frame] = [
        Data((1 << 63) - 1 - MAX_DATA, bytes(MAX_DATA)),
        File(b"x" * 255, FILE._replace(size=SMALL), bytes(SMALL)),
        Copy(b"x" * 255, FILE, DIGEST, path),
        Node(b"x" * 255, LINK._replace(target=path)),
        Control({"a": "x" * (MAX_FRAME - 8)}),
    ]
    data = b"".join(pack(frame) for frame in some)
    assert typed(decoded(data, 4096)) == typed(some)


def test_content_is_not_copied_to_be_sent() -> None:
    data = bytes(MAX_DATA)
    assert parts(Data(0, data))[-1] is data


def test_decoder_holds_no_more_than_one_frame() -> None:
    body = bytes(8) + bytes(MAX_DATA)
    stream = raw_frame(Number.DATA, body) * 4
    control = raw_frame(Number.CONTROL, b'{"a":"' + b"x" * (MAX_FRAME - 9) + b'"}')
    decoder = Decoder()
    tracemalloc.start()
    try:
        for data in (control, stream, control[:-1]):
            for at in range(0, len(data), 1 << 16):
                for _frame in decoder.feed(data[at : at + (1 << 16)]):
                    del _frame
        # The frame held, its body, and the body as text and as JSON; the stream itself is ours.
        assert tracemalloc.get_traced_memory()[1] < 5 * MAX_FRAME
    finally:
        tracemalloc.stop()


@given(st.lists(st.tuples(paths, signatures), max_size=20))
def test_pairs_are_followed_by_an_empty_frame(pairs: list[tuple[bytes, bytes]]) -> None:
    groups = list(in_frames(pairs))
    assert [pair for group in groups for pair in group.pairs] == pairs
    assert groups.index(Pairs([])) == len(groups) - 1


@pytest.mark.parametrize("path", [b"a", (b"a/" * (MAX_PATH // 2))[:-1]])
def test_many_pairs_are_cut_into_frames(path: bytes) -> None:
    pairs = [(path, bytes(20))] * (10_000 if path == b"a" else 5)
    groups = list(in_frames(iter(pairs)))
    assert len(groups) == (4 if path == b"a" else 6)
    assert [pair for group in groups for pair in decoded(pack(group))[0].pairs] == pairs  # type: ignore[union-attr]
