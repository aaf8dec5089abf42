"""Which ids on disk are seen as which ids through the mount: pure tables.

The text is that of uid_map and gid_map, see user_namespaces(7): first the id on
disk, then the id it is seen as. What is not in the table cannot be stored: EOVERFLOW.
"""

from __future__ import annotations

from typing import NamedTuple

NOBODY = 65534

#: The kernel reserves the last id as "no change".
_LARGEST = 0xFFFFFFFE

#: Ranges (first, count) that systemd-homed shows as they are; homed-compatible homes need them.
#: Its second one begins at 60513, inside the range of home uids, and so takes away that uid.
_IDENTITY_RANGES = (
    (0, 60001),  # system and ordinary users below the uids of home areas
    (60514, 5020),  # above them, up to but without nobody
    (524288, 1878523904),  # containers
    (2147352576, 65536),  # foreign images
    (2147483646, 1),  # root of a container without a mapping of its own
)


class IdMapping(NamedTuple):
    """Both tables of one mount; lines of "on-disk seen count"."""

    uid_map: str
    gid_map: str


class _Line(NamedTuple):
    disk: int
    seen: int
    size: int


def strict(
    disk_uid: int, local_uid: int, disk_gid: int | None = None, local_gid: int | None = None
) -> IdMapping:
    """Only the home's owner exists; nothing can be stored under any other id."""
    return IdMapping(
        _text([_own(disk_uid, local_uid)]),
        _text([_own(_or(disk_gid, disk_uid), _or(local_gid, local_uid))]),
    )


def homed(
    disk_uid: int, local_uid: int, disk_gid: int | None = None, local_gid: int | None = None
) -> IdMapping:
    """The owner, and systemd-homed's ranges of ids that are stored as they are."""
    return IdMapping(
        _text(_homed_lines(_own(disk_uid, local_uid))),
        _text(_homed_lines(_own(_or(disk_gid, disk_uid), _or(local_gid, local_uid)))),
    )


def disk_ids(table: str) -> list[range]:
    """The ids on disk that one table of a mapping shows."""
    lines = (line.split() for line in table.splitlines())
    return [range(int(disk), int(disk) + int(size)) for disk, _, size in lines]


def _or(value: int | None, otherwise: int) -> int:
    return otherwise if value is None else value


def _own(disk: int, seen: int) -> _Line:
    for number in (disk, seen):
        if not 0 <= number <= _LARGEST:
            raise ValueError(f"{number} is not an id that can be mapped")
    return _Line(disk, seen, 1)


def _homed_lines(own: _Line) -> list[_Line]:
    # Both sides must stay unambiguous: neither the id on disk nor the id seen may also be itself.
    holes = sorted({own.disk, own.seen})
    lines = [own]
    for first, count in _IDENTITY_RANGES:
        start, end = first, first + count
        for hole in holes:
            if start <= hole < end:
                lines.append(_Line(start, start, hole - start))
                start = hole + 1
        lines.append(_Line(start, start, end - start))
    return [line for line in lines if line.size > 0]


def _text(lines: list[_Line]) -> str:
    return "".join(f"{line.disk} {line.seen} {line.size}\n" for line in lines)
