"""Room on disk for what has to be written later: it is there, or what needs it does not begin.

Steps that follow each other write records and states of some KiB. If the disk filled up between
two of them, a home would be neither here nor there until somebody made room.
"""

from __future__ import annotations

import errno
from contextlib import ExitStack

from homemgr import errors, files

#: In each directory, several times what any of it takes (bytes).
_HELD_BYTES = 256 << 10
#: What a file system says that has no files without a name (open(2)).
_NO_TMPFILE = (errno.EOPNOTSUPP, errno.EISDIR)


def held_room(*directories: str) -> ExitStack:
    """Have some of the room in ``directories`` until this is closed, right before it is needed.

    Blocks. A kill gives it back. Raises NoDiskSpace if there is none.
    """
    with ExitStack() as held:
        for directory in directories:
            try:
                held.enter_context(files.hold_space(directory, _HELD_BYTES))
            except OSError as error:
                if error.errno not in _NO_TMPFILE:
                    doing = f"Holding {_HELD_BYTES} bytes in {directory} for records"
                    raise errors.from_os_error(error, doing) from error
        return held.pop_all()
