"""The account files of the machine, changed as shadow-utils change them.

Under the lock of lckpwdf(3), each file replaced in one step with its mode, owner and label,
synced, and the one before kept as ``passwd-`` and so on. Four files cannot be replaced in one
step: whoever calls has to be able to take the change back, or to make it again.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

from homemgr import errors
from homemgr.files import GUARDED_FLAGS, Fd, forget_unfinished, read_limited, write_all
from homemgr.record.account_lines import FILES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from homemgr.record.account_lines import Texts

_LOCK = ".pwd.lock"
#: How long lckpwdf(3) waits for the lock, and between two attempts (s).
_PATIENCE_S = 15.0
_PAUSE_S = 0.05
#: Accounts of a large machine are some MiB.
_LIMIT = 64 << 20
#: The name of systemd for files that are not finished.
_NEW_PREFIX = ".#"


@contextmanager
def locked(directory: str, require_wanted: Callable[[], None]) -> Iterator[None]:
    """Keep all others who lock the account files in ``directory`` waiting.

    Raises HomeBusy if somebody keeps us waiting for too long, and what ``require_wanted``
    raises: after a wait nobody may want the change any more, or somebody else has made another.
    """
    path = os.path.join(directory, _LOCK)
    with Fd.open(path, os.O_WRONLY | os.O_CREAT | GUARDED_FLAGS, 0o600) as lock:
        deadline = time.monotonic() + _PATIENCE_S
        # Tried again and again, not waited for in the kernel: `require_wanted` is asked in between.
        while True:
            try:
                # The kind of lock that lckpwdf(3) takes; flock(2) would keep none of its users out.
                fcntl.lockf(lock.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EAGAIN):
                    raise
            if time.monotonic() > deadline:
                raise errors.HomeBusy(
                    f"Another program has the account files in {directory} locked; try again."
                )
            require_wanted()
            time.sleep(_PAUSE_S)
        require_wanted()
        # Who was killed has left passwords of all users there. Others write them with the lock too.
        forget_unfinished(directory, *FILES, *(f"{name}-" for name in FILES))
        yield


def read(directory: str) -> Texts:
    """The texts of the files there are; a machine without shadow passwords has fewer."""
    texts = {}
    for name in FILES:
        with suppress(FileNotFoundError), _opened(directory, name) as fd:
            data = read_limited(fd.fileno(), _LIMIT, name)
            texts[name] = data.decode("utf-8", "surrogateescape")
    return texts


def write(directory: str, before: Texts, after: Texts) -> None:
    """Replace every file whose text has changed; durable when this returns."""
    with Fd.open(directory, os.O_RDONLY | os.O_DIRECTORY) as parent:
        for name, text in after.items():
            if text != before.get(name):
                with _opened(directory, name) as old:
                    _keep(parent, name, old, before[name])
                    _replace(parent, name, old, text)


def _opened(directory: str, name: str) -> Fd:
    return Fd.open(os.path.join(directory, name), os.O_RDONLY | GUARDED_FLAGS)


def _keep(parent: Fd, name: str, old: Fd, text: str) -> None:
    """The file as it was, under the name that shadow-utils give it."""
    _replace(parent, f"{name}-", old, text)


def _replace(parent: Fd, name: str, like: Fd, text: str) -> None:
    """Put ``text`` in the place of ``name``, with mode, owner and label of ``like``."""
    temporary = f"{_NEW_PREFIX}{name}{os.urandom(8).hex()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | GUARDED_FLAGS
    with ExitStack() as undo, Fd.open(temporary, flags, 0o600, dir_fd=parent.fileno()) as new:
        undo.callback(os.unlink, temporary, dir_fd=parent.fileno())
        write_all(new.fileno(), text.encode("utf-8", "surrogateescape"))
        found = os.fstat(like.fileno())
        os.fchown(new.fileno(), found.st_uid, found.st_gid)
        for attribute in os.listxattr(like.fileno()):
            os.setxattr(new.fileno(), attribute, os.getxattr(like.fileno(), attribute))
        # After the owner, since chown(2) takes bits away; until here its owner alone can read it.
        os.fchmod(new.fileno(), found.st_mode & 0o7777)
        os.fsync(new.fileno())
        os.rename(temporary, name, src_dir_fd=parent.fileno(), dst_dir_fd=parent.fileno())
        undo.pop_all()
    os.fsync(parent.fileno())
