"""Exports as tar: ours are read as written, by us and by Python, and hostile ones are refused."""

from __future__ import annotations

import io
import tarfile
import tracemalloc
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transfer_samples import (
    DIRECTORY,
    FIFO,
    FILE,
    LINK,
    SYMLINK,
    TAGGED,
    entries,
    names,
)

from homemgr.errors import StreamError
from homemgr.transfer import acl, flags, tar, tar_header
from homemgr.transfer.acl import NO_ID, AclEntry
from homemgr.transfer.entry import Entry, Kind, join
from homemgr.transfer.frames import Data
from homemgr.transfer.seen import Seen, Sort
from homemgr.transfer.tar import BLOCK, END, MANIFEST, MAX_EXTENTS, RECORD
from homemgr.transfer.untar import End, Event, Member, Reader

Runs = list[tuple[int, bytes]]
Item = tuple[bytes, Entry, Runs | None]

ACL = acl.build(
    sorted(
        [
            AclEntry(acl.USER_OBJ, NO_ID, 6),
            AclEntry(acl.USER, 1000, 7),
            AclEntry(acl.GROUP_OBJ, NO_ID, 4),
            AclEntry(acl.MASK, NO_ID, 4),
            AclEntry(acl.OTHER, NO_ID, 0),
        ]
    )
)


def document(name: bytes, text: bytes) -> bytes:
    return tar.document(name, len(text)) + text + tar.padding(len(text))


def packed(path: bytes, entry: Entry, runs: Runs | None = None) -> bytes:
    """One member; None: a file of letters, without holes."""
    if entry.kind != Kind.FILE:
        return tar.member(path, entry)
    extents = None if runs is None else [(offset, len(data)) for offset, data in runs]
    content = b"x" * entry.size if runs is None else b"".join(data for _, data in runs)
    return tar.member(path, entry, extents) + content + tar.padding(len(content))


def archive(*members: bytes) -> bytes:
    first = [document(RECORD, b"{}"), packed(b"", DIRECTORY)]
    return b"".join([*first, *members, document(MANIFEST, b"[]"), END])


def read(data: bytes, size: int = 1 << 20) -> list[Event]:
    reader = Reader()
    found = [e for at in range(0, len(data), size) for e in reader.feed(data[at : at + size])]
    reader.finish()
    return found


def items_of(events: list[Event]) -> list[Item]:
    """Members with their content, pieces that touch each other joined; documents left out."""
    found: list[Item] = []
    is_home = False
    for event in events:
        if isinstance(event, Member):
            is_home = not event.document
            if is_home:
                is_file = event.entry.kind == Kind.FILE
                found.append((event.path, event.entry, [] if is_file else None))
        elif isinstance(event, Data) and is_home:
            runs = found[-1][2]
            assert runs is not None
            if runs and runs[-1][0] + len(runs[-1][1]) == event.offset:
                runs[-1] = (runs[-1][0], runs[-1][1] + event.data)
            else:
                runs.append((event.offset, event.data))
    return found


@st.composite
def contents(draw: st.DrawFn) -> tuple[int, Runs]:
    """A size and runs of data that do not touch each other."""
    runs: Runs = []
    end = draw(st.integers(0, 100))
    for _ in range(draw(st.integers(0, 3))):
        data = draw(st.binary(min_size=1, max_size=700))
        runs.append((end, data))
        end += len(data) + draw(st.integers(1, 1 << 40))
    return end, runs


@st.composite
def trees(draw: st.DrawFn) -> list[Item]:
    """A home in walk order."""
    found: list[Item] = [(b"", without_lists(draw(entries(Kind.DIRECTORY))), None)]
    kinds = (Kind.DIRECTORY, Kind.FILE, Kind.SYMLINK, Kind.FIFO, Kind.LINK)
    for name in draw(st.lists(names, max_size=6, unique=True)):
        folders = [path for path, entry, _ in found if entry.kind == Kind.DIRECTORY]
        files = [path for path, entry, _ in found if entry.kind == Kind.FILE]
        path = join(draw(st.sampled_from(folders)), name)
        entry, runs = draw(entries(*kinds)), None
        if entry.kind == Kind.LINK:
            if not files:
                continue
            entry = entry._replace(target=draw(st.sampled_from(files)))
        elif entry.kind == Kind.FILE:
            size, runs = draw(contents())
            entry = entry._replace(size=size)
        found.append((path, without_lists(entry), runs))
    return found


def without_lists(entry: Entry) -> Entry:
    """Lists that are none have no text, so `policy` drops them before."""
    # Nor is what stands for flags an attribute that a file system has.
    special = (acl.ACCESS, acl.DEFAULT, flags.NAME)
    clean = [pair for pair in entry.xattrs if pair[0] not in special]
    return entry._replace(xattrs=tuple(clean))


@settings(deadline=None)
@given(trees(), st.integers(1, 3000))
def test_home_is_read_as_it_was_written(tree: list[Item], size: int) -> None:
    data = b"".join(packed(*item) for item in tree)
    data = document(RECORD, b"{}") + data + document(MANIFEST, b"[]") + END
    assert items_of(read(data, size)) == tree


def test_events_are_members_content_and_ends() -> None:
    data = archive(packed(b"f", FILE))
    own = FILE._replace(mode=0o600, uid=0, gid=0, mtime_ns=0, atime_ns=0, size=2)
    assert read(data) == [
        *(Member(RECORD, b"", own), Data(0, b"{}"), End()),
        Member(b"", b"", DIRECTORY),
        *(Member(b"", b"f", FILE), Data(0, b"xxxxx"), End()),
        *(Member(MANIFEST, b"", own), Data(0, b"[]"), End()),
    ]


LONG = b"/".join([b"n" * 255] * 20)

SAMPLES: list[Item] = [
    (b"f", FILE, None),
    (b"tagged", TAGGED._replace(xattrs=((acl.ACCESS, ACL), (b"user.a=%b%25", b"=\0\n"))), None),
    (b"early", FILE._replace(mtime_ns=-1, atime_ns=-(10**18)), None),
    (b"late", FILE._replace(mtime_ns=10**19 + 1, atime_ns=8589934592 * 10**9), None),
    (b"others", FILE._replace(uid=0xFFFFFFFE, gid=2097152, mode=0o7777), None),
    (b"hole", FILE._replace(size=1 << 62), []),
    (b"sparse", FILE._replace(size=1 << 34), [(1 << 20, b"a"), (1 << 33, b"b" * 1000)]),
    (b"n" * 255, SYMLINK._replace(target=b"../" * 1000), None),
    (b"fifo\n\xff", FIFO, None),
    (b"link", LINK._replace(target=b"f"), None),
]


@pytest.mark.parametrize("size", [1, 511, 512, 1 << 20])
def test_odd_members_are_read_as_written(size: int) -> None:
    wanted = [
        (
            path,
            entry,
            [(0, b"x" * entry.size)] if entry.kind == Kind.FILE and runs is None else runs,
        )
        for path, entry, runs in SAMPLES
    ]
    found = items_of(read(archive(*(packed(*item) for item in SAMPLES)), size))
    assert found[1:] == wanted


def test_long_path_is_read_as_written() -> None:
    folders = [LONG[: 256 * n - 1] for n in range(1, 20)]
    data = archive(*(packed(path, DIRECTORY) for path in folders), packed(LONG, FILE, [(4, b"x")]))
    found = items_of(read(data))
    assert [path for path, _, _ in found] == [b"", *folders, LONG]
    assert found[-1][1:] == (FILE, [(4, b"x")])


def test_python_reads_what_we_write() -> None:
    data = archive(*(packed(*item) for item in SAMPLES if item[0] not in (b"hole", b"sparse")))
    with tarfile.open(fileobj=io.BytesIO(data), errors="surrogateescape", encoding="utf-8") as file:
        found = {member.name: member for member in file}
        content = file.extractfile("home/f")
        assert content is not None
        assert content.read() == b"xxxxx"
    assert list(found) == [
        *("homemgr.json", "home", "home/f", "home/tagged", "home/early", "home/late"),
        *("home/others", "home/" + "n" * 255, "home/fifo\n\udcff", "home/link"),
        "homemgr-manifest.json",
    ]
    assert found["home/others"].uid == 0xFFFFFFFE
    assert found["home/others"].mode == 0o7777
    assert found["home/early"].pax_headers["mtime"] == "-0.000000001"
    assert found["home/link"].linkname == "home/f"
    assert found["home/" + "n" * 255].linkname == "../" * 1000
    headers = found["home/tagged"].pax_headers
    assert headers["SCHILY.xattr.user.a%3D%25b%2525"] == "=\0\n"
    assert headers["SCHILY.acl.access"] == acl.to_text(acl.parse(ACL))


@pytest.mark.parametrize("length", [*range(80, 112), *range(980, 1012), 9990, 9995, 9996, 10000])
def test_length_of_a_record_counts_itself(length: int) -> None:
    entry = FILE._replace(xattrs=((b"user.a", b"v" * length),))
    assert items_of(read(archive(packed(b"f", entry))))[1][1] == entry


def test_python_writes_what_we_read() -> None:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as out:
        for name, kind in (
            *(("homemgr.json", tarfile.REGTYPE), ("./home", tarfile.DIRTYPE)),
            *(("./home/" + "d" * 150, tarfile.DIRTYPE), ("./home/f", tarfile.REGTYPE)),
            *(("./home/l", tarfile.LNKTYPE), ("homemgr-manifest.json", tarfile.REGTYPE)),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.mtime = kind, 0o700, 5.25
            info.linkname = "./home/f" if kind == tarfile.LNKTYPE else ""
            info.pax_headers = {"comment": "x"}
            out.addfile(info)
    plain = Entry(Kind.DIRECTORY, 0o700, 0, 0, 5_250_000_000, 5_250_000_000, 0, b"", ())
    assert items_of(read(file.getvalue())) == [
        (b"", plain, None),
        (b"d" * 150, plain, None),
        (b"f", plain._replace(kind=Kind.FILE), []),
        (b"l", LINK._replace(target=b"f"), None),
    ]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("user::rw-,user:alice:rwx:1000,group::r--,mask::r--,other::---", ((acl.ACCESS, ACL),)),
        ("user::rw-\ngroup::r--\nother::---\n", ()),
    ],
)
def test_lists_of_other_archivers_are_understood(
    text: str, wanted: tuple[tuple[bytes, bytes], ...]
) -> None:
    header = tar_header.parse_header(tar.document(b"home/f", 0))
    records = {b"SCHILY.acl.access": text.encode()}
    assert tar_header.describe(header, records).entry.xattrs == wanted
    with pytest.raises(StreamError):
        tar_header.describe(header, {b"SCHILY.acl.access": b"user:\xff:rwx"})


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (b"nodump,noatime", b"noatime,nodump"),
        (b"nodump,uappnd,schg,nodump", b"nodump"),
        (b"opaque", b""),
        (b"", b""),
    ],
)
def test_flags_of_other_archivers_are_understood(words: bytes, wanted: bytes) -> None:
    header = tar_header.parse_header(tar.document(b"home/f", 0))
    found = tar_header.describe(header, {b"SCHILY.fflags": words}).entry.xattrs
    assert found == (((flags.NAME, wanted),) if wanted else ())
    # Not by the way of attributes, where anything could stand.
    name = b"SCHILY.xattr." + flags.NAME
    assert tar_header.describe(header, {name: b"immutable"}).entry.xattrs == ()


def test_flags_are_read_as_written() -> None:
    for entry in (FILE, DIRECTORY):
        entry = entry._replace(xattrs=((flags.NAME, b"noatime,nodump"), (b"user.a", b"1")))
        data = archive(packed(b"a", entry))
        assert b"SCHILY.fflags=noatime,nodump\n" in data
        assert items_of(read(data))[1][:2] == (b"a", entry)


def test_mode_and_names_of_bsdtar_are_understood() -> None:
    header = tar_header.parse_header(tar.document(b"home/f", 0))._replace(mode=0o4640)
    text = b"user::rw-,user:7:rwx:7,group::r--,mask::rwx,other::---"
    records = {b"SCHILY.acl.access": text, b"SCHILY.xattr.user.%C3%a4": b"x"}
    entry = tar_header.describe(header, records).entry
    assert entry.mode == 0o4670
    assert entry.xattrs[1] == (b"user.\xc3\xa4", b"x")


def test_numbers_beyond_octal_are_understood() -> None:
    block = bytearray(tar.document(b"home/f", 0))
    block[108:116] = b"\x80\0\0\0\xff\xff\xff\xfe"
    block[136:148] = b"\xff" * 12
    header = tar_header.parse_header(resummed(block))
    assert (header.uid, header.seconds) == (0xFFFFFFFE, -1)


def resummed(block: bytes | bytearray) -> bytes:
    """The header block with a checksum that is right."""
    block = bytearray(block)
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


# --- what is refused ----------------------------------------------------------------------


def raw_member(
    name: bytes, *, kind: bytes = b"0", target: bytes = b"", content: bytes = b""
) -> bytes:
    """A member that says anything."""
    block = bytearray(tar.document(b"x", len(content)))
    block[:100] = name.ljust(100, b"\0")
    block[156:157] = kind
    block[157:257] = target.ljust(100, b"\0")
    return resummed(block) + content + tar.padding(len(content))


def with_records(text: bytes, member: bytes) -> bytes:
    return raw_member(b"PaxHeaders", kind=b"x", content=text) + member


def record(key: bytes, value: bytes) -> bytes:
    return tar._record(key, value)


EMPTY = raw_member(b"home/f")
FOLDER = packed(b"d", DIRECTORY)


@pytest.mark.parametrize(
    "members",
    [
        [raw_member(b"home/../etc/passwd")],
        [raw_member(b"/home/f")],
        [raw_member(b"../home/f")],
        [raw_member(b"home//f")],
        [raw_member(b"home/./f")],
        [raw_member(b".//home/f")],
        [raw_member(b"home/f/")],
        [raw_member(b"elsewhere/f")],
        [raw_member(b"homemgr.json")],
        [raw_member(b"homemgr.json/", kind=b"5")],
        [raw_member(b"")],
        [raw_member(b"/", kind=b"5")],
        [raw_member(b"home", kind=b"2", target=b"/etc")],
        [raw_member(b"home", kind=b"5")],
        [raw_member(b"home/missing/f")],
        [with_records(record(b"path", b"/etc/passwd"), EMPTY)],
        [with_records(record(b"path", b"home/a\0b"), EMPTY)],
        [with_records(record(b"path", b"home/" + b"x" * 256), EMPTY)],
        # Twice, also in other ways.
        [EMPTY, EMPTY],
        [EMPTY, raw_member(b"./home/f")],
        [EMPTY, raw_member(b"home/f", kind=b"5")],
        [FOLDER, FOLDER],
        [raw_member(b"home/l", kind=b"2", target=b"/etc"), raw_member(b"home/l/passwd")],
        [EMPTY, raw_member(b"home/f/below")],
        # Further names of what is not there.
        [raw_member(b"home/l", kind=b"1", target=b"home/f"), EMPTY],
        [EMPTY, raw_member(b"home/l", kind=b"1", target=b"/etc/shadow")],
        [EMPTY, raw_member(b"home/l", kind=b"1", target=b"home/../home/f")],
        [EMPTY, raw_member(b"home/l", kind=b"1", target=b"../home/f")],
        [EMPTY, raw_member(b"home/l", kind=b"1", target=b"f")],
        [EMPTY, raw_member(b"home/l", kind=b"1", target=b"")],
        [EMPTY, raw_member(b"home/l", kind=b"1", target=b"home")],
        [EMPTY, raw_member(b"home/l", kind=b"1", target=b"home/")],
        [EMPTY, raw_member(b"home/l", kind=b"1", target=b"home/l")],
        [FOLDER, raw_member(b"home/l", kind=b"1", target=b"home/d")],
        [EMPTY, raw_member(b"home/l", kind=b"1", target=b"home/f", content=b"x")],
        # What is in no home.
        *([raw_member(b"home/x", kind=bytes([kind]))] for kind in b"3478gxLKSVMA"),
        [raw_member(b"home/x", kind=b"2")],
        [raw_member(b"home/x", kind=b"6", content=b"x")],
        [raw_member(b"home/x/", kind=b"5", content=b"x")],
        # Damaged headers and records.
        [b"\1" + EMPTY[1:]],
        [resummed(EMPTY[:257] + b"ustar  \0" + EMPTY[265:512])],
        [resummed(EMPTY[:100] + b"0000x00\0" + EMPTY[108:512])],
        [resummed(EMPTY[:100] + b"0010000\0" + EMPTY[108:512])],
        [resummed(EMPTY[:108] + b"\xff" * 8 + EMPTY[116:512])],
        [resummed(EMPTY[:108] + b"\x80" + b"\xff" * 7 + EMPTY[116:512])],
        [resummed(EMPTY[:124] + b"\xff" * 12 + EMPTY[136:512])],
        [resummed(EMPTY[:124] + b"\x80" + b"\xff" * 11 + EMPTY[136:512])],
        [raw_member(b"PaxHeaders", kind=b"x"), EMPTY],
        [with_records(b"x", EMPTY)],
        [with_records(b"9 path=f\nx", EMPTY)],
        [with_records(b"7 path=f\n", EMPTY)],
        [with_records(b"99 path=f\n", EMPTY)],
        [with_records(b"0 path=f\n", EMPTY)],
        [with_records(b"7 path\n", EMPTY)],
        [with_records(b"-9 path=f\n", EMPTY)],
        [with_records(record(b"mtime", b"1") * 2, EMPTY)],
        *(
            [with_records(record(key, value), EMPTY)]
            for key, value in [
                (b"mtime", b"x"),
                (b"mtime", b""),
                (b"mtime", b"1.1234567890"),
                (b"mtime", b"1e5"),
                (b"mtime", b"9" * 19 + b".5"),
                (b"mtime", b"9" * 20),
                (b"uid", b"-1"),
                (b"uid", b"4294967295"),
                (b"gid", b"99999999999"),
                (b"size", b"9223372036854775808"),
                (b"size", b"-1"),
                (b"SCHILY.xattr.", b"x"),
                (b"SCHILY.xattr.a\0", b"x"),
                (b"SCHILY.xattr.user.a", bytes((1 << 16) + 1)),
                (b"SCHILY.acl.access", b"user::rwx"),
                (b"SCHILY.acl.default", b"x"),
                (b"GNU.sparse.size", b"5"),
                (b"GNU.sparse.map", b"0,5"),
            ]
        ),
        [with_records(record(b"GNU.sparse.major", b"1"), raw_member(b"home/d", kind=b"5"))],
        [with_records(record(b"path", b"home/g"), with_records(record(b"mtime", b"1"), EMPTY))],
    ],
)  # fmt: skip
def test_hostile_member_is_refused(members: list[bytes]) -> None:
    data = archive(*members)
    for size in (1 << 20, 300):
        with pytest.raises(StreamError):
            read(data, size)


def sparse(text: bytes, data: bytes = b"", size: int = 1000) -> bytes:
    """A sparse file of any list of pieces."""
    records = (
        record(b"GNU.sparse.major", b"1")
        + record(b"GNU.sparse.minor", b"0")
        + record(b"GNU.sparse.name", b"home/s")
        + record(b"GNU.sparse.realsize", b"%d" % size)
    )
    content = text + tar.padding(len(text)) + data
    return with_records(records, raw_member(b"home/GNUSparseFile.0/s", content=content))


def test_sparse_file_of_other_archivers_is_read() -> None:
    text = b"3\n0\n2\n500\n0\n900\n3\n"
    found = items_of(read(archive(sparse(text, b"abcde"))))
    assert found[1][0] == b"s"
    assert found[1][1].size == 1000
    assert found[1][2] == [(0, b"ab"), (900, b"cde")]


@pytest.mark.parametrize(
    ("text", "data", "size"),
    [
        (b"", b"", 1000),
        (b"0", b"", 1000),
        (b"x\n", b"", 1000),
        (b"-1\n", b"", 1000),
        (b"1\n0\n", b"", 1000),
        (b"1\n0\n5\n", b"", 1000),
        (b"1\n0\n5\n", b"123456", 1000),
        (b"1\n0\n5\n7\n", b"12345", 1000),
        (b"1\n996\n5\n", b"12345", 1000),
        (b"1\n9999999999999999999\n5\n", b"12345", 1000),
        (b"1\n0\n9999999999999999999\n", b"12345", 1000),
        (b"2\n0\n5\n4\n5\n", b"0123456789", 1000),
        (b"2\n10\n5\n0\n5\n", b"0123456789", 1000),
        (b"1\n1001\n0\n", b"", 1000),
        (b"0\n", b"x", 1000),
        (b"0\n", b"", 1 << 63),
        (b"9" * 600, b"", 1000),
        (b"%d\n" % (MAX_EXTENTS + 1), b"", 1000),
        (b"9999999999999999999\n", b"", 1000),
        (b"99999999999999999999\n", b"", 1000),
    ],
)
def test_hostile_pieces_are_refused(text: bytes, data: bytes, size: int) -> None:
    with pytest.raises(StreamError):
        read(archive(sparse(text, data, size)))


def test_sparse_bomb_costs_no_memory() -> None:
    count = MAX_EXTENTS // 8
    numbers = b"%d\n" % count + b"0\n0\n" * count
    data = archive(sparse(numbers, size=1 << 62))
    reader = Reader()
    tracemalloc.start()
    try:
        for at in range(0, len(data), 1 << 16):
            for event in reader.feed(data[at : at + (1 << 16)]):
                assert not isinstance(event, Data) or len(event.data) == 2
        assert tracemalloc.get_traced_memory()[1] < 10 << 20
    finally:
        tracemalloc.stop()
    reader.finish()


def test_too_many_records_are_refused_before_they_are_held() -> None:
    head = raw_member(b"PaxHeaders", kind=b"x", content=bytes(tar.MAX_RECORDS + 1))[:BLOCK]
    reader = Reader()
    with pytest.raises(StreamError):
        list(reader.feed(document(RECORD, b"{}") + head))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        END,
        packed(b"", DIRECTORY) + END,
        document(RECORD, b"{}") + END,
        document(RECORD, b"{}") + document(MANIFEST, b"[]") + END,
        document(RECORD, b"{}") + packed(b"", DIRECTORY) + END,
        document(MANIFEST, b"[]") + packed(b"", DIRECTORY) + document(RECORD, b"{}") + END,
        archive()[: -len(END)],
        archive()[:-BLOCK],
        archive()[:-BLOCK] + b"x".ljust(BLOCK, b"\0"),
        archive() + bytes(9000) + b"x",
        archive() + archive(),
        archive()[: -len(END)] + EMPTY + END,
        archive()[: -len(END)] + document(MANIFEST, b"[]") + END,
    ],
)
def test_archive_without_its_parts_in_order_is_refused(data: bytes) -> None:
    for size in (1 << 20, BLOCK):
        with pytest.raises(StreamError):
            read(data, size)


def test_archive_may_be_filled_up_with_zeros() -> None:
    assert read(archive() + bytes(9728), 1000) == read(archive())


def test_every_cut_is_refused() -> None:
    data = archive(packed(b"f", TAGGED), packed(b"s", FILE._replace(size=9000), [(4096, b"x")]))
    for length in range(0, len(data), 101):
        with pytest.raises(StreamError):
            read(data[:length])


def test_nothing_comes_after_a_failure() -> None:
    reader = Reader()
    with pytest.raises(StreamError):
        list(reader.feed(b"x" * BLOCK))
    assert list(reader.feed(archive())) == []
    with pytest.raises(StreamError):
        reader.finish()


WHOLE = archive(*(packed(*item) for item in SAMPLES))


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_damaged_archive_raises_nothing_but_stream_error(data: st.DataObject) -> None:
    raw = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 5))):
        at = data.draw(st.integers(0, len(raw) - 1))
        raw[at] = data.draw(st.integers(0, 255))
        start = at - at % BLOCK
        if raw[start + 257 : start + 263] == b"ustar\0" and data.draw(st.booleans()):
            raw[start : start + BLOCK] = resummed(raw[start : start + BLOCK])
    with suppress(StreamError):
        read(bytes(raw), 4096)


@settings(max_examples=200)
@given(st.binary(max_size=400), st.sampled_from([b"", *(b"%d" % n for n in range(20, 60))]))
def test_any_records_are_refused_or_understood(noise: bytes, length: bytes) -> None:
    with suppress(StreamError):
        read(archive(with_records(length + b" " + noise, EMPTY)))


# --- what is not written ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "entry", "runs"),
    [
        (b"a/../b", FILE, None),
        (b"/a", FILE, None),
        (b"a", FILE._replace(kind=Kind.SOCKET, size=0), None),
        (b"a", FILE._replace(xattrs=((acl.ACCESS, b"x"),)), None),
        (b"a", FILE, [(0, 6)]),
        (b"a", FILE, [(0, 2), (1, 2)]),
        (b"a", FILE, [(3, 1), (0, 1)]),
        (b"a", FILE, [(0, 0)]),
        (b"a", FILE, [(-1, 2)]),
    ],
)
def test_what_would_not_be_read_is_not_written(
    path: bytes, entry: Entry, runs: list[tuple[int, int]] | None
) -> None:
    with pytest.raises(StreamError):
        tar.member(path, entry, runs)


def test_file_of_too_many_pieces_is_written_without_holes() -> None:
    entry = FILE._replace(size=4 * (MAX_EXTENTS + 1))
    runs = [(4 * n, 1) for n in range(MAX_EXTENTS + 1)]
    assert tar.stored(entry, runs) == ((0, entry.size),)
    assert len(tar.member(b"f", entry, runs)) == len(tar.member(b"f", entry))


def test_largest_metadata_fit_in_an_archive() -> None:
    path = b"/".join([b"n" * 255] * 4095)
    values = tuple((b"user.%b%02d" % (b"%" * 200, n), bytes(65000)) for n in range(15))
    data = tar.member(path, FILE._replace(xattrs=values))
    assert len(data) < tar.MAX_RECORDS


# --- the table of paths -------------------------------------------------------------------


@given(st.lists(st.tuples(st.binary(max_size=3), st.sampled_from(Sort)), max_size=50))
def test_table_remembers_the_first_of_each_path(added: list[tuple[bytes, Sort]]) -> None:
    seen, model = Seen(), dict[bytes, Sort]()
    for path, sort in added:
        assert seen.add(path, sort) == (path not in model)
        model.setdefault(path, sort)
    for path, _ in added:
        assert seen.sort_of(path) == model[path]
    assert seen.sort_of(b"never") == 0


def test_table_grows_and_stays_small() -> None:
    seen = Seen()
    tracemalloc.start()
    try:
        for number in range(20_000):
            assert seen.add(b"%d" % number, Sort.OTHER)
        # While it grows the smaller one is there as well.
        assert tracemalloc.get_traced_memory()[1] < 20_000 * 80
    finally:
        tracemalloc.stop()
    assert not any(seen.add(b"%d" % number, Sort.DIRECTORY) for number in range(20_000))
    assert {seen.sort_of(b"%d" % number) for number in range(20_000)} == {Sort.OTHER}
    assert seen.sort_of(b"20000") == 0
