"""The headers of a tar archive, read: blocks and records to what they say of a member.

See pax(1) of POSIX.1-2017 for both; numbers too large for octal may be binary, as GNU tar
and bsdtar write them. Unknown records, such as ``ctime``, are ignored.
"""

from __future__ import annotations

import re
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

from homemgr.errors import StreamError
from homemgr.transfer import acl, flags
from homemgr.transfer.codec import encode
from homemgr.transfer.entry import Entry, Kind
from homemgr.transfer.tar import ACL_TEXTS, FLAGS, MAGIC, TYPES, XATTR

#: Keys of records and what they say.
Records = dict[bytes, bytes]

_KINDS = {letter: kind for kind, letter in TYPES.items()} | {b"\0": Kind.FILE}

_SECOND = 1_000_000_000

_TIME = re.compile(rb"(-?)([0-9]{1,19})(?:\.([0-9]{1,9}))?")
_DECIMAL = re.compile(rb"[0-9]{1,19}")
_OCTAL = re.compile(rb" *([0-7]{0,12})[ \0]*")
_LENGTH = re.compile(rb"([1-9][0-9]{0,7}) ")

_SPARSE = b"GNU.sparse."


class Header(NamedTuple):
    """A header block; ``length`` is that of what follows in the archive."""

    name: bytes
    mode: int
    uid: int
    gid: int
    length: int
    seconds: int
    type: bytes
    target: bytes


class Described(NamedTuple):
    """What header and records say together; names are as they are in the archive.

    ``entry`` has the size of the whole file; ``length`` is what is in the archive of it.
    """

    name: bytes
    entry: Entry
    length: int
    is_sparse: bool


def parse_header(block: bytes) -> Header:
    """A block as header; `StreamError` if it is damaged or of another format."""
    if _field(block[148:156]) != sum(block) - sum(block[148:156]) + 8 * ord(" "):
        raise _damaged()
    if block[257:265] != MAGIC:
        raise StreamError("The archive is not in pax format.")
    name, prefix = _text(block[:100]), _text(block[345:500])
    return Header(
        prefix + b"/" + name if prefix else name,
        _field(block[100:108]),
        _field(block[108:116]),
        _field(block[116:124]),
        _field(block[124:136]),
        _field(block[136:148]),
        block[156:157],
        _text(block[157:257]),
    )


def parse_records(text: bytes) -> Records:
    """The records before a header; `StreamError` if they are malformed or contradict each other."""
    records: Records = {}
    start = 0
    while start < len(text):
        length = _LENGTH.match(text, start)
        if length is None:
            raise _damaged()
        end = start + int(length[1])
        key, is_there, value = text[length.end() : end - 1].partition(b"=")
        if end > len(text) or text[end - 1 : end] != b"\n" or not is_there or key in records:
            raise _damaged()
        records[key] = value
        start = end
    return records


def describe(header: Header, records: Records) -> Described:
    """What both say of a member; `StreamError` if no file is like that."""
    kind = _KINDS.get(header.type)
    if kind is None:
        raise StreamError("The archive has a member of a type that is in no home.")
    length = number(records[b"size"]) if b"size" in records else header.length
    name = records.get(b"path", header.name)
    size, is_sparse = length, False
    if any(key.startswith(_SPARSE) for key in records):
        name, size = _sparse(records)
        is_sparse = True
    if kind == Kind.DIRECTORY:
        name = name.rstrip(b"/")
    if kind != Kind.FILE and (length or is_sparse):
        raise StreamError("Only files have content in an archive.")
    entry = _entry(kind, size, header, records)
    encode(entry)  # Refuses what no file has.
    return Described(name.removeprefix(b"./"), entry, length, is_sparse)


def number(text: bytes) -> int:
    """A decimal number without sign; `StreamError` if it is none."""
    if not _DECIMAL.fullmatch(text):
        raise _damaged()
    return int(text)


def _entry(kind: Kind, size: int, header: Header, records: Records) -> Entry:
    target = records.get(b"linkpath", header.target)
    if kind == Kind.LINK:
        return Entry(kind, 0, 0, 0, 0, 0, 0, target.removeprefix(b"./"), ())
    mtime = _time(records, b"mtime", header.seconds * _SECOND)
    xattrs = _xattrs(records)
    return Entry(
        kind,
        _mode(header.mode, dict(xattrs).get(acl.ACCESS)),
        number(records[b"uid"]) if b"uid" in records else header.uid,
        number(records[b"gid"]) if b"gid" in records else header.gid,
        mtime,
        _time(records, b"atime", mtime),
        size,
        target if kind == Kind.SYMLINK else b"",
        xattrs,
    )


def _mode(mode: int, access: bytes | None) -> int:
    """The mode with the mask of the list for the group, as chmod(2) shows it.

    bsdtar stores the permissions of the owning group instead.
    """
    if access is None:
        return mode
    masks = [line.permissions for line in acl.parse(access) if line.tag == acl.MASK]
    return mode & ~0o070 | masks[0] << 3 if masks else mode


def _sparse(records: Records) -> tuple[bytes, int]:
    """Name and size of a sparse file."""
    version = records.get(b"GNU.sparse.major"), records.get(b"GNU.sparse.minor")
    name, size = records.get(b"GNU.sparse.name"), records.get(b"GNU.sparse.realsize")
    if version != (b"1", b"0") or name is None or size is None:
        raise StreamError("The archive has a sparse file of a version other than 1.0.")
    return name, number(size)


def _xattrs(records: Records) -> tuple[tuple[bytes, bytes], ...]:
    found = {}
    for key, value in records.items():
        if key.startswith(XATTR):
            # bsdtar writes more than "%" and "=" in this way.
            found[unquote_to_bytes(key[len(XATTR) :])] = value
    found.pop(flags.NAME, None)
    # Words of others, which have no meaning here, are left out.
    words = [word for word in records.get(FLAGS, b"").split(b",") if word in flags.CARRIED]
    if words:
        found[flags.NAME] = flags.joined(words)
    for name, key in ACL_TEXTS.items():
        # The attribute itself is exact; a text may have names of another machine in it.
        if key in records and name not in found:
            entries = acl.from_text(records[key].decode("ascii", "replace"))
            if name != acl.ACCESS or not acl.is_minimal(entries):
                found[name] = acl.build(entries)
    return tuple(sorted(found.items()))


def _time(records: Records, key: bytes, otherwise: int) -> int:
    if key not in records:
        return otherwise
    found = _TIME.fullmatch(records[key])
    if found is None:
        raise _damaged()
    sign, seconds, rest = found.groups()
    ns = int(seconds) * _SECOND + int((rest or b"").ljust(9, b"0"))
    return -ns if sign else ns


def _field(field: bytes) -> int:
    """A number in a header: octal, or binary after a byte that says so."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    if field[0] == 0xFF:
        return int.from_bytes(field, "big", signed=True)
    found = _OCTAL.fullmatch(field)
    if found is None:
        raise _damaged()
    return int(found[1] or b"0", 8)


def _text(field: bytes) -> bytes:
    return field.partition(b"\0")[0]


def _damaged() -> StreamError:
    return StreamError("A header in the archive is damaged.")
