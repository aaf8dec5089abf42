"""An exported home as a tar archive: what is written; `untar` reads it.

The format is pax, see pax(1) of POSIX.1-2017, with what GNU tar adds to it: sparse files
of version 1.0, and ``SCHILY.xattr.``, ``SCHILY.acl.``, ``SCHILY.fflags`` records. Members are
`RECORD`, a JSON object that says whose home it is; `HOME` and all that is in it, directories
before what they hold; and last `MANIFEST`, a JSON object that says what must have arrived. So

    tar --xattrs --xattrs-include='*' --acls -xpf FILE home

restores the home without us, but for what that program cannot do: paths beyond PATH_MAX.
Owners are ids on disk, without names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from homemgr.errors import StreamError
from homemgr.transfer import acl, flags
from homemgr.transfer.codec import encode
from homemgr.transfer.entry import Entry, Kind, check_path, join

if TYPE_CHECKING:
    from collections.abc import Sequence

HOME = b"home"
RECORD = b"homemgr.json"
MANIFEST = b"homemgr-manifest.json"

#: Everything in an archive is a multiple of this.
BLOCK = 512

#: What says that a header is one: magic and version.
MAGIC = b"ustar\x00" + b"00"

#: The end of an archive.
END = bytes(2 * BLOCK)

#: The most pieces of a sparse file; one of more is written as if it had no holes.
MAX_EXTENTS = 1 << 20

#: The longest list of records before a member: path, target, and attributes with ACLs twice.
MAX_RECORDS = 4 << 20

TYPES = {
    Kind.FILE: b"0",
    Kind.LINK: b"1",
    Kind.SYMLINK: b"2",
    Kind.DIRECTORY: b"5",
    Kind.FIFO: b"6",
}

#: Names of the records for ACLs as text.
ACL_TEXTS = {acl.ACCESS: b"SCHILY.acl.access", acl.DEFAULT: b"SCHILY.acl.default"}
XATTR = b"SCHILY.xattr."
#: The record for flags of chattr; GNU tar says that it ignores it.
FLAGS = b"SCHILY.fflags"

_SECOND = 1_000_000_000

#: The largest values of header fields; others are in records only.
_MOST_ID = 0o7777777
_MOST_LONG = 0o77777777777


def member(path: bytes, entry: Entry, runs: Sequence[tuple[int, int]] | None = None) -> bytes:
    """All that precedes the content of ``path`` in the home.

    For a file ``runs`` are offset and length of its data, in order, if it has holes. What
    `stored` gives follows, one after the other, then `padding`. `StreamError` if the
    entry cannot travel, or the runs are not those of a file of its size.
    """
    encode(entry)  # Refuses what cannot travel.
    name = HOME
    if path:
        check_path(path)
        name = join(HOME, path)
    pieces = stored(entry, runs)
    length = sum(size for _, size in pieces)
    sparse = b""
    records = {}
    if entry.kind == Kind.FILE and length < entry.size:
        sparse = _sparse_map(entry.size, pieces)
        records = {
            b"GNU.sparse.major": b"1",
            b"GNU.sparse.minor": b"0",
            b"GNU.sparse.name": name,
            b"GNU.sparse.realsize": b"%d" % entry.size,
        }
        directory, _, last = name.rpartition(b"/")
        name = directory + b"/GNUSparseFile.0/" + last
    return _member(name, entry, records, len(sparse) + length) + sparse


def stored(
    entry: Entry, runs: Sequence[tuple[int, int]] | None = None
) -> Sequence[tuple[int, int]]:
    """Offset and length of what is written of a file with these runs of data."""
    if entry.kind != Kind.FILE:
        return ()
    if runs is None or len(runs) > MAX_EXTENTS:
        return ((0, entry.size),) if entry.size else ()
    end = 0
    for offset, length in runs:
        if offset < end or length <= 0:
            raise StreamError("The data of a file overlap.")
        end = offset + length
    if end > entry.size:
        raise StreamError("A file has data beyond its end.")
    return runs


def padding(length: int) -> bytes:
    """What follows ``length`` bytes of content."""
    return bytes(-length % BLOCK)


def document(name: bytes, length: int) -> bytes:
    """What precedes the ``length`` bytes of `RECORD` or `MANIFEST`; `padding` follows them."""
    entry = Entry(Kind.FILE, 0o600, 0, 0, 0, 0, length, b"", ())
    return _header(name, entry, TYPES[Kind.FILE], length)


def _member(name: bytes, entry: Entry, records: dict[bytes, bytes], length: int) -> bytes:
    """Records and header of a member with ``length`` bytes in the archive."""
    target = entry.target
    if entry.kind == Kind.LINK:
        target = join(HOME, target)
    else:
        records[b"mtime"] = _time(entry.mtime_ns)
        records[b"atime"] = _time(entry.atime_ns)
    if entry.kind == Kind.DIRECTORY:
        name += b"/"
    if len(name) > 100 and b"GNU.sparse.name" not in records:
        records[b"path"] = name
    if len(target) > 100:
        records[b"linkpath"] = target
    if length > _MOST_LONG:
        records[b"size"] = b"%d" % length
    for key, number in ((b"uid", entry.uid), (b"gid", entry.gid)):
        if number > _MOST_ID:
            records[key] = b"%d" % number
    records |= _xattr_records(entry)
    text = b"".join(_record(key, value) for key, value in records.items())
    if len(text) > MAX_RECORDS:
        raise StreamError("A file has too long a name or attributes for an archive.")
    head = _header(name, entry._replace(target=target), TYPES[entry.kind], length)
    if not text:
        return head
    first = _header(b"PaxHeaders/" + name[-80:], _PLAIN, b"x", len(text))
    return first + text + padding(len(text)) + head


_PLAIN = Entry(Kind.FILE, 0o644, 0, 0, 0, 0, 0, b"", ())


def _xattr_records(entry: Entry) -> dict[bytes, bytes]:
    records = {}
    for name, value in entry.xattrs:
        if name == flags.NAME:
            records[FLAGS] = value
            continue
        if name in ACL_TEXTS:
            # As text too: that is what `tar --acls` and other archivers look for.
            records[ACL_TEXTS[name]] = acl.to_text(acl.parse(value)).encode("ascii")
        # GNU tar's way to have "=" in a key.
        key = XATTR + name.replace(b"%", b"%25").replace(b"=", b"%3D")
        records[key] = value
    return records


def _record(key: bytes, value: bytes) -> bytes:
    """``LENGTH KEY=VALUE``, the length that of all of it, its own digits among it."""
    rest = len(key) + len(value) + 3
    length = rest + len(str(rest))
    length = rest + len(str(length))
    return b"%d %b=%b\n" % (length, key, value)


def _time(ns: int) -> bytes:
    """A time as decimal number of seconds, exact."""
    seconds, rest = divmod(abs(ns), _SECOND)
    return b"%b%d.%09d" % (b"-" if ns < 0 else b"", seconds, rest)


def _sparse_map(size: int, pieces: Sequence[tuple[int, int]]) -> bytes:
    # The empty piece at the end tells old readers where the file ends.
    numbers = [len(pieces) + 1]
    for piece in (*pieces, (size, 0)):
        numbers += piece
    text = b"".join(b"%d\n" % number for number in numbers)
    return text + padding(len(text))


def _header(name: bytes, entry: Entry, kind: bytes, length: int) -> bytes:
    seconds = entry.mtime_ns // _SECOND
    fields = b"%b%07o\0%07o\0%07o\0%011o\0%011o\0        %b%b%b" % (
        name[:100].ljust(100, b"\0"),
        entry.mode,
        entry.uid if entry.uid <= _MOST_ID else 0,
        entry.gid if entry.gid <= _MOST_ID else 0,
        length if length <= _MOST_LONG else 0,
        seconds if 0 <= seconds <= _MOST_LONG else 0,
        kind,
        entry.target[:100].ljust(100, b"\0"),
        MAGIC,
    )
    whole = fields.ljust(BLOCK, b"\0")
    return b"%b%06o\0 %b" % (whole[:148], sum(whole), whole[156:])
