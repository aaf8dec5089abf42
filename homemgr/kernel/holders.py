"""Which processes keep a mount busy, see proc(5).

Looks at working directory, root, executable, open files and mappings of every
process; by mount id, and for copies of the mount in other mount namespaces by
device and path. Never asks a file system anything and stops at a deadline.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from homemgr.files import Fd, read_limited
from homemgr.kernel.mountinfo import unescape
from homemgr.kernel.statx import place

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC

#: A process with more mappings than fit in here is looked at only so far.
_MAPS_LIMIT = 4 << 20


class Target(NamedTuple):
    """What must be held to count: a mount, its submounts, and where it is seen."""

    mount_ids: frozenset[int]
    device: int
    path: str


class Holder(NamedTuple):
    """A process that keeps the mount busy; ``what`` says through which of its files."""

    pid: int
    comm: str
    uid: int
    what: str


def find_holders(target: Target, *, limit_s: float) -> list[Holder]:
    """Every process holding ``target``, found within ``limit_s`` seconds; we may be among them.

    Processes that we may not look into (no CAP_SYS_PTRACE) are left out.
    """
    search = _Search(target, time.monotonic() + limit_s)
    # Reading mappings costs more, and hardly ever is a file mapped but not open.
    return search.processes(search.held_file) or search.processes(search.held_mapping)


def find_loop_devices(target: Target) -> list[Holder]:
    """Block devices backed by a file in ``target``, as holders with pid 0.

    The kernel itself holds such a file. Only paths are compared, and those of another
    container may look the same: good for an explanation, not for a decision.
    """
    found: list[Holder] = []
    for name in _block_devices():
        # One that is attached to nothing has no such directory, and others go while we look.
        with suppress(OSError), Fd.open(f"/sys/block/{name}/loop", _DIRECTORY) as device:
            path = os.fsdecode(_read(device.fileno(), "backing_file", 4096)).rstrip("\n")
            if _is_within(path, target.path):
                found.append(Holder(0, name, 0, f"block device of {path}"))
    return found


class _Search:
    """One search with its target and its deadline."""

    def __init__(self, target: Target, deadline: float) -> None:
        self._target = target
        self._deadline = deadline

    def _is_over(self) -> bool:
        return time.monotonic() > self._deadline

    def processes(self, look: Callable[[int], str | None]) -> list[Holder]:
        found: list[Holder] = []
        for pid in _pids():
            if self._is_over():
                break
            holder = _inspect(pid, look)
            if holder is not None:
                found.append(holder)
        return found

    def held_file(self, process: int) -> str | None:
        for link in ("cwd", "root", "exe"):
            if self._is_held(process, link):
                return link
        for number in _numbers(process):
            if self._is_held(process, f"fd/{number}"):
                return f"fd {number}"
            # One process may have a million files open.
            if self._is_over():
                break
        return None

    def held_mapping(self, process: int) -> str | None:
        seen: set[str] = set()
        for span, path in _mapped_files(_read(process, "maps", _MAPS_LIMIT)):
            # One file is mapped in several pieces; asking about one of them is enough.
            if path in seen or self._is_over():
                continue
            seen.add(path)
            if self._is_held(process, f"map_files/{span}"):
                return f"mapping of {path}"
        return None

    def _is_held(self, process: int, link: str) -> bool:
        try:
            where = place(process, link, follow=True)
            if where.mount_id in self._target.mount_ids:
                return True
            # Reading the link costs a path walk; another device settles it without.
            if where.device != self._target.device:
                return False
            return _is_within(os.readlink(link, dir_fd=process), self._target.path)
        except OSError:
            # Closed meanwhile, or a kernel thread without executable.
            return False


def _pids() -> list[int]:
    return sorted(int(name) for name in os.listdir("/proc") if name.isdigit())


def _block_devices() -> list[str]:
    with suppress(FileNotFoundError):
        return sorted(name for name in os.listdir("/sys/block") if name.startswith("loop"))
    return []


def _inspect(pid: int, look: Callable[[int], str | None]) -> Holder | None:
    try:
        # By descriptor: a new process with the same number is not mistaken for it.
        with Fd.open(f"/proc/{pid}", _DIRECTORY) as process:
            what = look(process.fileno())
            if what is None:
                return None
            comm = _read(process.fileno(), "comm", 64).decode("utf-8", "replace").rstrip("\n")
            return Holder(pid, comm, os.fstat(process.fileno()).st_uid, what)
    except OSError:
        # Ended meanwhile, or not ours to look into.
        return None


def _numbers(process: int) -> list[str]:
    with Fd.open("fd", _DIRECTORY, dir_fd=process) as fds:
        return os.listdir(fds.fileno())


def _is_within(path: str, directory: str) -> bool:
    return path == directory or path.startswith(directory + "/")


def _mapped_files(maps: bytes) -> Iterator[tuple[str, str]]:
    for line in maps.decode("utf-8", "surrogateescape").splitlines():
        # address, permissions, offset, device, inode, path: only files have an absolute one.
        fields = line.split(None, 5)
        if len(fields) == 6 and fields[5].startswith("/"):
            start, _, end = fields[0].partition("-")
            # The names in map_files are without the leading zeros that maps may write.
            yield f"{int(start, 16):x}-{int(end, 16):x}", unescape(fields[5])


def _read(process: int, name: str, limit: int) -> bytes:
    with Fd.open(name, os.O_RDONLY, dir_fd=process) as fd:
        return read_limited(fd.fileno(), limit, name)
