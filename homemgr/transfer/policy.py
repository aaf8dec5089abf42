"""What of a home may travel: no foreign id, no right that its owner could not give himself.

Applied on both sides, since each knows only itself to be honest; what was sanitised once
passes unchanged. On the way the owner is nobody, whatever he was on the origin's disk.
"""

from __future__ import annotations

import stat
from typing import NamedTuple

from homemgr.errors import StreamError
from homemgr.transfer import acl, flags
from homemgr.transfer.codec import MAX_XATTRS, xattr_bytes
from homemgr.transfer.entry import Entry, Kind
from homemgr.transfer.report import Note

NOBODY = 65534

#: Ids (first, count) that a wide mapping stores as they are, see `storage.idmapping`.
AS_THEY_ARE = (
    (0, 60001),
    (60514, 5020),
    (524288, 1878523904),
    (2147352576, 65536),
    (2147483646, 1),
)

#: Ids from here on mean somebody inside of a container only.
_FIRST_CONTAINER = 524288

_SKIPPED = {
    Kind.SOCKET: "socket-skipped",
    Kind.CHARACTER: "device-skipped",
    Kind.BLOCK: "device-skipped",
}

#: How overlayfs marks a deleted file: a character device of this number.
_WHITEOUT = b"0:0"

_OVERLAY = (b"user.overlay.", b"trusted.overlay.")
#: What a storage keeps at the top of a home: where that arrives it is made anew, and not lost.
_OF_STORAGE = (b"trusted.fscrypt_slot", b"trusted.homemgr.")
_CAPABILITY = b"security.capability"
_USER = b"user."

#: Which kinds can have what: see xattr(7) and acl(5).
_WITH_USER_XATTRS = (Kind.FILE, Kind.DIRECTORY)
_WITH_ACL = {acl.ACCESS: (Kind.FILE, Kind.DIRECTORY, Kind.FIFO), acl.DEFAULT: (Kind.DIRECTORY,)}

Xattrs = tuple[tuple[bytes, bytes], ...]


class Policy(NamedTuple):
    """Whose home it is, as ids on disk; ``is_wide`` if other ids are stored as they are."""

    disk_uid: int
    disk_gid: int
    is_wide: bool
    #: Flags of chattr, as words, that can be stored where the home arrives.
    flags: frozenset[bytes] = frozenset(flags.CARRIED)


def sanitise(path: bytes, entry: Entry, policy: Policy) -> tuple[Entry | None, list[Note]]:
    """What of ``entry`` travels, and what is to be said about the rest; None: nothing.

    - Sockets and devices, whiteouts of overlayfs among them, do not.
    - The owner's ids become nobody. Of others a wide policy keeps those that its mapping
      stores; all else becomes nobody.
    - Set-id bits stay if the id is the owner's or that of a container that is kept: all
      others would give the rights of somebody else.
    - Extended attributes: ``user.`` and ACLs. File capabilities, overlayfs' marks and all
      others are dropped, and the largest of more than `codec.MAX_XATTRS` bytes.
    - Flags of chattr that users may give and the receiver can store are kept.
    - Entries of an ACL are kept, dropped and translated like ids of owners, but none
      becomes the owner's who was not. A list that is malformed, or on something that has
      none, is dropped. One that says no more than the mode is left out: the mode counts.
    """
    kind, mode, uid, gid = entry[:4]
    if kind >= Kind.LINK:
        if kind == Kind.LINK:
            return entry, []
        is_whiteout = kind == Kind.CHARACTER and entry.target == _WHITEOUT
        return None, [Note("whiteout-skipped" if is_whiteout else _SKIPPED[kind], path, "")]
    is_own = uid == policy.disk_uid and gid == policy.disk_gid
    if is_own and not entry.xattrs and not mode & (stat.S_ISUID | stat.S_ISGID):
        is_ready = uid == gid == NOBODY
        return (entry if is_ready else entry._replace(uid=NOBODY, gid=NOBODY)), []
    notes: list[Note] = []
    new_mode = mode & ~_lost_bits(entry, policy)
    if new_mode != mode:
        notes.append(Note("setid-cleared", path, f"{mode:04o}"))
    new_uid = _owner(path, "uid", uid, policy.disk_uid, policy, notes)
    new_gid = _owner(path, "gid", gid, policy.disk_gid, policy, notes)
    xattrs = _xattrs(path, entry, policy, notes)
    return entry._replace(mode=new_mode, uid=new_uid, gid=new_gid, xattrs=xattrs), notes


def is_acl(name: bytes) -> bool:
    """Whether an extended attribute is an access control list."""
    return name in _WITH_ACL


def is_of_user(name: bytes) -> bool:
    """Whether an extended attribute is one that users give to their files."""
    return name.startswith(_USER) and name != _USER and not name.startswith(_OVERLAY)


def _translated(number: int, own: int, policy: Policy) -> int | None:
    """The id on the way; None if it cannot be stored."""
    if number == own:
        return NOBODY
    if policy.is_wide and any(first <= number < first + n for first, n in AS_THEY_ARE):
        return number
    return None


def _owner(path: bytes, word: str, number: int, own: int, policy: Policy, notes: list[Note]) -> int:
    translated = _translated(number, own, policy)
    if translated is None:
        notes.append(Note("owner-changed", path, f"{word} {number}"))
        return NOBODY
    return translated


def _lost_bits(entry: Entry, policy: Policy) -> int:
    """The set-id bits of an entry that do not travel."""
    lost = 0
    for bit, number, own in (
        (stat.S_ISUID, entry.uid, policy.disk_uid),
        (stat.S_ISGID, entry.gid, policy.disk_gid),
    ):
        is_container = number >= _FIRST_CONTAINER and _translated(number, own, policy) is not None
        if number == 0 or not (number == own or is_container):
            lost |= bit
    return lost


def _xattrs(path: bytes, entry: Entry, policy: Policy, notes: list[Note]) -> Xattrs:
    kept = []
    for name, value in entry.xattrs:
        if name in _WITH_ACL:
            new = _list(path, entry.kind, name, value, policy, notes)
            if new is not None:
                kept.append((name, new))
        elif is_of_user(name) and entry.kind in _WITH_USER_XATTRS:
            kept.append((name, value))
        elif name == flags.NAME:
            if words := _flags(path, entry.kind, value, policy, notes):
                kept.append((name, words))
        elif name == _CAPABILITY:
            notes.append(Note("capability-dropped", path, ""))
        elif path or not name.startswith(_OF_STORAGE):
            notes.append(Note("xattr-dropped", path, _shown(name)))
    while sum(xattr_bytes(*pair) for pair in kept) > MAX_XATTRS:
        largest = max(kept, key=lambda pair: len(pair[1]))
        kept.remove(largest)
        notes.append(Note("xattr-dropped", path, f"{_shown(largest[0])}: too many bytes in all"))
    return tuple(kept)


def _flags(path: bytes, kind: Kind, value: bytes, policy: Policy, notes: list[Note]) -> bytes:
    """The flags that are kept; empty if there are none."""
    kept = []
    for word in sorted(set(value.split(b","))):
        has_use = kind == Kind.DIRECTORY or (kind == Kind.FILE and word not in flags.OF_DIRECTORIES)
        if word in policy.flags and has_use:
            kept.append(word)
        else:
            notes.append(Note("flag-dropped", path, _shown(word)))
    return flags.joined(kept)


def _list(
    path: bytes, kind: Kind, name: bytes, value: bytes, policy: Policy, notes: list[Note]
) -> bytes | None:
    """An ACL with its ids translated; None if nothing is to be said."""
    try:
        entries = acl.parse(value)
    except StreamError:
        entries = []
    if not entries or kind not in _WITH_ACL[name]:
        notes.append(Note("xattr-dropped", path, f"{_shown(name)}: malformed"))
        return None
    kept = []
    for line in entries:
        own = policy.disk_uid if line.tag == acl.USER else policy.disk_gid
        number = line.id if line.id == acl.NO_ID else _translated(line.id, own, policy)
        if number is None:
            notes.append(Note("acl-entry-dropped", path, acl.to_text([line]).strip()))
        else:
            kept.append(line._replace(id=number))
    if name == acl.ACCESS and acl.is_minimal(kept):
        return None
    return acl.build(sorted(kept))


def _shown(name: bytes) -> str:
    return name.decode("ascii", "backslashreplace")
