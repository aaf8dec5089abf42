"""Entries to bytes and back: one canonical form, so that equal entries are equal bytes.

Big endian, without padding: kind u8, mode u16, uid u32, gid u32, modification and
access time each as seconds s64 and nanoseconds u32, size u64, length of the target
u32, number of extended attributes u16; then the target; then for each attribute
length of the name u8, length of the value u32, name, value.
"""

from __future__ import annotations

import struct
from hashlib import sha256

from homemgr.errors import StreamError
from homemgr.transfer.entry import Entry, Kind, check_path

#: PATH_MAX without its final NUL: what symlink(2) takes.
MAX_TARGET = 4095

#: XATTR_SIZE_MAX of the kernel.
MAX_XATTR_VALUE = 1 << 16

#: All attributes of a name as encoded: together with the longest path they fit in a frame.
MAX_XATTRS = (1 << 20) - 8192

#: Length of a `signature`.
SIGNATURE_BYTES = 20

#: off_t of the kernel.
MAX_SIZE = (1 << 63) - 1

#: The kernel reads the last id as "no change", see chown(2).
_MAX_ID = 0xFFFFFFFE

_HEAD = struct.Struct(">BHIIqIqIQIH")
_XATTR = struct.Struct(">BI")

#: Where the access time lies in an encoded entry.
_ATIME, _AFTER_ATIME = struct.calcsize(">BHIIqI"), struct.calcsize(">BHIIqIqI")
_NO_TIME = bytes(_AFTER_ATIME - _ATIME)

_SECOND = 1_000_000_000

#: Kinds that travel, by number.
_KINDS = {int(kind): kind for kind in Kind if kind <= Kind.LINK}

_WITHOUT_TARGET = frozenset((Kind.DIRECTORY, Kind.FILE, Kind.FIFO))


def encode(entry: Entry) -> bytes:
    """The canonical form; `StreamError` if the entry is none that can travel."""
    _check(entry)
    return _pack(entry)


def decode(data: bytes) -> Entry:
    """The entry of exactly these bytes; `StreamError` if `encode` would not have made them."""
    if len(data) < _HEAD.size:
        raise StreamError("An entry is cut short.")
    (number, mode, uid, gid, mtime_s, mtime_ns, atime_s, atime_ns, size, length, count) = (
        _HEAD.unpack_from(data)
    )
    kind = _KINDS.get(number)
    if kind is None:
        raise StreamError(f"Entries of kind {number} do not travel.")
    if mtime_ns >= _SECOND or atime_ns >= _SECOND:
        raise StreamError("A time has more nanoseconds than a second.")
    end = _HEAD.size + length
    target = data[_HEAD.size : end]
    xattrs = _xattrs(data, end, count)
    mtime = mtime_s * _SECOND + mtime_ns
    entry = Entry(kind, mode, uid, gid, mtime, atime_s * _SECOND + atime_ns, size, target, xattrs)
    _check(entry)
    return entry


def signature(entry: Entry, digest: bytes) -> bytes:
    """What two sides compare: 20 bytes of SHA-256 over the entry and its content's ``digest``.

    The access time does not count, as reading alone changes it. ``digest`` is empty
    for everything but files.
    """
    return signature_of_encoded(_pack(entry), digest)


def signature_of_encoded(data: bytes, digest: bytes) -> bytes:
    """The `signature` of the entry that was encoded as ``data``."""
    return sha256(data[:_ATIME] + _NO_TIME + data[_AFTER_ATIME:] + digest).digest()[
        :SIGNATURE_BYTES
    ]


def xattr_bytes(name: bytes, value: bytes) -> int:
    """What an extended attribute contributes to `MAX_XATTRS`."""
    return _XATTR.size + len(name) + len(value)


def _pack(entry: Entry) -> bytes:
    kind, mode, uid, gid, mtime, atime, size, target, xattrs = entry
    try:
        head = _HEAD.pack(
            kind,
            mode,
            uid,
            gid,
            mtime // _SECOND,
            mtime % _SECOND,
            atime // _SECOND,
            atime % _SECOND,
            size,
            len(target),
            len(xattrs),
        )
        if not xattrs:
            return head + target
        parts = [head, target]
        for name, value in xattrs:
            parts += (_XATTR.pack(len(name), len(value)), name, value)
    except struct.error as error:
        raise StreamError("An entry has values that no file has.") from error
    return b"".join(parts)


def _xattrs(data: bytes, start: int, count: int) -> tuple[tuple[bytes, bytes], ...]:
    """``count`` attributes that begin at ``start`` and fill the rest of ``data``."""
    if not count:
        if start != len(data):
            raise StreamError("An entry is not as long as it says.")
        return ()
    if len(data) - start > MAX_XATTRS:
        raise StreamError("An entry has too many extended attributes.")
    found = []
    for _ in range(count):
        if start + _XATTR.size > len(data):
            raise StreamError("An entry is cut short.")
        name_length, value_length = _XATTR.unpack_from(data, start)
        middle = start + _XATTR.size + name_length
        start = middle + value_length
        found.append((data[middle - name_length : middle], data[middle:start]))
    if start != len(data):
        raise StreamError("An entry is not as long as it says.")
    return tuple(found)


def _check(entry: Entry) -> None:
    kind, mode, uid, gid, _, _, size, target, xattrs = entry
    if not (
        0 <= mode <= 0o7777
        and 0 <= uid <= _MAX_ID
        and 0 <= gid <= _MAX_ID
        and 0 <= size <= MAX_SIZE
    ):
        raise StreamError("An entry has a mode, owner or size that no file has.")
    if size and kind != Kind.FILE:
        raise StreamError("Only files have a size.")
    if target or kind not in _WITHOUT_TARGET:
        _check_target(entry)
    if xattrs:
        _check_xattrs(xattrs)


def _check_target(entry: Entry) -> None:
    target = entry.target
    if entry.kind == Kind.LINK:
        check_path(target)
        if entry != Entry(Kind.LINK, 0, 0, 0, 0, 0, 0, target, ()):
            raise StreamError("A further name of a file must not have metadata of its own.")
    elif entry.kind != Kind.SYMLINK:
        raise StreamError(f"An entry of kind {entry.kind:d} with a target does not travel.")
    elif not 0 < len(target) <= MAX_TARGET or b"\0" in target:
        raise StreamError("A symbolic link has a target that none can have.")


def _check_xattrs(xattrs: tuple[tuple[bytes, bytes], ...]) -> None:
    previous, total = b"", 0
    for name, value in xattrs:
        if not previous < name or len(name) > 255 or b"\0" in name:
            raise StreamError("Names of extended attributes are malformed or out of order.")
        if len(value) > MAX_XATTR_VALUE:
            raise StreamError("The value of an extended attribute is too long.")
        total += xattr_bytes(name, value)
        previous = name
    if total > MAX_XATTRS:
        raise StreamError("An entry has too many extended attributes.")
