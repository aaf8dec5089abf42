"""Command line: `python -m tests.load [--small] [--users N] ...`; 1 if it found faults."""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import time

from . import run, wire
from .inside.plan import SMALL, Plan


def main(argv: list[str]) -> int:
    """Run the load, print what was done and what is wrong."""
    arguments = _parse(argv)
    if os.geteuid() != 0:
        print("Boxes need root.", file=sys.stderr)
        return 2
    given = {field.name: getattr(arguments, field.name) for field in dataclasses.fields(Plan)}
    chosen = {name: value for name, value in given.items() if value is not None}
    plan = dataclasses.replace(SMALL if arguments.small else Plan(), **chosen)
    start = time.monotonic()
    print(dict(wire.feed(run.PARSED, plan.seed)), f"in {time.monotonic() - start:.0f} s")
    found = run.run(plan)
    print(run.render(found))
    wrong = run.faults(found, plan)
    print("\n".join(wrong) or "No fault was found.")
    return 1 if wrong else 0


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.load", description=__doc__)
    parser.add_argument("--small", action="store_true", help="less than a minute")
    for field in dataclasses.fields(Plan):
        kind = float if field.name == "seconds" else int
        parser.add_argument(f"--{field.name}", type=kind, metavar="N")
    return parser.parse_args(argv)


sys.exit(main(sys.argv[1:]))
