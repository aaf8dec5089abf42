"""Files and the descriptors that own them: `Fd`, whole-file writes, bounded reads.

Knows nothing of what is in a file. Never follows a symbolic link in the last
component, never blocks on what it opens. See open(2), rename(2), fsync(2).
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import warnings
from contextlib import ExitStack, contextmanager, suppress

TYPE_CHECKING = False  # typing would cost every start of the command line 5 ms
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

#: How every directory is opened: the inode itself, never through a link.
DIRECTORY_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC

#: How every file of doubtful origin is opened: a fifo must not block us, a
#: terminal must not become ours, a link must not lead us elsewhere.
GUARDED_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC

#: How names of unfinished files begin and end. The pattern is systemd's: its readers skip it too.
_UNFINISHED, _DIGITS, _HEX = ".#", 16, set("0123456789abcdef")

#: Read in pieces, so that a small file does not cost the limit's memory.
_CHUNK = 1 << 16


class Fd:
    """The one owner of a file descriptor.

    Closes it at the end of its ``with`` block or by `close`; `take` hands the
    number, and the duty to close it, to somebody else. Collected while it still
    owns one it closes it and warns, since that moment is chance.
    """

    __slots__ = ("_number",)

    def __init__(self, number: int) -> None:
        """Become the owner of ``number``, which becomes close-on-exec."""
        self._number = -1
        fcntl.fcntl(number, fcntl.F_SETFD, fcntl.FD_CLOEXEC)
        self._number = number

    @classmethod
    def open(cls, path: str, flags: int, mode: int = 0o600, *, dir_fd: int | None = None) -> Fd:
        """Own what open(2) gives, or openat(2) with ``dir_fd``; close-on-exec from the start."""
        return cls.opened(os.open(path, flags | os.O_CLOEXEC, mode, dir_fd=dir_fd))

    @classmethod
    def opened(cls, number: int) -> Fd:
        """Become the owner of ``number``, which is close-on-exec already: no call to make it so."""
        owner = cls.__new__(cls)
        owner._number = number
        return owner

    def fileno(self) -> int:
        """The borrowed number; `ValueError` once it was closed or taken."""
        if self._number < 0:
            raise ValueError("this file descriptor was closed or handed on")
        return self._number

    @property
    def is_open(self) -> bool:
        """Whether there still is something to close."""
        return self._number >= 0

    def take(self) -> int:
        """Give up ownership; from now on the caller closes the number."""
        number, self._number = self.fileno(), -1
        return number

    def duplicate(self) -> Fd:
        """A second descriptor of the same open file, with an owner of its own."""
        return Fd(os.dup(self.fileno()))

    def close(self) -> None:
        """Close what is owned; once is enough and twice does no harm."""
        number, self._number = self._number, -1
        if number >= 0:
            os.close(number)

    def __enter__(self) -> Fd:
        """Own until the end of the block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close, whatever happened."""
        self.close()

    def __repr__(self) -> str:
        """The number, or that there is none."""
        return f"Fd({self._number})" if self.is_open else "Fd(closed)"

    def __del__(self) -> None:
        """Close late and complain: somebody forgot."""
        if getattr(self, "_number", -1) >= 0:
            warnings.warn(f"{self!r} was never closed", ResourceWarning, stacklevel=2, source=self)
            self.close()


@contextmanager
def opened(directory: Fd | str) -> Iterator[int]:
    """The number of ``directory``, opened for the length of the block if it is a path."""
    if isinstance(directory, Fd):
        yield directory.fileno()
        return
    with Fd.open(directory, DIRECTORY_FLAGS) as owned:
        yield owned.fileno()


def write_all(fd: int, data: bytes) -> None:
    """Write every byte of ``data``: write(2) may take less than it is given."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def write_atomically(directory: Fd | str, name: str, data: bytes, mode: int) -> None:
    """Make ``name`` in ``directory`` hold ``data``: after a crash it is the old or the new, whole.

    The mode is ``mode`` whatever the umask says. Leaves nothing behind on failure.
    """
    temporary = f"{_UNFINISHED}{name}{os.urandom(_DIGITS // 2).hex()}"
    with opened(directory) as parent:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | GUARDED_FLAGS
        with ExitStack() as undo, Fd.open(temporary, flags, dir_fd=parent) as new:
            undo.callback(os.unlink, temporary, dir_fd=parent)
            write_all(new.fileno(), data)
            os.fchmod(new.fileno(), mode)
            os.fsync(new.fileno())
            os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)
            undo.pop_all()
        # The name is durable only with the directory that holds it.
        os.fsync(parent)


def forget_unfinished(directory: Fd | str, *names: str) -> None:
    """Delete what `write_atomically` left in ``directory`` when it was killed, or the power went.

    Of files called ``names``, or of all. To be called while nobody writes them. No directory is
    no error; raises OSError.
    """
    with suppress(FileNotFoundError), opened(directory) as parent:
        for name in os.listdir(parent):
            meant = name.removeprefix(_UNFINISHED)[:-_DIGITS]
            is_marked = name.startswith(_UNFINISHED) and not set(name[-_DIGITS:]) - _HEX
            if is_marked and meant and (not names or meant in names):
                # Nobody else makes a directory of such a name here.
                with suppress(FileNotFoundError, IsADirectoryError):
                    os.unlink(name, dir_fd=parent)


def hold_space(directory: str, size: int) -> Fd:
    """Take ``size`` bytes of the file system of ``directory``, given back when this is closed.

    They belong to a file without a name, see O_TMPFILE in open(2): a kill gives them back too.
    """
    held = Fd.open(directory, os.O_TMPFILE | os.O_WRONLY)
    try:
        os.posix_fallocate(held.fileno(), 0, size)
    except BaseException:
        held.close()
        raise
    return held


def read_bounded(directory: Fd | str, name: str, limit: int) -> bytes:
    """All of the regular file ``name``, if it has at most ``limit`` bytes.

    OSError says why not: ELOOP a symbolic link, EBADF not a regular file, EFBIG too large.
    """
    with opened(directory) as parent:
        fd = Fd.open(name, os.O_RDONLY | GUARDED_FLAGS, dir_fd=parent)
    with fd:
        if not stat.S_ISREG(os.fstat(fd.fileno()).st_mode):
            raise OSError(errno.EBADF, "not a regular file", name)
        return read_limited(fd.fileno(), limit, name)


def read_limited(fd: int, limit: int, name: str) -> bytes:
    """Read ``fd`` to its end, but EFBIG beyond ``limit``: what stat says may change meanwhile."""
    chunks: list[bytes] = []
    left = limit + 1
    while left > 0:
        chunk = os.read(fd, min(left, _CHUNK))
        if not chunk:
            return b"".join(chunks)
        chunks.append(chunk)
        left -= len(chunk)
    raise OSError(errno.EFBIG, f"larger than {limit} bytes", name)
