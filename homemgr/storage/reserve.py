"""Space held back for the moment when there is none left: to note down what has come so far."""

from __future__ import annotations

import os

from homemgr.errors import from_os_error
from homemgr.files import Fd


def hold_space(directory: str, size: int) -> Fd:
    """Take ``size`` bytes of the file system of ``directory``, given back when this is closed.

    They belong to a file without a name, see O_TMPFILE in open(2): a kill gives them back too.
    Raises NoDiskSpace and SystemFailure.
    """
    try:
        held = Fd.open(directory, os.O_TMPFILE | os.O_WRONLY)
        try:
            os.posix_fallocate(held.fileno(), 0, size)
        except BaseException:
            held.close()
            raise
    except OSError as error:
        raise from_os_error(error, f"Holding {size} bytes in {directory}") from error
    return held
