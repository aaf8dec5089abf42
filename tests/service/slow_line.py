"""In the place of ssh: runs the command for the other machine here, with its bus.

Started as ``slow_line.py BUS DIRECTORY [OPTION...] -- HOST COMMAND``. What the sender says passes
at once up to so many bytes as the file ``limit`` in DIRECTORY says, all else slowly while there is
such a file. Writes down in ``seen`` what the other end is started with.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

CHUNK_BYTES = 65536
#: How long each chunk takes beyond the limit.
SLOW_S = 0.1


def main() -> int:
    """Pass on until the sender has nothing more to say; gives the command's exit code."""
    bus, directory, *words = sys.argv[1:]
    environment = {**os.environ, "DBUS_SYSTEM_BUS_ADDRESS": bus}
    argv = ["sh", "-c", words[words.index("--") + 2]]
    # What somebody who looks at processes sees of it.
    (Path(directory) / "seen").write_text(f"{argv} {environment}")
    with subprocess.Popen(argv, stdin=subprocess.PIPE, env=environment) as there:
        assert there.stdin is not None
        passed = 0
        with suppress(BrokenPipeError, ConnectionResetError):
            while data := os.read(0, CHUNK_BYTES):
                passed += len(data)
                if passed > limit(Path(directory)):
                    time.sleep(SLOW_S)
                os.write(there.stdin.fileno(), data)
        there.stdin.close()
    return there.returncode


def limit(directory: Path) -> float:
    """How many bytes pass at once."""
    try:
        return int((directory / "limit").read_text())
    except FileNotFoundError:
        return float("inf")


if __name__ == "__main__":
    sys.exit(main())
