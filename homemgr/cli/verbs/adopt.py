"""`homemgr adopt PATH...`: make homes of directories and images that lie on this machine's disks.

Also of those that another machine or systemd-homed made: what is known of the
user lies within. See AdoptHome in org.freedesktop.home1(5).
"""

from __future__ import annotations

import os

from homemgr.cli.complain import complain_of
from homemgr.cli.home1 import BusError, Home1, with_agent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from homemgr.cli.arguments import Arguments

OPTIONS = ()
_NO_FLAGS = 0


def run(arguments: Arguments) -> int:
    """Adopt each path; one that fails does not stop the others."""
    home1 = Home1(arguments)
    with_agent(home1)
    failed = False
    for path in arguments.words:
        try:
            # The service has another working directory.
            home1.call("AdoptHome", "st", os.path.abspath(path), _NO_FLAGS)
        except BusError as error:
            complain_of(f"Cannot adopt {path}", error)
            failed = True
    return int(failed)
