"""One walk over a home directory in a process that may be killed: DIRECTORY take|give_back."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.kernel.test_owners import Home

if __name__ == "__main__":
    getattr(Home(Path(sys.argv[1])), sys.argv[2])()
