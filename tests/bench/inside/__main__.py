"""Measures in the box. Argument: the plan. Samples go to standard output, progress to error."""

from __future__ import annotations

import json
import subprocess
import sys

from .homes import RECORDS, RECORDS_ON_DISK
from .phases import Run
from .plan import Plan
from .service import make_room_for_both


def main() -> None:
    """Measure what the plan says."""
    make_room_for_both()
    RECORDS_ON_DISK.mkdir(mode=0o700)
    subprocess.run(["mount", "--bind", str(RECORDS_ON_DISK), str(RECORDS)], check=True)
    run = Run(Plan.from_json(sys.argv[1]))
    run.measure()
    json.dump(run.samples, sys.stdout)


main()
