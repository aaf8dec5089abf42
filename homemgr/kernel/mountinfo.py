"""Which mounts lie below a mount: listmount(2) and statmount(2), or /proc/self/mountinfo.

Both ways give the same answer with the same numbers (the 32-bit ids of mountinfo);
the calls exist from Linux 6.8 on and do not read hundreds of unrelated lines.
"""

from __future__ import annotations

import errno
import os
import re
import struct
from typing import NamedTuple

from homemgr.files import Fd
from homemgr.kernel.statx import place, unique_mount_id
from homemgr.kernel.syscall import POINTER, SIZE, UINT, packed, system_call, zeroed

_STATMOUNT_MNT_BASIC = 0x2
_STATMOUNT_MNT_POINT = 0x10

#: struct mnt_id_req in its first version: size, spare, mnt_id, param.
_REQUEST = "=IIQQ"
_REQUEST_SIZE = 24

#: Offsets in struct statmount: mnt_id_old and mnt_parent_id_old, mnt_point, strings.
_IDS, _POINT, _STRINGS = 56, 108, 512
_STATMOUNT_SIZE = _STRINGS + 2 * 4096

_BATCH = 512

#: What kernels (ENOSYS) and old sandboxes (EPERM) answer to calls they do not know.
_UNKNOWN_CALL = (errno.ENOSYS, errno.EPERM, errno.EOPNOTSUPP)

#: mountinfo writes space, tab, newline, backslash and # as three octal digits.
_OCTAL = re.compile(rb"\\([0-3][0-7]{2})")

_statmount = system_call("statmount", 457, POINTER, POINTER, SIZE, UINT)
_listmount = system_call("listmount", 458, POINTER, POINTER, SIZE, UINT)


class Mount(NamedTuple):
    """One mount of this mount namespace, as far as its place in the tree goes."""

    mount_id: int
    parent_id: int
    mount_point: str


def submounts(root_fd: int) -> list[Mount]:
    """All mounts below the one whose root is ``root_fd``, those on top of others first.

    Their mount points are given relative to that root.
    """
    try:
        top, below = _by_calls(root_fd)
    except OSError as error:
        if error.errno not in _UNKNOWN_CALL:
            raise
        top, below = from_mountinfo(place(root_fd).mount_id)
    prefix = top.mount_point.rstrip("/")
    relative = [m._replace(mount_point=m.mount_point[len(prefix) :].strip("/")) for m in below]
    return _topmost_first(top.mount_id, relative)


def _topmost_first(top_id: int, mounts: list[Mount]) -> list[Mount]:
    children: dict[int, list[Mount]] = {}
    for mount in mounts:
        children.setdefault(mount.parent_id, []).append(mount)
    ordered: list[Mount] = []
    pending = list(children.get(top_id, ()))
    pending.sort(key=_length)
    while pending:
        mount = pending.pop()
        ordered.append(mount)
        pending += sorted(children.pop(mount.mount_id, ()), key=_length)
    # Parents before children, and reversed: each mount after all that is on top of it.
    return ordered[::-1]


def _length(mount: Mount) -> int:
    # Of two mounts on one parent, the one with the shorter path hides what lies below it.
    return len(mount.mount_point)


def _by_calls(root_fd: int) -> tuple[Mount, list[Mount]]:
    unique = unique_mount_id(root_fd)
    if unique is None:
        raise OSError(errno.ENOSYS, "statx: no unique mount ids on this kernel")
    found: list[Mount] = []
    for mount_id in _list(unique):
        try:
            found.append(_stat(mount_id))
        except FileNotFoundError:
            # Gone between the two calls.
            continue
    return _stat(unique), found


def _list(mount_id: int) -> list[int]:
    ids: list[int] = []
    while True:
        request = packed(_REQUEST, _REQUEST_SIZE, 0, mount_id, ids[-1] if ids else 0)
        area = zeroed(_BATCH * 8)
        count = _listmount(request, area, _BATCH, 0)
        ids += struct.unpack_from(f"={count}Q", area.raw)
        if count < _BATCH:
            return ids


def _stat(mount_id: int) -> Mount:
    wanted = _STATMOUNT_MNT_BASIC | _STATMOUNT_MNT_POINT
    request = packed(_REQUEST, _REQUEST_SIZE, 0, mount_id, wanted)
    area = zeroed(_STATMOUNT_SIZE)
    _statmount(request, area, _STATMOUNT_SIZE, 0)
    old_id, old_parent_id = struct.unpack_from("=II", area.raw, _IDS)
    (start,) = struct.unpack_from("=I", area.raw, _POINT)
    text = area.raw[_STRINGS + start :].partition(b"\0")[0]
    return Mount(old_id, old_parent_id, os.fsdecode(text))


def from_mountinfo(top_id: int) -> tuple[Mount, list[Mount]]:
    """The mount ``top_id`` and all below it, for kernels without the calls."""
    mounts = {m.mount_id: m for m in parse_mountinfo(_read_mountinfo())}
    if top_id not in mounts:
        raise OSError(errno.ENOENT, "mountinfo: the mount is not in this mount namespace")
    below = [m for m in mounts.values() if m.mount_id != top_id and _is_below(m, top_id, mounts)]
    return mounts[top_id], below


def file_systems() -> dict[int, tuple[str, str]]:
    """Type and source of every mount of this namespace, without asking any file system."""
    found: dict[int, tuple[str, str]] = {}
    for line in _read_mountinfo().splitlines():
        mount_id, _, rest = line.partition(" ")
        # Optional fields come first, and a dash ends them.
        kind, source = rest.partition(" - ")[2].split(" ")[:2]
        found[int(mount_id)] = kind, unescape(source)
    return found


def mount_roots() -> list[tuple[str, str]]:
    """Of every mount of this namespace: what it shows of its file system, and where it is."""
    rows = [line.split(" ", 5) for line in _read_mountinfo().splitlines()]
    return [(unescape(row[3]), unescape(row[4])) for row in rows]


def _is_below(mount: Mount, top_id: int, mounts: dict[int, Mount]) -> bool:
    seen: set[int] = set()
    current: Mount | None = mount
    while current is not None and current.mount_id not in seen:
        if current.parent_id == top_id:
            return True
        seen.add(current.mount_id)
        current = mounts.get(current.parent_id)
    return False


def parse_mountinfo(text: str) -> list[Mount]:
    """The lines of a mountinfo file, see proc_pid_mountinfo(5)."""
    rows = [line.split(" ", 5) for line in text.splitlines()]
    return [Mount(int(row[0]), int(row[1]), unescape(row[4])) for row in rows]


def unescape(text: str) -> str:
    r"""Turn ``\040`` and its like back into the bytes they stand for."""
    # In bytes, since an escape may be a part of a longer UTF-8 sequence.
    return os.fsdecode(_OCTAL.sub(lambda found: bytes([int(found[1], 8)]), os.fsencode(text)))


def _read_mountinfo() -> str:
    with Fd.open("/proc/self/mountinfo", os.O_RDONLY) as fd:
        chunks: list[bytes] = []
        while chunk := os.read(fd.fileno(), 1 << 16):
            chunks.append(chunk)
    return os.fsdecode(b"".join(chunks))
